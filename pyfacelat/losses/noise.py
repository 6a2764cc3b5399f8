"""Noise maps: the regulariser keeps them white, the renormalisation keeps them standard.

Both follow StyleGAN2 (Karras et al. 2020, appendix D, "Projection").
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

_SMALLEST = 8  # the pyramid's last level is the first one of at most this many pixels


def noise_regulariser(maps: Iterable[Tensor]) -> Tensor:
    """Squared autocorrelation of noise maps with their neighbours, over a pyramid of 2x2 means.

    Args:
        maps: noise maps, each [N,H,W], float.

    Returns:
        [N]: the sum over maps and levels of mean(n * roll_x(n))^2 + mean(n * roll_y(n))^2.
        Zero for white noise, 2 per level for constant ones.
    """
    total: Tensor | None = None
    for level in maps:
        while True:
            along_x = (level * level.roll(1, dims=2)).mean((1, 2)).square()
            along_y = (level * level.roll(1, dims=1)).mean((1, 2)).square()
            term = along_x + along_y
            total = term if total is None else total + term
            if level.shape[1] <= _SMALLEST:
                break
            level = F.avg_pool2d(level[:, None], 2)[:, 0]
    if total is None:
        raise ValueError("maps: expected at least one noise map, got none")
    return total


@torch.no_grad()
def renormalise_(maps: Iterable[Tensor]) -> None:
    """Give every map of every item mean 0 and RMS 1, in place. Maps are [N,H,W]."""
    for noise in maps:
        noise.sub_(noise.mean((1, 2), keepdim=True))
        noise.mul_(noise.square().mean((1, 2), keepdim=True).rsqrt())
