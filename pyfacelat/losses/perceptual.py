"""LPIPS: how different two images look (Zhang et al. 2018, arXiv:1801.03924), one value an image.

    d(x, y) = sum over stages k of mean over pixels p of sum over channels c of
              lin_k[c] * (u_k(x)[c, p] - u_k(y)[c, p])^2
    u = f / (|f| + 1e-10), the features of a trunk network with unit length along the channels

With the VGG-16 trunk and version 0.1 weights this equals the lpips package (net="vgg"), except
for the gradient at pixels whose features are all zero, where that one is NaN and this one 0.

In float32 the gradient is only good to about 2e-3 of its norm on small images, whoever computes it:
a pooling window or a ReLU within rounding of a tie may decide either way. So results for another
memory format of the same weights can differ by that much; the metric keeps the format it is given.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.ops import lpips_diff, lpips_unit

__all__ = ["LPIPS", "lpips_vgg16"]

# ImageNet statistics for images in [-1, 1], as the lpips package rounds them.
_VGG_SHIFT = (-0.030, -0.088, -0.188)
_VGG_SCALE = (0.458, 0.448, 0.450)


class LPIPS(nn.Module):
    """Perceptual distance by the features of a trunk network.

    Frozen and in evaluation mode from the start; gradients flow to the images only.

    Args:
        trunk: maps images [N, 3, H, W] to a list of feature maps [N, C_k, H_k, W_k]. Where some
            show only a part of the image, its attribute `regions` says which, so that masks reach
            them: (left, top, right, bottom) in units of the image side, or None, for each map.
        lins: one weight vector [C_k] >= 0.
        shift, scale: per colour channel; the trunk is fed (images - shift) / scale.

    Attributes:
        trunk: as given.
        num_stages: length of `lins`.

    Raises:
        ValueError: a weight vector has a wrong shape, a negative or a non-finite entry.
    """

    shift: Tensor
    scale: Tensor

    def __init__(
        self,
        trunk: nn.Module,
        lins: Sequence[Tensor],
        shift: Sequence[float] = (0.0, 0.0, 0.0),
        scale: Sequence[float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        self.trunk = trunk
        self.num_stages = len(lins)
        for k, lin in enumerate(lins):
            if lin.ndim != 1 or not bool(torch.isfinite(lin).all()) or bool((lin < 0).any()):
                raise ValueError(
                    f"lins[{k}]: expected finite numbers >= 0 of shape [C], "
                    f"got shape {list(lin.shape)}, minimum {lin.min().item():.3g}"
                )
            self.register_buffer(f"lin{k}", lin.detach().clone())
        self.register_buffer("shift", torch.tensor(shift).reshape(3, 1, 1))
        self.register_buffer("scale", torch.tensor(scale).reshape(3, 1, 1))
        self.eval().requires_grad_(False)

    def with_trunk(self, trunk: nn.Module) -> LPIPS:
        """This metric, weights shared, with a trunk that computes the same in another way."""
        twin = copy.copy(self)
        twin._modules = {**self._modules, "trunk": trunk}
        return twin

    def features(self, images: Tensor) -> list[Tensor]:
        """Features as the trunk gives them.

        Args:
            images: RGB [N, 3, H, W] in [-1, 1], dtype of the trunk's parameters.

        Returns:
            One [N, C_k, H_k, W_k] for each stage.

        Raises:
            ValueError: images have a wrong shape, or the trunk does not fit `lins`.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images: expected shape [N, 3, H, W], got {list(images.shape)}")
        features: list[Tensor] = self.trunk((images - self.shift) / self.scale)
        widths = [self._lin(k).shape[0] for k in range(self.num_stages)]
        if [f.shape[1] for f in features] != widths:
            raise ValueError(
                f"trunk: expected maps of {widths} channels, as lins has, "
                f"got {[f.shape[1] for f in features]}"
            )
        return features

    def embed(self, images: Tensor) -> list[Tensor]:
        """Unit-length features; compute a target's once and reuse it.

        Args:
            images: as in `features`.

        Returns:
            One [N, C_k, H_k, W_k] for each stage, of length 1 (or 0) along C_k; float32 where the
            trunk is of a 16-bit dtype.

        Raises:
            ValueError: as `features`.
        """
        return [lpips_unit(f) for f in self.features(images)]

    def compare(
        self, images: Tensor, target: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Distance of images to embedded targets, each stage one op with its gradient.

        Differentiable once, to the images; `distance` of both embedded is the same in plain torch.

        Args:
            images: as in `features`.
            target: result of `embed`, of as many images or of one.
            mask: as in `distance`.

        Returns:
            [N], dtype of the target.

        Raises:
            ValueError: images or mask have a wrong shape, or the trunk does not fit `lins`.
        """
        if any(t.requires_grad for t in target):
            return self.distance(self.embed(images), target, mask)
        features = self.features(images)
        stages = []
        for k, (f, t) in enumerate(zip(features, target, strict=True)):
            if len(f) == 1 < len(t):
                f = f.expand(len(t), -1, -1, -1)
            weights = self._pixel_weights(mask, k, t)
            stages.append(lpips_diff(f, t, self._lin(k).to(t.dtype), weights))
        return torch.stack(stages).sum(dim=0)

    def distance(
        self, embedded: Sequence[Tensor], target: Sequence[Tensor], mask: Tensor | None = None
    ) -> Tensor:
        """Distance of two results of `embed`, in plain torch.

        Args:
            embedded: list of [N, C_k, H_k, W_k].
            target: the same; N may be 1 in either.
            mask: [N or 1, 1, H, W] >= 0, float, of any size: the mean over pixels becomes the
                mean weighted by the mask's local average. All zeros give distance 0.

        Returns:
            [N], dtype of the features.

        Raises:
            ValueError: the mask has a wrong shape.
        """
        stages = []
        for k, (a, b) in enumerate(zip(embedded, target, strict=True)):
            squares = (a - b).square().flatten(2)  # [N, C, P]
            per_pixel = self._lin(k).to(a.dtype) @ squares  # [N, P]
            weights = self._pixel_weights(mask, k, a)
            if weights is None:
                stages.append(per_pixel.mean(dim=1))
            else:
                stages.append((per_pixel * weights.flatten(1)).sum(dim=1))
        return torch.stack(stages).sum(dim=0)

    def forward(self, images: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        """Distance of images to target images, both as in `features`; [N]."""
        return self.compare(images, self.embed(target), mask)

    def _lin(self, k: int) -> Tensor:
        return self.get_buffer(f"lin{k}")

    def _pixel_weights(self, mask: Tensor | None, k: int, like: Tensor) -> Tensor | None:
        """What each pixel of stage k counts, [N or 1, H_k, W_k], in all 1 or 0; None: the mean."""
        if mask is None:
            return None
        if mask.ndim != 4 or mask.shape[1] != 1:
            raise ValueError(f"mask: expected shape [N, 1, H, W], got {list(mask.shape)}")
        regions = getattr(self.trunk, "regions", (None,) * self.num_stages)
        there = _part(mask.to(like.dtype), regions[k])
        weights = F.adaptive_avg_pool2d(there, (like.shape[2], like.shape[3]))[:, 0]
        total = weights.sum(dim=(1, 2), keepdim=True)
        return weights / torch.where(total > 0, total, torch.ones_like(total))


def lpips_vgg16(trunk_state: Mapping[str, Tensor], lin_state: Mapping[str, Tensor]) -> LPIPS:
    """Build LPIPS with the VGG-16 trunk from two state dicts.

    Args:
        trunk_state: torchvision's VGG-16; `features.*` are used, `classifier.*` are ignored.
        lin_state: `lin{k}.model.1.weight` [1, C, 1, 1], k = 0 to 4: the lpips package's
            weights/v0.1/vgg.pth.

    Returns:
        The frozen metric, float32.

    Raises:
        ValueError: a tensor is missing, unexpected or of a wrong shape.
    """
    trunk = VGG16Features()
    used = {k: v for k, v in trunk_state.items() if not k.startswith("classifier.")}
    load_strict(trunk, used)
    names = [f"lin{k}.model.1.weight" for k in range(len(trunk.channels))]
    if sorted(lin_state) != names:
        raise ValueError(f"lin_state: expected the tensors {names}, got {sorted(lin_state)}")
    lins = []
    for name, channels in zip(names, trunk.channels, strict=True):
        weight = lin_state[name]
        if tuple(weight.shape) != (1, channels, 1, 1):
            raise ValueError(
                f"lin_state: {name}: expected shape [1, {channels}, 1, 1], got {list(weight.shape)}"
            )
        lins.append(weight.detach().float().reshape(channels))
    return LPIPS(trunk, lins, _VGG_SHIFT, _VGG_SCALE)


def _part(mask: Tensor, region: tuple[float, float, float, float] | None) -> Tensor:
    """The part of a mask [N, 1, H, W] in a region, to whole pixels."""
    if region is None:
        return mask
    left, top, right, bottom = region
    height, width = mask.shape[2:]
    rows = slice(max(0, round(top * height)), max(1, round(bottom * height)))
    columns = slice(max(0, round(left * width)), max(1, round(right * width)))
    return mask[:, :, rows, columns]
