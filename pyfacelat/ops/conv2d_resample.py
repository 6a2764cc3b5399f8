"""Convolution with optional up- or downsampling, as one linear map with StyleGAN2's paddings.

The map, whichever way it is computed: pad x, (up > 1) stuff zeros and filter with f times up**2,
convolve with w without further padding, (down > 1) filter with f and keep every down-th pixel.
Padding happens once, at the start, and is what keeps the output at H * up / down for the usual
odd kernels: `padding` on each side in pixels of the upsampled image, plus what f consumes:

    up > 1:    (taps + up - 1) // 2 before, (taps - up) // 2 after
    down > 1:  (taps - down + 1) // 2 before, (taps - down) // 2 after

Filter and convolution commute, and zero-stuffing followed by a convolution is a transposed
convolution; the branches below only choose the cheapest order.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from pyfacelat.ops._library import check_float, quads
from pyfacelat.ops.upfirdn2d import output_size, upfirdn2d

__all__ = [
    "Conv",
    "Fir",
    "conv2d_resample",
    "filter_taps",
    "resample_padding",
    "resample_steps",
    "resampled_size",
]


def resample_padding(
    up: int, down: int, padding: list[int], taps: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Total padding (left, right, top, bottom) of the map; `taps` is (fh, fw) of the filter."""
    before = {0: 0, 1: 0}
    after = {0: 0, 1: 0}
    for axis, t in enumerate(taps):
        if up > 1:
            before[axis] += (t + up - 1) // 2
            after[axis] += (t - up) // 2
        if down > 1:
            before[axis] += (t - down + 1) // 2
            after[axis] += (t - down) // 2
    left, right, top, bottom = padding
    return left + before[1], right + after[1], top + before[0], bottom + after[0]


def resampled_size(
    size: tuple[int, int],
    kernel: tuple[int, int],
    taps: tuple[int, int],
    up: int,
    down: int,
    padding: list[int],
) -> tuple[int, int]:
    """(H', W') of `conv2d_resample`; all pairs are (vertical, horizontal)."""
    left, right, top, bottom = resample_padding(up, down, padding, taps)
    out = []
    pads = ((top, bottom), (left, right))
    for n, k, t, (p0, p1) in zip(size, kernel, taps, pads, strict=True):
        # One filter when either resampling is on, two when both are.
        length = k + ((up > 1) + (down > 1)) * (t - 1)
        out.append(output_size(n, up, down, p0, p1, length))
    return out[0], out[1]


def filter_taps(f: Tensor | None) -> tuple[int, int]:
    """(fh, fw) of a filter; (1, 1) for None."""
    return (1, 1) if f is None else (f.shape[0], f.shape[-1])


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    *,
    up: int = 1,
    down: int = 1,
    padding: int | tuple[int, int, int, int] = 0,
    flip_weight: bool = True,
) -> Tensor:
    """Convolve, with resampling before (up) or after (down).

    Args:
        x: [N, I, H, W], any float dtype.
        w: [O, I, kh, kw], dtype of x.
        f: resampling filter for `upfirdn2d`, used when up or down exceeds 1; None is [1].
        up: upsampling factor, whole, >= 1.
        down: downsampling factor, whole, >= 1.
        padding: int or (left, right, top, bottom), in pixels of the upsampled image, >= 0.
        flip_weight: True correlates (as torch's conv2d does), False convolves.

    Returns:
        [N, O, H', W'] as given by `resampled_size`; H * up // down for padding k // 2.

    Raises:
        ValueError: a wrong rank, dtype, channel count, factor or padding, or an empty output.
    """
    check_float("x", x)
    check_float("w", w)
    if w.shape[1] != x.shape[1]:
        raise ValueError(f"w: expected {x.shape[1]} input channels (those of x), got {w.shape[1]}")
    if w.dtype != x.dtype:
        raise ValueError(f"w: expected the dtype of x ({x.dtype}), got {w.dtype}")
    if up < 1 or down < 1:
        raise ValueError(f"up, down: expected whole numbers >= 1, got {up} and {down}")
    pads = quads("padding", padding)
    if min(pads) < 0:
        raise ValueError(f"padding: expected values >= 0, got {pads}")
    if f is not None:
        check_float("f", f, (1, 2))
    kernel, taps = (w.shape[2], w.shape[3]), filter_taps(f)
    sizes = resampled_size((x.shape[2], x.shape[3]), kernel, taps, up, down, pads)
    if min(sizes) < 1:
        raise ValueError(f"w: its extent exceeds the padded image; the output would be {sizes}")
    for step in resample_steps(kernel, taps, up, down, pads, flip_weight):
        if isinstance(step, Fir):
            g = f if step.filtered else None
            x = upfirdn2d(x, g, up=step.up, down=step.down, pad=step.pad, gain=step.gain)
        else:
            x = step.apply(x, w)
    return x


@dataclass(frozen=True)
class Fir:
    """One `upfirdn2d`; `pad` is (left, right, top, bottom)."""

    up: int
    down: int
    pad: tuple[int, int, int, int]
    gain: float
    filtered: bool = True  # False pads only


@dataclass(frozen=True)
class Conv:
    """One (transposed) convolution with w; `flip` reverses its taps first."""

    stride: int
    pad: tuple[int, int]  # vertical, horizontal
    transposed: bool
    flip: bool

    def kernel(self, w: Tensor) -> Tensor:
        """Kernel [O, I, kh, kw] as torch wants it for this step."""
        w = w.flip([2, 3]) if self.flip else w
        return w.transpose(0, 1) if self.transposed else w

    def apply(self, x: Tensor, w: Tensor) -> Tensor:
        """[N, I, H, W] -> [N, O, H', W'], plain torch, differentiable."""
        if self.transposed:
            return F.conv_transpose2d(x, self.kernel(w), stride=self.stride, padding=self.pad)
        return F.conv2d(x, self.kernel(w), stride=self.stride, padding=self.pad)


def resample_steps(
    kernel: tuple[int, int],
    taps: tuple[int, int],
    up: int,
    down: int,
    padding: list[int],
    flip_weight: bool,
) -> list[Fir | Conv]:
    """The map as a chain of linear steps, in the cheapest order."""
    kh, kw = kernel
    left, right, top, bottom = pad = resample_padding(up, down, padding, taps)
    conv = Conv(stride=1, pad=(0, 0), transposed=False, flip=not flip_weight)

    if up == 1 and down == 1:
        if left == right and top == bottom:
            return [replace(conv, pad=(top, left))]
        return [Fir(1, 1, pad, 1.0, filtered=False), conv]

    if up == 1:
        if kernel == (1, 1):  # decimate first: fewer pixels to convolve
            return [Fir(1, down, pad, 1.0), conv]
        return [Fir(1, 1, pad, 1.0), replace(conv, stride=down)]

    if kernel == (1, 1):
        steps: list[Fir | Conv] = [conv, Fir(up, 1, pad, float(up**2))]
    else:
        # A transposed convolution scatters x[i] * w[k] to i * up + k, so it holds the zero-stuffed
        # image padded by k - 1 before and k - up after; the filter's padding does the rest.
        pad = (left - (kw - 1), right - (kw - up), top - (kh - 1), bottom - (kh - up))
        spread = Conv(stride=up, pad=(0, 0), transposed=True, flip=flip_weight)
        steps = [spread, Fir(1, 1, pad, float(up**2))]
    if down > 1:
        steps.append(Fir(1, down, (0, 0, 0, 0), 1.0))
    return steps
