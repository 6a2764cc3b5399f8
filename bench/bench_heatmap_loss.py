"""heatmap_loss on 68 maps of 64 x 64, batch 1 and 8, forward and backward.

Rivals: the published formulation (difference, weights, square, sum, root, one op each), and its
best short improvement, `torch.linalg.vector_norm` of the weighted difference.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import heatmap_loss

BATCHES = [1, 8]


def plain(maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return torch.sqrt(torch.sum((weights[:, None, None] * (maps - target)) ** 2, dim=(1, 2, 3)))


def norm(maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return torch.linalg.vector_norm((maps - target) * weights[:, None, None], dim=(1, 2, 3))


def sides(
    count: int, device: str, dtype: torch.dtype
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Value and gradient by each formulation; the first is ours."""
    like = {"device": device, "dtype": dtype}
    maps, target = (torch.rand(count, 68, 64, 64, **like) for _ in range(2))
    weights = torch.rand(68, device=device)

    def side(op: Callable[..., Tensor], *rest: Tensor) -> Callable[[], tuple[Tensor, ...]]:
        def run() -> tuple[Tensor, ...]:
            leaf = maps.detach().requires_grad_()
            value = op(leaf, *rest)
            return (value.detach(), *torch.autograd.grad(value.sum(), leaf))

        return run

    return {
        "": side(heatmap_loss, target.float(), weights),
        "plain": side(plain, target, weights.to(dtype)),
        "norm": side(norm, target, weights.to(dtype)),
    }


@pytest.mark.parametrize("count", BATCHES)
def test_speed(compare: Callable, count: int) -> None:
    rivals = sides(count, "cpu", torch.float32)
    ours = rivals.pop("")
    compare(ours, rivals, check=assert_same, gigabytes=4e-9 * count * 68 * 64 * 64 * 5)
