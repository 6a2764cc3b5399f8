"""Run by test_ops.py in a process whose ops are the emulated CUDA kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pyfacelat.ops import bias_act, modulated_conv2d, setup_filter, upfirdn2d
from tests.simt.plugin import configure

SCHEDULES = [(order, order % 2 == 1) for order in range(6)]


def bias(dtype: torch.dtype, channels: int) -> tuple[torch.Tensor, ...]:
    x = image(2, channels, 9, 7, dtype).requires_grad_()
    y = bias_act(x, torch.ones(channels, dtype=dtype), act="swish", clamp=1.0)
    return y, *torch.autograd.grad(y.sum(), x)


def fir(dtype: torch.dtype, channels: int) -> tuple[torch.Tensor, ...]:
    results = []
    for up, down in ((1, 1), (2, 1), (1, 2), (3, 2)):
        x = image(1, channels, 11, 9, dtype).requires_grad_()
        y = upfirdn2d(x, setup_filter([1, 3, 3, 1]), up=up, down=down, pad=(2, 1, 2, 1))
        results += [y, *torch.autograd.grad(y.square().sum(), x)]
    return tuple(results)


def styled(dtype: torch.dtype, channels: int) -> tuple[torch.Tensor, ...]:
    results = []
    for up in (1, 2):
        x, noise = image(2, channels, 7, 5, dtype), image(1, 1, 7 * up, 5 * up, dtype)
        weight = image(8, channels, 3, 3, dtype)
        styles, bias = torch.ones(2, channels, dtype=dtype), torch.ones(8, dtype=dtype)
        inputs = [t.requires_grad_() for t in (x, styles, noise, bias)]
        y = modulated_conv2d(
            x, weight, styles, noise=noise, up=up, padding=1, bias=bias, act="lrelu",
            resample_filter=setup_filter([1, 3, 3, 1]),
        )  # fmt: skip
        results += [y, *torch.autograd.grad(y.square().sum(), inputs)]
    return tuple(results)


def image(n: int, c: int, h: int, w: int, dtype: torch.dtype) -> torch.Tensor:
    x = torch.randn(n, c, h, w, generator=torch.Generator().manual_seed(1))
    return x.to(dtype).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [3, 48])
@pytest.mark.parametrize("op", [bias, fir, styled])
def test_the_order_of_threads_changes_no_bit(
    op: Callable[..., tuple[torch.Tensor, ...]], channels: int, dtype: torch.dtype
) -> None:
    configure(*SCHEDULES[0])
    first = op(dtype, channels)
    for schedule in SCHEDULES[1:]:
        configure(*schedule)
        for a, b in zip(op(dtype, channels), first, strict=True):
            assert torch.equal(a, b), schedule
