"""Noise maps: the regulariser keeps them white, the renormalisation keeps them standard.

Both follow StyleGAN2 (Karras et al. 2020, appendix D, "Projection").
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from pyfacelat.ops import noise_reg


def noise_regulariser(maps: Iterable[Tensor]) -> Tensor:
    """Squared autocorrelation of noise maps with their neighbours, over a pyramid of 2x2 means.

    One op for all maps (ops/noise_reg.py, which has the formula); differentiable once.

    Args:
        maps: noise maps, each [N,H,W], float.

    Returns:
        [N]: the sum over maps and levels of mean(n * roll_x(n))^2 + mean(n * roll_y(n))^2.
        Zero for white noise, 2 per level for constant ones.

    Raises:
        ValueError: there is no map, or one of a wrong shape.
    """
    return noise_reg(list(maps))


@torch.no_grad()
def renormalise_(maps: Iterable[Tensor]) -> None:
    """Give every map of every item mean 0 and RMS 1, in place. Maps are [N,H,W]."""
    for noise in maps:
        noise.sub_(noise.mean((1, 2), keepdim=True))
        noise.mul_(noise.square().mean((1, 2), keepdim=True).rsqrt())
