"""3x3 convolution with frozen weights at the sizes of VGG16, FAN-4 and StyleGAN2.

Rivals: torch's convolution (oneDNN) on NCHW maps, as published code runs it, and on NHWC maps with
the weight in that layout too, its best one-line improvement. GFLOP/s count a direct convolution.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import conv3x3, pack_conv3x3

# (in, out, side)
VGG16 = [(64, 64, 256), (128, 128, 128), (256, 256, 64), (512, 512, 32), (512, 512, 16)]
FAN4 = [(128, 64, 64), (64, 64, 64), (256, 128, 32), (64, 64, 32), (256, 128, 16), (64, 64, 16),
        (256, 128, 8), (64, 64, 8), (256, 128, 4)]  # fmt: skip
STYLEGAN2 = [(512, 512, 8), (512, 512, 64), (256, 256, 128), (128, 128, 256), (64, 64, 512),
             (32, 32, 1024)]  # fmt: skip


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize(("i", "o", "side"), [*VGG16, *FAN4, *STYLEGAN2])
def test_speed(compare: Callable, i: int, o: int, side: int, backward: bool) -> None:
    nchw, nhwc = torch.contiguous_format, torch.channels_last
    x = torch.randn(1, i, side, side).relu()
    w = torch.randn(o, i, 3, 3) * (2 / (9 * i)) ** 0.5
    b = torch.randn(o)
    dy = torch.randn(1, o, side, side)
    kernel = pack_conv3x3(w)
    y = F.conv2d(x, w, b, padding=1).relu()
    fast_y = y.contiguous(memory_format=nhwc)
    fast_x, fast_dy = (t.contiguous(memory_format=nhwc) for t in (x, dy))

    def ours() -> Tensor:
        if not backward:
            return conv3x3(fast_x, kernel, bias=b, act="relu")
        args = (fast_dy, fast_y, w, kernel.packed_back, "relu", 0.0, 1.0)
        return torch.ops.pyfacelat.conv3x3_backward(*args)

    def rival(layout: torch.memory_format) -> Callable[[], Tensor]:
        x_, w_, y_, dy_ = (t.contiguous(memory_format=layout) for t in (x, w, y, dy))
        tail = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, False, False])

        def run() -> Tensor:
            if not backward:
                return F.conv2d(x_, w_, b, padding=1).relu_()
            dz = torch.ops.aten.threshold_backward(dy_, y_, 0)
            return torch.ops.aten.convolution_backward(dz, x_, w_, None, *tail)[0]

        return run

    compare(
        ours,
        {"NCHW": rival(nchw), "NHWC": rival(nhwc)},
        check=assert_same,
        gigaflops=18e-9 * i * o * side * side,
    )
