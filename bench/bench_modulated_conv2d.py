"""One styled layer of StyleGAN2, with gradients to input, style and noise as in projection.

Rivals: the published default (weights scaled for each image, grouped convolution, then the plain
upfirdn2d and bias_act chains), and its best one-line improvement, activations scaled instead of
weights with weights frozen (fused_modconv=False).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat.ops import modulated_conv2d, setup_filter, weight_energy
from pyfacelat.ops.upfirdn2d import reference as plain_upfirdn2d

FIR = setup_filter([1, 3, 3, 1])
GAIN = 2**0.5


def finish(z: Tensor, noise: Tensor, b: Tensor) -> Tensor:
    return F.leaky_relu(z + noise + b.reshape(1, -1, 1, 1), 0.2) * GAIN


def resampled(x: Tensor, w: Tensor, up: int) -> Tensor:
    if up == 1:
        return F.conv2d(x, w, padding=1)
    z = F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
    return plain_upfirdn2d(z, FIR, 1, 1, [1, 1, 1, 1], False, 4.0)


def fused(x: Tensor, w: Tensor, s: Tensor, noise: Tensor, b: Tensor, up: int) -> Tensor:
    each = w * s[:, :, None, None]  # a batch of one, as projection has
    each = each * (each.square().sum([1, 2, 3], keepdim=True) + 1e-8).rsqrt()
    return finish(resampled(x, each, up), noise, b)


def unfused(x: Tensor, w: Tensor, s: Tensor, noise: Tensor, b: Tensor, up: int) -> Tensor:
    d = ((w * s[:, :, None, None]).square().sum([1, 2, 3]) + 1e-8).rsqrt()
    z = resampled(x * s[:, :, None, None], w, up) * d[None, :, None, None]
    return finish(z, noise, b)


# (in, out, output size, up): the layers of the 256, 512 and 1024 pixel blocks, and smaller ones.
LAYERS = [
    (512, 512, 8, 1), (512, 512, 16, 2), (512, 512, 32, 1), (512, 256, 64, 2), (128, 128, 128, 1),
    (128, 64, 256, 2), (64, 64, 256, 1), (64, 32, 512, 2), (32, 32, 512, 1), (32, 32, 1024, 1),
]  # fmt: skip


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "both"])
@pytest.mark.parametrize(("i", "o", "size", "up"), LAYERS)
def test_speed(compare: Callable, i: int, o: int, size: int, up: int, backward: bool) -> None:
    x = torch.randn(1, i, size // up, size // up)
    w = torch.randn(o, i, 3, 3)
    s, noise, b = torch.randn(1, i) + 1, torch.randn(1, 1, size, size), torch.randn(o)
    energy = weight_energy(w)
    dy = torch.randn(1, o, size, size)

    def side(op: Callable[..., Tensor], nhwc: bool = False) -> Callable[[], tuple[Tensor, ...]]:
        layout = torch.channels_last if nhwc else torch.contiguous_format
        map_in, grad = (t.contiguous(memory_format=layout) for t in (x, dy))

        def run() -> tuple[Tensor, ...]:
            leaves = [t.detach().requires_grad_(backward) for t in (map_in, s, noise)]
            out = op(leaves[0], w, leaves[1], leaves[2], b, up)
            if not backward:
                return (out,)
            return (out.detach(), *torch.autograd.grad(out, leaves, grad))

        return run

    def ours(x: Tensor, w: Tensor, s: Tensor, noise: Tensor, b: Tensor, up: int) -> Tensor:
        return modulated_conv2d(
            x, w, s, noise=noise, up=up, padding=1, resample_filter=FIR, flip_weight=up == 1,
            bias=b, act="lrelu", energy=energy,
        )  # fmt: skip

    compare(
        side(ours, nhwc=True),
        {"default": side(fused), "one-line": side(unfused)},
        check=assert_same,
        gigaflops=2e-9 * 9 * i * o * (size // up) ** 2 * (1 + backward),
    )
