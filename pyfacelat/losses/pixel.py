"""Pixel terms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def thumbnail(images: Tensor, size: int = 16) -> Tensor:
    """Shrink images [N,3,H,W] to `size` pixels by area: light, colour and framing, no detail."""
    return F.interpolate(images, size=(size, size), mode="area")


def pixel_distance(images: Tensor, target: Tensor) -> Tensor:
    """Mean squared difference of images [N,C,H,W] in [-1, 1]. Returns [N]."""
    return (images - target).square().mean((1, 2, 3))
