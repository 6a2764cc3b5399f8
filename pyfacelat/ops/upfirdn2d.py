"""Pad, zero-stuff, filter and decimate: y = ((upsample(x) padded) * f)[::down] * gain.

The resampling primitive of StyleGAN2 (Karras et al., "Analyzing and Improving the Image Quality
of StyleGAN", 2020). With u the zero-stuffed, padded input and g = flip ? f : reversed f:

    u[i] = x[(i - pad0) / up]  where that is a valid whole index, else 0
    y[m] = gain * sum_k g[k] u[m * down + k]              (each axis alike)

The transpose of this map is the same map with up and down exchanged, the filter reversed and
other paddings, so the op is its own backward, to any order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import check_float, define, memory_format, quads

__all__ = [
    "downsample2d",
    "filter2d",
    "output_size",
    "setup_filter",
    "transposed_pad",
    "upfirdn2d",
    "upsample2d",
]


def output_size(n: int, up: int, down: int, pad0: int, pad1: int, taps: int) -> int:
    """Length of one axis after the op; zero or negative if nothing is left."""
    return (n * up + pad0 + pad1 - taps) // down + 1


def transposed_pad(
    x_size: Sequence[int], y_size: Sequence[int], f: Tensor, up: int, down: int, pad: Sequence[int]
) -> list[int]:
    """Padding of the transposed op, which takes y_size back to x_size ([N, C, H, W] both)."""
    left, _, top, _ = pad
    return [
        f.shape[-1] - 1 - left,
        (x_size[3] - 1) * up + 1 - y_size[3] * down + left,
        f.shape[0] - 1 - top,
        (x_size[2] - 1) * up + 1 - y_size[2] * down + top,
    ]


def reference(
    x: Tensor, f: Tensor, up: int, down: int, pad: list[int], flip: bool, gain: float
) -> Tensor:
    """Plain torch form, step by step, in the dtype of x."""
    n, c, h, w = x.shape
    left, right, top, bottom = pad
    # Zero-stuffing: every pixel is followed by up - 1 zeros, the last one too.
    u = x.reshape(n, c, h, 1, w, 1)
    u = F.pad(u, [0, up - 1, 0, 0, 0, up - 1]).reshape(n, c, h * up, w * up)
    u = F.pad(u, [max(p, 0) for p in pad])  # negative values crop, maybe into the padding
    u = u[:, :, max(-top, 0) : u.shape[2] - max(-bottom, 0)]
    u = u[:, :, :, max(-left, 0) : u.shape[3] - max(-right, 0)]
    wide = torch.promote_types(f.dtype, x.dtype)
    g = f if flip else f.flip(list(range(f.ndim)))
    first = (g.to(wide) * gain).to(x.dtype)
    kernels = [first] if g.ndim == 2 else [first[None, :], g.to(x.dtype)[:, None]]
    for k in kernels:
        weight = k.expand(c, 1, *k.shape) if c else k.new_empty(0, 1, *k.shape)
        u = _depthwise(u, weight)
    return u[:, :, ::down, ::down].contiguous(memory_format=memory_format(x))


def _depthwise(u: Tensor, weight: Tensor) -> Tensor:
    n, c, h, w = u.shape
    if n == 0 or c == 0:  # torch has no grouped convolution for zero channels
        return u[:, :, : h - weight.shape[2] + 1, : w - weight.shape[3] + 1]
    return F.conv2d(u, weight, groups=c)


def _fake(
    x: Tensor, f: Tensor, up: int, down: int, pad: list[int], flip: bool, gain: float
) -> Tensor:
    n, c, h, w = x.shape
    size = (
        n,
        c,
        output_size(h, up, down, pad[2], pad[3], f.shape[0]),
        output_size(w, up, down, pad[0], pad[1], f.shape[-1]),
    )
    return x.new_empty(size).contiguous(memory_format=memory_format(x))


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, f, ctx.up, ctx.down, ctx.pad, ctx.flip, ctx.gain = inputs
    ctx.save_for_backward(f)
    ctx.size = x.shape


def _backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
    (f,) = ctx.saved_tensors
    pad = transposed_pad(ctx.size, dy.shape, f, ctx.up, ctx.down, ctx.pad)
    dx = torch.ops.pyfacelat.upfirdn2d(dy, f, ctx.down, ctx.up, pad, not ctx.flip, ctx.gain)
    return dx, None, None, None, None, None, None


define(
    "upfirdn2d(Tensor x, Tensor f, int up, int down, int[] pad, bool flip, float gain) -> Tensor",
    reference,
    _fake,
    _backward,
    _save,
)


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    *,
    up: int = 1,
    down: int = 1,
    pad: int | Sequence[int] = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Upsample with zeros, pad, filter and decimate each channel.

    Args:
        x: [N, C, H, W], any float dtype; contiguous or channels_last, which the output keeps.
        f: filter [fh, fw], or [taps] for the separable filter outer(f, f); None is [1].
            Its gradient is not defined. Any float dtype; converted to that of x.
        up: zeros are stuffed to up times the size, a whole factor >= 1.
        down: every down-th pixel is kept, a whole factor >= 1.
        pad: int or (left, right, top, bottom), in pixels of the upsampled image; negative crops.
        flip: False convolves with f, True correlates.
        gain: factor on the result.

    Returns:
        [N, C, H', W'] with H' = (H * up + top + bottom - fh) // down + 1, alike for W'.

    Raises:
        ValueError: a wrong rank, dtype, device or factor, a filter that requires a gradient, or
            an output that would be empty.
    """
    check_float("x", x)
    if f is None:
        f = x.new_ones(1, 1, dtype=torch.float32)
    check_float("f", f, (1, 2))
    if f.numel() == 0:
        raise ValueError(f"f: expected at least one tap, got shape {list(f.shape)}")
    if f.device != x.device:
        raise ValueError(f"f: expected the device of x ({x.device}), got {f.device}")
    if f.requires_grad:
        raise ValueError("f: the gradient with respect to the filter is not defined; detach it")
    if up < 1 or down < 1:
        raise ValueError(f"up, down: expected whole numbers >= 1, got {up} and {down}")
    left, right, top, bottom = quads("pad", tuple(pad) if not isinstance(pad, int) else pad)
    oh = output_size(x.shape[2], up, down, top, bottom, f.shape[0])
    ow = output_size(x.shape[3], up, down, left, right, f.shape[-1])
    if oh < 1 or ow < 1:
        raise ValueError(
            f"pad: the padded image ({x.shape[2] * up + top + bottom} x "
            f"{x.shape[3] * up + left + right}) is smaller than f {list(f.shape)}"
        )
    pads = [left, right, top, bottom]
    y: Tensor = _extension.call(
        "upfirdn2d", reference, x, f, up, down, pads, bool(flip), float(gain)
    )
    return y


def setup_filter(
    taps: Sequence[float] | Sequence[Sequence[float]] | Tensor | None,
    *,
    normalize: bool = True,
    flip: bool = False,
    gain: float = 1.0,
    separable: bool = False,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Make a filter tensor for the ops of this file.

    Args:
        taps: 1-D or 2-D numbers, such as [1, 3, 3, 1]; None is the identity [1].
        normalize: make the taps add up to one (the gain of a constant image is then `gain`).
        flip: reverse the taps.
        gain: gain of the whole 2-D filter.
        separable: keep 1-D taps 1-D; otherwise they become their outer product.
        device: where the filter goes.

    Returns:
        [fh, fw] (or [taps] when separable), float32.

    Raises:
        ValueError: no taps, a wrong rank, taps that add up to zero with normalize, or a negative
            gain of a separable filter.
    """
    f = torch.as_tensor([1.0] if taps is None else taps, dtype=torch.float32, device="cpu")
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"taps: expected 1-D or 2-D numbers, got shape {list(f.shape)}")
    if f.ndim == 2 and separable:
        raise ValueError("separable: needs 1-D taps, got 2-D ones")
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if f.ndim == 1 and gain < 0:
        raise ValueError(f"gain: a separable filter is applied twice, so >= 0; got {gain}")
    if normalize:
        if float(f.sum()) == 0:
            raise ValueError("taps: they add up to zero, which cannot be normalised")
        f = f / f.sum()
    if flip:
        f = f.flip(list(range(f.ndim)))
    # A 1-D filter is applied twice, so each time has half the gain.
    return (f * (math.sqrt(gain) if f.ndim == 1 else gain)).to(device)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    factor: int = 2,
    pad: int | Sequence[int] = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Enlarge by a whole factor: [N, C, H, W] -> [N, C, H * factor, W * factor] when pad is 0.

    The filter is centred (the extra tap of an even one goes first) and a constant keeps its
    value: the gain factor**2 makes up for the stuffed zeros. Arguments as in `upfirdn2d`; `pad`
    adds output pixels. Raises ValueError as `upfirdn2d` does.
    """
    fh, fw = _taps(f)
    left, right, top, bottom = quads("pad", tuple(pad) if not isinstance(pad, int) else pad)
    p = (
        left + (fw + factor - 1) // 2,
        right + (fw - factor) // 2,
        top + (fh + factor - 1) // 2,
        bottom + (fh - factor) // 2,
    )
    return upfirdn2d(x, f, up=factor, pad=p, flip=flip, gain=gain * factor**2)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    *,
    factor: int = 2,
    pad: int | Sequence[int] = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Shrink by a whole factor after filtering; `pad` adds input pixels.

    [N, C, H, W] -> [N, C, H // factor, W // factor] when the factor divides them and pad is 0.
    Arguments and errors as in `upfirdn2d`.
    """
    fh, fw = _taps(f)
    left, right, top, bottom = quads("pad", tuple(pad) if not isinstance(pad, int) else pad)
    p = (
        left + (fw - factor + 1) // 2,
        right + (fw - factor) // 2,
        top + (fh - factor + 1) // 2,
        bottom + (fh - factor) // 2,
    )
    return upfirdn2d(x, f, down=factor, pad=p, flip=flip, gain=gain)


def filter2d(
    x: Tensor,
    f: Tensor | None,
    *,
    pad: int | Sequence[int] = 0,
    flip: bool = False,
    gain: float = 1.0,
) -> Tensor:
    """Filter at the same size: [N, C, H, W] -> [N, C, H, W] when pad is 0 (zeros outside).

    Arguments and errors as in `upfirdn2d`.
    """
    fh, fw = _taps(f)
    left, right, top, bottom = quads("pad", tuple(pad) if not isinstance(pad, int) else pad)
    p = (left + fw // 2, right + (fw - 1) // 2, top + fh // 2, bottom + (fh - 1) // 2)
    return upfirdn2d(x, f, pad=p, flip=flip, gain=gain)


def _taps(f: Tensor | None) -> tuple[int, int]:
    return (1, 1) if f is None else (f.shape[0], f.shape[-1])
