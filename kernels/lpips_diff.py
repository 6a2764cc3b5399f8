"""LPIPS's comparison of features with a target of unit length: value and gradient in one pass.

    u = x / (|x| + 1e-10); value = sum over pixels of m * sum over channels of lin (u - t)^2

A program holds all channels of a few pixels, reads them once, and writes their gradient and one
partial sum; a second launch adds the partial sums of an image in order. No atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch, power_of_two

EPS = 1e-10
ELEMENTS = 2048  # of a program of 4 warps: 16 a thread keep all in registers
MOST_CHANNELS = 4096
CHUNK = 1024  # partial sums added at a time


@triton.jit
def _lengths(wide, EPS: tl.constexpr):
    """Of pixels [P, C]: where x is not zero, its length there (else 1), and what x is scaled by."""
    squared = tl.sum(wide * wide, axis=1)
    there = squared > 0.0
    length = tl.sqrt(tl.where(there, squared, 1.0))
    return there, length, tl.where(there, 1.0 / (length + EPS), 0.0)


@triton.jit
def _unit(
    x, u, pixels, channels, x_n, x_c, x_p, u_n, u_c, u_p,
    P: tl.constexpr, C: tl.constexpr, EPS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    p = (tl.program_id(0) * P + tl.arange(0, P))[:, None]
    c = tl.arange(0, C)[None, :]
    inside = (p < pixels) & (c < channels)
    wide = tl.load(x + n * x_n + p * x_p + c * x_c, mask=inside, other=0.0).to(ACC)
    there, length, scale = _lengths(wide, EPS)
    tl.store(u + n * u_n + p * u_p + c * u_c, wide * scale[:, None], mask=inside)


@triton.jit
def _diff(
    x, target, lin, weights, gradient, partial, pixels, channels, x_n, x_c, x_p, t_n, t_c, t_p,
    g_n, g_c, g_p, w_n, partial_n,
    P: tl.constexpr, C: tl.constexpr, WEIGHTED: tl.constexpr, EPS: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(1).to(tl.int64)
    rows = tl.program_id(0) * P + tl.arange(0, P)
    p, c = rows[:, None], tl.arange(0, C)[None, :]
    known = rows < pixels
    inside = (p < pixels) & (c < channels)
    wide = tl.load(x + n * x_n + p * x_p + c * x_c, mask=inside, other=0.0).to(ACC)
    there, length, scale = _lengths(wide, EPS)
    u = wide * scale[:, None]
    apart = u - tl.load(target + n * t_n + p * t_p + c * t_c, mask=inside, other=0.0)
    weighted = apart * tl.load(lin + c, mask=c < channels, other=0.0)
    if WEIGHTED:
        share = tl.load(weights + n * w_n + rows, mask=known, other=0.0)
    else:
        share = tl.where(known, 1.0, 0.0).to(ACC) / pixels.to(ACC)
    square = tl.sum(weighted * apart, axis=1)
    along = tl.sum(weighted * u, axis=1)
    a = 2.0 * share * scale
    b = tl.where(there, 2.0 * share * along / length, 0.0)
    slope = a[:, None] * weighted - b[:, None] * u
    to = gradient + n * g_n + p * g_p + c * g_c
    tl.store(to, slope.to(gradient.dtype.element_ty), mask=inside)
    tl.store(partial + n * partial_n + tl.program_id(0), tl.sum(share * square, axis=0))


@triton.jit
def _total(partial, value, partial_n, count, CHUNK: tl.constexpr, ACC: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, CHUNK)
    sums = tl.zeros([CHUNK], ACC)
    for start in range(0, count, CHUNK):
        at = start + lane
        sums += tl.load(partial + n * partial_n + at, mask=at < count, other=0.0)
    tl.store(value + n, tl.sum(sums, axis=0))


def _dense(x: Tensor) -> Tensor:
    """X itself where it is dense in NCHW or NHWC order, else a copy that is."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _steps(x: Tensor, count: int) -> tuple[int, int, int]:
    """From an image, a channel, a pixel to the next; from an image: 0 where one serves for all."""
    last = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    channels, pixels = x.shape[1], x.shape[2] * x.shape[3]
    image = channels * pixels if len(x) == count else 0
    return (image, 1, channels) if last else (image, pixels, 1)


def _tile(x: Tensor, steps: tuple[int, int, int]) -> tuple[int, int, int]:
    """Pixels and channels of a program, and its warps."""
    channels = power_of_two(max(16, x.shape[1]))
    if x.shape[1] > MOST_CHANNELS or x[0].numel() >= 2**31:
        raise RuntimeError(
            f"lpips_diff: x: the Triton kernel takes up to {MOST_CHANNELS} channels and 2^31 "
            f"elements an image, got shape {list(x.shape)}; set PYFACELAT_BACKEND=reference"
        )
    # In NCHW neighbouring pixels, not channels, are side by side: 16 of them fill two sectors.
    fewest = 1 if steps[1] == 1 else max(1, min(16, 4 * ELEMENTS // channels))
    pixels = max(fewest, ELEMENTS // channels)
    return pixels, channels, max(4, min(16, pixels * channels // 512))


def _wide(x: Tensor) -> tuple[torch.dtype, tl.dtype]:
    if x.dtype == torch.float64:
        return torch.float64, tl.float64
    return torch.float32, tl.float32


def lpips_unit(x: Tensor) -> Tensor:
    """X [N,C,H,W] at length 1 along the channels (0 where x is 0); float32 for 16-bit dtypes."""
    x = _dense(x)
    u = torch.empty_like(x, dtype=_wide(x)[0])  # keeps the layout
    if x.numel() == 0:
        return u
    steps, area = _steps(x, len(x)), x.shape[2] * x.shape[3]
    pixels, channels, warps = _tile(x, steps)
    launch(
        _unit, (-(-area // pixels), len(x)), x, u, area, x.shape[1], *steps, *_steps(u, len(x)),
        warps=warps, P=pixels, C=channels, EPS=EPS, ACC=_wide(x)[1],
    )  # fmt: skip
    return u


def lpips_diff(
    x: Tensor, target: Tensor, lin: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Value [N] and gradient to x [N,C,H,W].

    The target is [N or 1,C,H,W], lin [C], weights [N or 1,H,W] or None for the mean over pixels;
    all three are float32 (float64 for float64 x).
    """
    x, target, lin = _dense(x), _dense(target), lin.contiguous()
    count, area = len(x), x.shape[2] * x.shape[3]
    dtype, acc = _wide(x)
    gradient, value = torch.empty_like(x), x.new_empty(count, dtype=dtype)
    if not count:
        return value, gradient
    if x.numel() == 0:
        return value.zero_(), gradient
    steps = _steps(x, count)
    pixels, channels, warps = _tile(x, steps)
    programs = -(-area // pixels)
    partial = x.new_empty(count, programs, dtype=dtype)
    shares = lin if weights is None else weights.contiguous()
    weights_n = area if weights is not None and len(weights) == count else 0
    launch(
        _diff, (programs, count), x, target, lin, shares, gradient, partial, area, x.shape[1],
        *steps, *_steps(target, count), *_steps(gradient, count), weights_n, partial.stride(0),
        warps=warps, P=pixels, C=channels, WEIGHTED=weights is not None, EPS=EPS, ACC=acc,
    )  # fmt: skip
    launch(
        _total, (count,), partial, value, partial.stride(0), programs, CHUNK=CHUNK, ACC=acc
    )  # fmt: skip
    return value, gradient
