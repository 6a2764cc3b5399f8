"""Pixel terms."""

from __future__ import annotations

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

PixelKind = Literal["mse", "l1", "log_cosh"]


def thumbnail(images: Tensor, size: int = 16) -> Tensor:
    """Shrink images [N,3,H,W] to `size` pixels by area: light, colour and framing, no detail."""
    return F.interpolate(images, size=(size, size), mode="area")


def pixel_distance(images: Tensor, target: Tensor, kind: PixelKind = "mse") -> Tensor:
    """Mean over pixels and channels of a function of d = images - target, in [-1, 1]. Returns [N].

    "mse" d^2; "l1" |d|; "log_cosh" log(cosh(d)), between the two: d^2 / 2 near zero and |d| - log 2
    far from it, computed as |d| + softplus(-2 |d|) - log 2, which does not overflow.
    """
    difference = images - target
    match kind:
        case "mse":
            each = difference.square()
        case "l1":
            each = difference.abs()
        case _:
            size = difference.abs()
            each = size + F.softplus(-2 * size) - math.log(2)
    return each.mean((1, 2, 3))
