"""Adam and renormalisation of all noise maps: two launches, however many maps there are.

    adam         moves its block, and leaves the block's sum and squares about its mean
    standardise  merges the blocks of a map in order; (x - mean) / RMS

Tables as in noise_reg.py. Without sizes only Adam runs, one launch.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch, power_of_two
from .noise_reg import packed

BLOCK = 2048
FIELDS = 5


@functools.lru_cache(maxsize=64)
def _blocks(pixels: tuple[int, ...], device: torch.device) -> tuple[Tensor, int]:
    """Rows of int32: offset, elements, first block of the map, its blocks, the map's elements.

    Also the most blocks that a map has.
    """
    rows: list[list[int]] = []
    offset = 0
    for size in pixels:
        first, count = len(rows), -(-size // BLOCK)
        for i in range(0, size, BLOCK):
            rows.append([offset + i, min(BLOCK, size - i), first, count, size])
        offset += size
    return torch.tensor(rows, dtype=torch.int32).to(device, non_blocking=True), max(
        row[3] for row in rows
    )


@triton.jit
def _adam(
    maps, first, second, gradient, regular, rates, blocks, partial, step, gradient_step,
    regular_step, partial_step,
    BETA1: tl.constexpr, BETA2: tl.constexpr, EPS: tl.constexpr,
    BLOCK: tl.constexpr, FIELDS: tl.constexpr, REGULAR: tl.constexpr, SUMS: tl.constexpr,
    ACC: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    row = blocks + FIELDS * block
    offset, count = tl.load(row), tl.load(row + 1)
    lane = tl.arange(0, BLOCK)
    inside = lane < count
    i = offset + lane
    g = tl.load(gradient + n * gradient_step + i, mask=inside, other=0.0)
    if REGULAR:
        g += tl.load(rates + 3) * tl.load(regular + n * regular_step + i, mask=inside, other=0.0)
    at = n * step + i
    m = tl.load(first + at, mask=inside, other=0.0)
    v = tl.load(second + at, mask=inside, other=0.0)
    x = tl.load(maps + at, mask=inside, other=0.0)
    m += (1.0 - BETA1) * (g - m)
    v = BETA2 * v + (1.0 - BETA2) * g * g
    rate = tl.load(rates) / tl.load(rates + 1)
    x -= rate * (m / (tl.sqrt(v) / tl.load(rates + 2) + EPS))
    tl.store(first + at, m, mask=inside)
    tl.store(second + at, v, mask=inside)
    tl.store(maps + at, x, mask=inside)
    if SUMS:
        total = tl.sum(tl.where(inside, x, 0.0), axis=0)
        apart = tl.where(inside, x - total / count.to(ACC), 0.0)
        partial += n * partial_step + 2 * block
        tl.store(partial, total)
        tl.store(partial + 1, tl.sum(apart * apart, axis=0))


@triton.jit
def _standardise(
    maps, blocks, partial, step, partial_step,
    BLOCK: tl.constexpr, FIELDS: tl.constexpr, MOST: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    row = blocks + FIELDS * tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    offset, count, first = tl.load(row), tl.load(row + 1), tl.load(row + 2)
    parts, size = tl.load(row + 3), tl.load(row + 4)
    k = tl.arange(0, MOST)
    known = k < parts
    partial += n * partial_step + 2 * (first + k)
    sums = tl.load(partial, mask=known, other=0.0)
    squares = tl.load(partial + 1, mask=known, other=0.0)
    mean = tl.sum(sums, axis=0) / size.to(ACC)
    # Chan, Golub & LeVeque (1979): squares about the mean of the map, from those about the blocks'.
    counts = tl.where(known, tl.minimum(BLOCK, size - k * BLOCK), 1).to(ACC)
    apart = tl.where(known, sums / counts - mean, 0.0)
    spread = tl.sum(squares + counts * apart * apart, axis=0) / size.to(ACC)
    lane = tl.arange(0, BLOCK)
    inside = lane < count
    at = maps + n * step + offset + lane
    x = tl.load(at, mask=inside, other=0.0)
    tl.store(at, (x - mean) * (1.0 / tl.sqrt(spread)), mask=inside)


def noise_update(
    maps: Tensor,
    first: Tensor,
    second: Tensor,
    gradients: list[Tensor],
    rates: Tensor,
    sizes: list[int],
    regular: Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Move packed maps [N,P], float32 or float64, and their moments in place.

    Gradients [N,h,w] that are not views of one tensor [N,P] are copied into one first.
    """
    count, pixels = maps.shape
    if maps.numel() == 0:
        return
    shapes = tuple(h * w for h, w in zip(sizes[::2], sizes[1::2], strict=True))
    blocks, most = _blocks(shapes or (pixels,), maps.device)
    if shapes:
        gradient = packed([g if g.is_contiguous() else g.contiguous() for g in gradients])
    else:
        gradient = gradients[0].reshape(count, pixels)
    if regular is not None and regular.stride(1) != 1:
        regular = regular.contiguous()
    extra = gradient if regular is None else regular
    partial = maps.new_empty(count, len(blocks), 2)
    grid = (len(blocks), count)
    same = {"FIELDS": FIELDS, "ACC": tl.float64 if maps.dtype == torch.float64 else tl.float32}
    launch(
        _adam, grid, maps, first, second, gradient, extra, rates, blocks, partial, maps.stride(0),
        gradient.stride(0), extra.stride(0), partial.stride(0), BETA1=beta1, BETA2=beta2, EPS=eps,
        warps=8, BLOCK=BLOCK, REGULAR=regular is not None, SUMS=bool(shapes), **same,
    )  # fmt: skip
    if shapes:
        launch(
            _standardise, grid, maps, blocks, partial, maps.stride(0), partial.stride(0),
            warps=8, BLOCK=BLOCK, MOST=power_of_two(most), **same,
        )  # fmt: skip
