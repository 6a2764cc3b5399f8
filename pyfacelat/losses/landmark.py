"""The landmark term: distance between stacks of heat maps, one weight per landmark.

The published text, formula and code disagree: the prose says l2 norm, the formula is a weighted l1
sum, the code one norm over everything, sqrt(sum((w (a - b))^2)), so that weights act squared. All
are here, plus one norm per landmark, whose gradient does not fade as the other landmarks arrive.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.faces.groups import NUM_LANDMARKS
from pyfacelat.faces.landmarks import heatmaps_to_points
from pyfacelat.ops import Reduction, heatmap_loss

__all__ = ["HeatmapDistance", "Landmarker", "Normalize", "Reduction", "Resize"]

Resize = Literal["area", "nearest"]
Normalize = Literal["unit", "minmax"]


class HeatmapDistance(nn.Module):
    """Weighted distance between two stacks of landmark heat maps.

    Args:
        weights: one weight per landmark, [68], float32, >= 0.
        reduction: with d = a - b and w per landmark,
            "l2" sqrt(sum((w d)^2)) over everything (the published code; zero gradient at zero),
            "l1" sum(w |d|) (the published formula),
            "mse" mean(w d^2),
            "per_landmark" sum_k(w_k sqrt(sum(d_k^2) + 1e-8)) / sum(w).
        sigma: of the Gaussians that stand for target points, in cells.
    """

    def __init__(self, weights: Tensor, reduction: Reduction = "l2", *, sigma: float = 1.0) -> None:
        super().__init__()
        if weights.shape != (NUM_LANDMARKS,):
            raise ValueError(
                f"weights: expected shape [68], got {list(weights.shape)}; "
                "expand groups with faces.groups.expand()"
            )
        if reduction not in get_args(Reduction):
            raise ValueError(f"reduction: expected one of {get_args(Reduction)}, got {reduction!r}")
        self.reduction: Reduction = reduction
        self.sigma = sigma
        self.weights: Tensor
        self.register_buffer("weights", weights.clone())

    def forward(self, maps: Tensor, target: Tensor, confidence: Tensor | None = None) -> Tensor:
        """Compare maps [N,68,H,W] with target maps [N or 1,68,H,W] or points [N or 1,68,2].

        Returns [N], float32 for 16-bit maps, else their dtype; differentiable once. `confidence`
        [N,68] multiplies the weights of each image.
        """
        weights = self.weights[None]
        if confidence is not None:
            weights = weights * confidence.to(weights.dtype)
        return heatmap_loss(maps, target, weights, reduction=self.reduction, sigma=self.sigma)


class Landmarker(nn.Module):
    """A landmark network with its input conventions: images in [-1, 1] to heat maps and points.

    Args:
        net: [N,3,S,S] in [0, 1] to heat maps [N,68,H,W], or to a list of them, the last of which
            counts (face_alignment's FAN returns one per stack). Frozen and put in eval mode here.
        size: S. Default: `net.config.input_size`, else 256 (FAN's).
        resize: "area" averages when shrinking and interpolates when enlarging; "nearest" is the
            published code, whose gradient reaches one pixel in many.
        normalize: "unit" maps [-1, 1] to [0, 1]; "minmax" stretches each image to its own extremes
            (the published code: of the whole batch; one bright pixel moves all).
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        size: int | None = None,
        resize: Resize = "area",
        normalize: Normalize = "unit",
    ) -> None:
        super().__init__()
        config = getattr(net, "config", None)
        self.net = net.eval().requires_grad_(False)
        self.size = size or int(getattr(config, "input_size", 256))
        self.sigma = float(getattr(config, "sigma", 1.0))
        self.resize = resize
        self.normalize = normalize

    def forward(self, images: Tensor) -> Tensor:
        """Heat maps [N,68,H,W] of images [N,3,R,R] in [-1, 1]."""
        maps = self.net(self.prepare(images))
        last: Tensor = maps[-1] if isinstance(maps, list | tuple) else maps
        return last

    @torch.no_grad()
    def points(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Relative points [N,68,2] and confidence [N,68] of images [N,3,R,R] in [-1, 1]."""
        return heatmaps_to_points(self(images))

    def prepare(self, images: Tensor) -> Tensor:
        """What the network sees, [N,3,S,S] in [0, 1], of images [N,3,R,R] in [-1, 1]."""
        side, size = images.shape[-1], self.size
        if side != size:
            if self.resize == "nearest":
                images = F.interpolate(images, size=(size, size), mode="nearest")
            elif side > size:
                images = F.interpolate(images, size=(size, size), mode="area")
            else:
                images = F.interpolate(
                    images, size=(size, size), mode="bilinear", align_corners=False
                )
        if self.normalize == "minmax":
            low, high = images.amin((1, 2, 3), keepdim=True), images.amax((1, 2, 3), keepdim=True)
            return (images - low) / (high - low).clamp_min(1e-6)
        return (images + 1) / 2
