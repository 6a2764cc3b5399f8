"""bias_act at StyleGAN2's shapes, forward and backward.

Rivals: the published fall-back formulation (add, activation, multiply, clamp, one op each), and its
best short improvement, the same with in-place ops after the first.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import bias_act

GAIN = 2**0.5
SHAPES = [(512, 32), (256, 64), (128, 128), (64, 256), (32, 512), (32, 1024)]


def plain(x: Tensor, b: Tensor, act: str) -> Tensor:
    y = x + b.reshape(1, -1, 1, 1)
    y = F.leaky_relu(y, 0.2) if act == "lrelu" else y * y.sigmoid()
    return (y * GAIN).clamp(-256, 256)


def in_place(x: Tensor, b: Tensor, act: str) -> Tensor:
    y = x + b.reshape(1, -1, 1, 1)
    if act == "lrelu":  # autograd keeps the activation's result: no in-place product after it
        return (F.leaky_relu_(y, 0.2) * GAIN).clamp_(-256, 256)
    return F.silu(y).mul_(GAIN).clamp_(-256, 256)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize(("channels", "size"), SHAPES)
def test_speed(compare: Callable, channels: int, size: int, act: str, backward: bool) -> None:
    x = torch.randn(1, channels, size, size).contiguous(memory_format=torch.channels_last)
    b = torch.randn(channels)
    dy = torch.randn_like(x)

    def side(op: Callable[..., Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def run() -> tuple[Tensor, ...]:
            leaf, bias = x.detach().requires_grad_(backward), b.detach().requires_grad_(backward)
            out = op(leaf, bias, act)
            if not backward:
                return (out,)
            return (out.detach(), *torch.autograd.grad(out, (leaf, bias), dy))

        return run

    compare(
        side(lambda x, b, act: bias_act(x, b, act=act, clamp=256.0)),
        {"plain": side(plain), "in place": side(in_place)},
        check=assert_same,
        gigabytes=4e-9 * x.numel() * (5 if backward else 2),
    )
