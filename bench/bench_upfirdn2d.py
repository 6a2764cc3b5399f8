"""upfirdn2d at StyleGAN2's shapes, forward and backward.

Rivals: the published fall-back formulation (zero-stuff, pad, 4x4 depthwise convolution, slice), and
its best short improvement, the separable filter as two depthwise convolutions of 4 taps, which for
upsampling become transposed convolutions that skip the stuffed zeros.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import downsample2d, filter2d, setup_filter, upsample2d
from pyfacelat.ops.upfirdn2d import reference

FIR = setup_filter([1, 3, 3, 1])
TAPS = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8

OURS = {"filter": filter2d, "up": upsample2d, "down": downsample2d}
PLAIN = {
    "filter": lambda x: reference(x, FIR, 1, 1, [2, 1, 2, 1], False, 1.0),
    "up": lambda x: reference(x, FIR, 2, 1, [2, 1, 2, 1], False, 4.0),
    "down": lambda x: reference(x, FIR, 1, 2, [1, 1, 1, 1], False, 1.0),
}


def separable(kind: str, x: Tensor) -> Tensor:
    c = x.shape[1]
    column, row = (TAPS.reshape(s).expand(c, 1, *s) for s in ((4, 1), (1, 4)))
    if kind == "up":
        x = F.conv_transpose2d(x, 2 * column, stride=(2, 1), padding=(1, 0), groups=c)
        return F.conv_transpose2d(x, 2 * row, stride=(1, 2), padding=(0, 1), groups=c)
    if kind == "down":
        x = F.conv2d(x, column, stride=(2, 1), padding=(1, 0), groups=c)
        return F.conv2d(x, row, stride=(1, 2), padding=(0, 1), groups=c)
    x = F.pad(x, [2, 1, 2, 1])
    return F.conv2d(F.conv2d(x, column, groups=c), row, groups=c)


# The RGB skip at 256, 512 and 1024, and feature maps of up-layers and of the discriminator.
SHAPES = [
    ("up", 3, 128), ("up", 3, 512), ("filter", 512, 33), ("filter", 64, 257), ("filter", 32, 513),
    ("down", 64, 256), ("down", 32, 512),
]  # fmt: skip


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize(("kind", "channels", "size"), SHAPES)
def test_speed(
    compare: Callable, kind: str, channels: int, size: int, layout: str, backward: bool
) -> None:
    x = torch.randn(1, channels, size, size)
    if layout == "NHWC":
        x = x.contiguous(memory_format=torch.channels_last)
    y = OURS[kind](x, FIR)
    dy = torch.randn_like(y)

    def side(op: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        def run() -> tuple[Tensor, ...]:
            leaf = x.detach().requires_grad_(backward)
            out = op(leaf)
            return (out.detach(), *torch.autograd.grad(out, leaf, dy)) if backward else (out,)

        return run

    compare(
        side(lambda x: OURS[kind](x, FIR)),
        {"plain": side(PLAIN[kind]), "separable": side(lambda x: separable(kind, x))},
        check=assert_same,
        gigabytes=4e-9 * (x.numel() + y.numel()) * (1 + backward),
    )
