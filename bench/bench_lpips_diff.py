"""lpips_diff at the five stages of VGG-16 at 256 px, forward and backward.

Rivals: the lpips package's formulation (normalise, subtract, square, 1x1 convolution, mean), and
its best short improvement: the same on channels_last features with a matrix product for the
convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import lpips_diff, lpips_unit

STAGES = [(64, 256), (128, 128), (256, 64), (512, 32), (512, 16)]


def unit(x: Tensor) -> Tensor:
    return x / (torch.sqrt(torch.sum(x**2, dim=1, keepdim=True)) + 1e-10)


def plain(x: Tensor, target: Tensor, lin: Tensor) -> Tensor:
    squares = (unit(x) - target) ** 2
    return F.conv2d(squares, lin[None, :, None, None]).mean([2, 3])[:, 0]


def product(x: Tensor, target: Tensor, lin: Tensor) -> Tensor:
    apart = F.normalize(x, dim=1, eps=1e-10).sub(target)
    return torch.einsum("nchw,c->n", apart.square_(), lin) / (x.shape[2] * x.shape[3])


def sides(
    channels: int, size: int, device: str, dtype: torch.dtype
) -> dict[str, Callable[[], tuple[Tensor, ...]]]:
    """Value and gradient by each formulation; the first is ours."""
    like = {"device": device, "dtype": dtype}
    nhwc = {"memory_format": torch.channels_last}
    x, y = (torch.randn(1, channels, size, size, **like).relu() for _ in range(2))
    # The published formulation has NaN gradients where all channels are zero.
    x, y, lin = x + 0.01, y + 0.01, torch.rand(channels, device=device)

    def side(op: Callable[..., Tensor], x: Tensor, target: Tensor, lin: Tensor) -> Callable:
        def run() -> tuple[Tensor, ...]:
            leaf = x.detach().requires_grad_()
            value = op(leaf, target, lin)
            return (value.detach(), *torch.autograd.grad(value.sum(), leaf))

        return run

    xl, yl = x.contiguous(**nhwc), y.contiguous(**nhwc)
    return {
        "": side(lpips_diff, xl, lpips_unit(yl), lin),
        "plain": side(plain, x, unit(y), lin.to(dtype)),
        "product": side(product, xl, unit(yl), lin.to(dtype)),
    }


@pytest.mark.parametrize(("channels", "size"), STAGES)
def test_speed(compare: Callable, channels: int, size: int) -> None:
    rivals = sides(channels, size, "cpu", torch.float32)
    ours = rivals.pop("")
    compare(ours, rivals, check=assert_same, gigabytes=4e-9 * channels * size * size * 3)
