"""Who it is: one minus the cosine of two embeddings of a face recognition network.

1 - <e(x), e(y)>, e a network from aligned faces to unit vectors (Richardson et al. 2021, "Encoding
in style: a StyleGAN encoder for image-to-image translation", whose crop this is).
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.images import shrink_to

_FRAME = 256  # the side of the FFHQ crop in which CROP is given

CROP = (32, 35, 220, 223)
"""Left, top, right, bottom of the face in an FFHQ crop of 256 pixels: what recognition nets see."""


class IdentityDistance(nn.Module):
    """Identity term.

    Args:
        net: images [N,3,S,S] in [-1, 1] to embeddings [N,E]; normalised to unit length here.
            Frozen and in evaluation mode from here on.
        size: S. Default: `net.config.input_size`, else 112.
        crop: left, top, right, bottom in an FFHQ crop of 256 pixels; None feeds the whole of it.
    """

    def __init__(
        self,
        net: nn.Module,
        *,
        size: int | None = None,
        crop: tuple[int, int, int, int] | None = CROP,
    ) -> None:
        super().__init__()
        if crop is not None and not (
            0 <= crop[0] < crop[2] <= _FRAME and 0 <= crop[1] < crop[3] <= _FRAME
        ):
            raise ValueError(f"crop: expected a box inside {_FRAME} x {_FRAME}, got {crop}")
        self.net = net.eval().requires_grad_(False)
        self.size = size or int(getattr(getattr(net, "config", None), "input_size", 112))
        self.crop = crop

    def prepare(self, images: Tensor) -> Tensor:
        """What the network sees, [N,3,S,S], of FFHQ crops [N,3,R,R], both in [-1, 1]."""
        if self.crop is None:
            return _resize(images, self.size)
        left, top, right, bottom = self.crop
        frame = _resize(images, _FRAME)[..., top:bottom, left:right]
        return F.adaptive_avg_pool2d(frame, self.size)

    def embed(self, images: Tensor) -> Tensor:
        """Unit vectors [N,E] of images [N,3,R,R] in [-1, 1]."""
        return F.normalize(self.net(self.prepare(images)).flatten(1), dim=1)

    def distance(self, embedded: Tensor, target: Tensor) -> Tensor:
        """Distance of two results of `embed`, 0 to 2. Returns [N]."""
        return 1 - (embedded * target).sum(1)

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        """Distance of images to target images, both as in `embed`. Returns [N]."""
        return self.distance(self.embed(images), self.embed(target))


def _resize(images: Tensor, size: int) -> Tensor:
    smaller = shrink_to(images, size)
    if smaller.shape[-1] == size:
        return smaller
    return F.interpolate(smaller, size=(size, size), mode="bilinear", align_corners=False)
