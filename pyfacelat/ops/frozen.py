"""Operators of frozen networks without autograd: a forward and its gradients, as two plain calls.

For code that writes its derivative out, and calls under `torch.inference_mode`: going through
autograd costs more than the arithmetic of a small layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat import _extension
from pyfacelat.ops.bias_act import DEFAULT_ALPHA
from pyfacelat.ops.conv3x3 import Conv3x3Weight, conv3x3, pack_conv3x3
from pyfacelat.ops.conv3x3 import backward_reference as conv3x3_backward_reference
from pyfacelat.ops.modulated_conv2d import backward_reference, reference
from pyfacelat.ops.upfirdn2d import reference as upfirdn2d_reference
from pyfacelat.ops.upfirdn2d import transposed_pad

__all__ = [
    "FrozenConv",
    "StyledConv",
    "channel_relu",
    "channel_relu_gradient",
    "frozen_conv",
    "fuses",
    "upsample_image",
    "upsample_image_gradient",
]

_X, _STYLES, _DEMOD, _NOISE = 1, 4, 8, 16  # bits of the op's `needs`


@dataclass(frozen=True)
class StyledConv:
    """`modulated_conv2d` with frozen weight and bias.

    Attributes:
        weight: [O,I,kh,kw]; bias: [O]; filter: FIR taps, where `up` is 2.
        up, padding, act, gain, clamp: as in `modulated_conv2d`; act is linear, relu or lrelu.
        packed: the weight from `pack_conv3x3`, for a 3x3 layer with padding 1 and no `up`.

    """

    weight: Tensor
    bias: Tensor
    filter: Tensor | None
    up: int
    padding: int
    act: str
    gain: float
    clamp: float | None
    packed: Conv3x3Weight | None = None

    def _inputs(
        self, x: Tensor, styles: Tensor, demod: Tensor | None, noise: Tensor | None
    ) -> tuple[object, ...]:
        flip_weight = self.up == 1
        limit = -1.0 if self.clamp is None else self.clamp
        linear_map = (x, self.weight, styles, demod, noise, self.bias, self.filter)
        resample = (self.up, 1, self.padding, flip_weight)
        return *linear_map, *resample, self.act, DEFAULT_ALPHA, self.gain, limit

    def __call__(
        self, x: Tensor, styles: Tensor, demod: Tensor | None, noise: Tensor | None
    ) -> Tensor:
        """Layer output, channels_last.

        Args:
            x: [N,I,H,W].
            styles: [N,I].
            demod: [N,O], or None for no demodulation.
            noise: [N or 1,1,H*up,W*up], strength applied, or None.
        """
        return _extension.call(
            "modulated_conv2d",
            reference,
            *self._inputs(x, styles, demod, noise),  # type: ignore[arg-type]
            self.packed and self.packed.packed,
        )

    def gradients(
        self,
        dy: Tensor,
        y: Tensor,
        x: Tensor,
        styles: Tensor,
        demod: Tensor | None,
        noise: Tensor | None,
        *,
        need_x: bool = True,
        need_noise: bool = True,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of x, styles, demod and noise; [0] where not needed or not there.

        `dy` is that of the output `y`, which the inputs after it gave.
        """
        needs = _STYLES | need_x * _X | (demod is not None) * _DEMOD
        needs |= (need_noise and noise is not None) * _NOISE
        found: tuple[Tensor, ...] = _extension.call(
            "modulated_conv2d_backward",
            backward_reference,
            dy,
            y,
            *self._inputs(x, styles, demod, noise),
            needs,
            self.packed and self.packed.packed_back,
        )
        return found[0], found[2], found[3], found[4]


def upsample_image(image: Tensor, f: Tensor) -> Tensor:
    """`upsample2d` by 2: [N,C,H,W] -> [N,C,2H,2W]."""
    return _extension.call(
        "upfirdn2d", upfirdn2d_reference, image, f, 2, 1, _image_pad(f), False, 4.0
    )


def upsample_image_gradient(dy: Tensor, f: Tensor) -> Tensor:
    """Gradient of `upsample_image`'s input: [N,C,2H,2W] -> [N,C,H,W]."""
    size = (*dy.shape[:2], dy.shape[2] // 2, dy.shape[3] // 2)
    pad = transposed_pad(size, dy.shape, f, 2, 1, _image_pad(f))
    return _extension.call("upfirdn2d", upfirdn2d_reference, dy, f, 1, 2, pad, True, 4.0)


def _image_pad(f: Tensor) -> list[int]:
    rows, columns = f.shape[0], f.shape[-1]
    return [(columns + 1) // 2, (columns - 2) // 2, (rows + 1) // 2, (rows - 2) // 2]


@dataclass(frozen=True)
class FrozenConv:
    """A convolution with frozen weights, its bias and perhaps a ReLU; `frozen_conv` makes one.

    Attributes:
        weight: [O,I,kh,kw]; bias: [O] or None.
        stride, padding: of both axes.
        relu: whether a ReLU follows.
        packed: the weight as `conv3x3` reads it, where that computes it.
        before: scale and shift [I] of a `channel_relu` in front, where `conv3x3` computes that too.

    """

    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int
    relu: bool
    packed: Conv3x3Weight | None
    before: tuple[Tensor, Tensor] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """[N,I,H,W] -> [N,O,H',W']."""
        if self.packed is None:
            y = F.conv2d(x, self.weight, self.bias, stride=self.stride, padding=self.padding)
            return y.relu_() if self.relu else y
        act = "relu" if self.relu else "linear"
        scale, shift = self.before or (None, None)
        return conv3x3(x, self.packed, bias=self.bias, act=act, in_scale=scale, in_shift=shift)

    def gradient(self, dy: Tensor, y: Tensor, x: Tensor) -> Tensor:
        """Gradient of `x` from that of the output `y`.

        Of `x` only the size is read, unless there is something `before`; of `y` only signs.
        """
        if self.packed is not None:
            act, w = "relu" if self.relu else "linear", self.packed
            return _extension.call(
                "conv3x3_backward",
                conv3x3_backward_reference,
                dy,
                y,
                w.weight,
                w.packed_back,
                act,
                DEFAULT_ALPHA,
                1.0,
                *(() if self.before is None else (x, *self.before)),
            )
        if self.relu:
            dy = torch.ops.aten.threshold_backward(dy, y, 0)
        both, pads = [self.stride] * 2, [self.padding] * 2
        found = torch.ops.aten.convolution_backward(
            dy, x, self.weight, None, both, pads, [1, 1], False, [0, 0], 1, [True, False, False]
        )
        gradient: Tensor = found[0]
        return gradient


def frozen_conv(
    conv: nn.Conv2d, *, relu: bool = False, before: tuple[Tensor, Tensor] | None = None
) -> FrozenConv:
    """What a `Conv2d` of one group computes, followed by a ReLU or not; shares its weights.

    `before` is the scale and shift, [I] each, of a `channel_relu` to compute first, if `fuses`.
    """
    weight = conv.weight.detach().contiguous(memory_format=torch.channels_last)
    bias = None if conv.bias is None else conv.bias.detach()
    stride, padding = conv.stride[0], int(conv.padding[0])
    packed = pack_conv3x3(weight) if fuses(conv) else None
    return FrozenConv(weight, bias, stride, padding, relu, packed, before)


def fuses(conv: nn.Conv2d) -> bool:
    """Whether `conv3x3` computes this convolution: faster, and with a `channel_relu` in front."""
    direct = tuple(conv.weight.shape[2:]) == (3, 3) and conv.stride[0] == conv.padding[0] == 1
    # Elsewhere torch's convolution runs either way.
    return direct and conv.weight.dtype == torch.float32 and conv.weight.device.type == "cpu"


def channel_relu(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Relu(scale * x + shift): x [N,C,H,W], scale and shift [C,1,1]."""
    return torch.addcmul(shift, x, scale).relu_()


def channel_relu_gradient(dy: Tensor, y: Tensor, scale: Tensor) -> Tensor:
    """Gradient of `channel_relu`'s x from that of its output y."""
    gradient: Tensor = torch.ops.aten.threshold_backward(dy, y, 0)
    return gradient.mul_(scale)
