"""Colours without places: what a look term may ask for while the landmarks move."""

from __future__ import annotations

import torch
from torch import Tensor

from pyfacelat.losses.pixel import thumbnail

_SIZE = 32  # pixels a side; finer detail is texture, which the landmarks do move


def colour_slices(images: Tensor) -> Tensor:
    """Project every pixel's colour on 13 directions and sort each projection.

    The directions are those from a cube's centre to its 3 faces, 6 edges and 4 corners, up to sign.

    Args:
        images: [N,3,H,W].

    Returns:
        [N,13,1024] ascending: for each direction the distribution of colours along it. The same
        for any rearrangement of the pixels.
    """
    pixels = thumbnail(images, _SIZE).flatten(2)  # [N,3,1024]
    return (_directions(images) @ pixels).sort(dim=-1).values


def colour_distance(slices: Tensor, target: Tensor) -> Tensor:
    """Sliced squared Wasserstein distance of two results of `colour_slices`. Returns [N].

    On a line, the optimal transport between two sets of equally many points matches them in order,
    so the distance is the mean squared difference of the sorted values (Bonneel et al. 2015,
    "Sliced and Radon Wasserstein barycenters of measures"), here averaged over the directions.
    """
    return (slices - target).square().mean((1, 2))


def _directions(like: Tensor) -> Tensor:
    grid = torch.cartesian_prod(*[torch.tensor([-1.0, 0.0, 1.0])] * 3)
    half = grid[14:]  # of 27, the middle one is zero and the first 13 are these with the other sign
    unit = half / half.norm(dim=1, keepdim=True)
    return unit.to(like.device, like.dtype)
