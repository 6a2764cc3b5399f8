"""Distance of heat maps to maps, or to Gaussians around points: direction and sums in one pass.

Reductions and formulas are those of pyfacelat/ops/heatmap_loss.py. The first launch writes the
direction of the gradient and a partial sum for each landmark and block; the second one, a program
an image, adds them in order and derives the value and each landmark's factor. No atomics.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch, power_of_two

REDUCTIONS = ("l2", "l1", "mse", "per_landmark")
TINY, EPS = 1e-16, 1e-8
ELEMENTS = 2048  # of a program of 4 warps: 16 a thread keep all in registers
CHUNK = 16  # blocks whose sums `_finish` adds at a time


@triton.jit
def _compare(
    maps, target, direction, partial, pixels, width, height, landmarks, m_n, m_k, m_p,
    t_n, t_k, t_p, partial_n,
    P: tl.constexpr, K: tl.constexpr, POINTS: tl.constexpr, L1: tl.constexpr,
    SPREAD: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    n = tl.program_id(2).to(tl.int64)
    p = (block * P + tl.arange(0, P))[:, None]
    k = (tl.program_id(1) * K + tl.arange(0, K))[None, :]
    inside = (p < pixels) & (k < landmarks)
    at = n * m_n + p * m_p + k * m_k
    a = tl.load(maps + at, mask=inside, other=0.0).to(ACC)
    if POINTS:
        known = k < landmarks
        x = tl.load(target + n * t_n + 2 * k, mask=known, other=0.0)
        y = tl.load(target + n * t_n + 2 * k + 1, mask=known, other=0.0)
        across = (p % width).to(ACC) + 0.5 - x * width.to(ACC)
        along = (p // width).to(ACC) + 0.5 - y * height.to(ACC)
        # Two factors, as the reference has it: far away either one underflows by itself.
        t = tl.exp(-(along * along) / SPREAD) * tl.exp(-(across * across) / SPREAD)
    else:
        t = tl.load(target + n * t_n + p * t_p + k * t_k, mask=inside, other=0.0)
    apart = tl.where(inside, a - t, 0.0)
    if L1:
        sums = tl.sum(tl.abs(apart), axis=0)
        apart = tl.where(apart > 0.0, 1.0, tl.where(apart < 0.0, -1.0, 0.0)).to(ACC)
    else:
        sums = tl.sum(apart * apart, axis=0)
    tl.store(direction + at, apart.to(direction.dtype.element_ty), mask=inside)
    lane = tl.program_id(1) * K + tl.arange(0, K)
    tl.store(partial + n * partial_n + block * landmarks + lane, sums, mask=lane < landmarks)


@triton.jit
def _finish(
    partial, weights, value, scale, blocks, landmarks, pixels, partial_n, w_n,
    K: tl.constexpr, CHUNK: tl.constexpr, REDUCTION: tl.constexpr, TINY: tl.constexpr,
    EPS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, K)
    known = k < landmarks
    w = tl.load(weights + n * w_n + k, mask=known, other=0.0)
    sums = tl.zeros([K], ACC)
    for start in range(0, blocks, CHUNK):
        i = (start + tl.arange(0, CHUNK))[:, None]
        at = partial + n * partial_n + i * landmarks + k[None, :]
        sums += tl.sum(tl.load(at, mask=(i < blocks) & (k < landmarks)[None, :], other=0.0), axis=0)
    if REDUCTION == "l2":
        squared = tl.sum(w * w * sums, axis=0)
        result = tl.sqrt(tl.maximum(squared, TINY))
        factor = tl.where(squared < TINY, 0.0, w * w / result)
    elif REDUCTION == "l1":
        result = tl.sum(w * sums, axis=0)
        factor = w
    elif REDUCTION == "mse":
        cells = (pixels * landmarks).to(ACC)
        result = tl.sum(w * sums, axis=0) / cells
        factor = 2.0 * w / cells
    else:
        norm = tl.sqrt(sums + EPS)
        total = tl.maximum(tl.sum(w, axis=0), EPS)
        result = tl.sum(w * norm, axis=0) / total
        factor = w / (norm * total)
    tl.store(value + n, result)
    tl.store(scale + n * landmarks + k, factor, mask=known)


def heatmap_loss(
    maps: Tensor, target: Tensor, weights: Tensor, reduction: str, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Value [N], scale [N,K] and direction of maps [N,K,H,W].

    Target maps [N or 1,K,H,W] or points [N or 1,K,2], and weights [N or 1,K], are float32 (float64
    for float64 maps).
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction: expected one of {REDUCTIONS}, got {reduction!r}")
    last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
    form = torch.channels_last if last else torch.contiguous_format
    maps = maps.contiguous(memory_format=form)
    points = target.ndim == 3
    target = target.contiguous() if points else target.contiguous(memory_format=form)
    weights = weights.contiguous()
    count, landmarks, height, width = maps.shape
    pixels = height * width
    dtype, acc = (
        (torch.float64, tl.float64) if maps.dtype == torch.float64 else (torch.float32, tl.float32)
    )
    value = maps.new_empty(count, dtype=dtype)
    scale = maps.new_empty(count, landmarks, dtype=dtype)
    direction = torch.empty_like(maps)
    if maps.numel() == 0:
        return value, scale, direction
    # Neighbours in memory are landmarks in NHWC, pixels in NCHW.
    lanes = power_of_two(landmarks) if last else min(4, power_of_two(landmarks))
    rows = max(16, ELEMENTS // lanes) if last else ELEMENTS // 4
    blocks = triton.cdiv(pixels, rows)
    partial = maps.new_empty(count, blocks, landmarks, dtype=dtype)
    steps = (landmarks * pixels, 1, landmarks) if last else (landmarks * pixels, pixels, 1)
    target_n = target[0].numel() if len(target) == count else 0
    launch(
        _compare, (blocks, triton.cdiv(landmarks, lanes), count), maps, target, direction, partial,
        pixels, width, height, landmarks, *steps, target_n, *steps[1:], partial.stride(0),
        P=rows, K=lanes, POINTS=points, L1=reduction == "l1", SPREAD=2.0 * sigma * sigma, ACC=acc,
    )  # fmt: skip
    launch(
        _finish, (count,), partial, weights, value, scale, blocks, landmarks, pixels,
        partial.stride(0), landmarks if len(weights) == count else 0, K=power_of_two(landmarks),
        CHUNK=CHUNK, REDUCTION=reduction, TINY=TINY, EPS=EPS, ACC=acc,
    )  # fmt: skip
    return value, scale, direction
