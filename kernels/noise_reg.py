"""Noise regulariser of all maps: value and gradient in four launches, however many maps there are.

    value = sum over maps and levels of X^2 + Y^2,  X = mean(n * roll_x(n)), Y = mean(n * roll_y(n))

over each map's pyramid of 2x2 means, which ends at the first level of at most 8 rows.

    means      up to seven levels of the pyramid, a tile of 128 x 128 pixels a program
    products   both sums of every level, a partial sum a program
    totals     the partial sums of a level, in order; an image's value
    gradient   2x2 pixels of a map at a time: their own terms, and those of all coarser levels

What each program works on is a row of a table that depends on the sizes of the maps alone. It is
made and copied to the device on the first call with these sizes; a call that a CUDA graph records
must not be the first. No atomics: the same bits every time.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import launch, power_of_two

SMALLEST = 8  # rows of a pyramid's last level, at most
TILE = 128  # side of the square that one program of `_means` halves seven times
DEPTH = 7
BLOCK = 2048  # pixels of a program of `_products`
QUADS = 512  # squares of 2x2 pixels of a program of `_gradient`
CHUNK = 32  # partial sums of each level that `_totals` adds at a time
FIELDS = 8  # of a level, see _Plan.add


@dataclass
class _Plan:
    """Tables of int32, rows of what is named; on the device once `finish` has run."""

    levels: list[list[int]] = field(default_factory=list)
    tiles: list[list[list[int]]] = field(default_factory=list)  # one table a launch of _means
    blocks: list[list[int]] = field(default_factory=list)  # level, first pixel
    quads: list[list[int]] = field(default_factory=list)  # level, first square
    packed: int = 0
    coarse: int = 0
    most_blocks: int = 1
    tables: list[Tensor] = field(default_factory=list)

    def add(self, height: int, width: int) -> None:
        """Add one map."""
        sides = [(height, width)]
        while sides[-1][0] > SMALLEST:
            sides.append((sides[-1][0] // 2, sides[-1][1] // 2))
        for depth, (h, w) in enumerate(sides):
            first = len(self.blocks)
            self.blocks += [[len(self.levels), i] for i in range(0, h * w, BLOCK)]
            count = len(self.blocks) - first
            self.most_blocks = max(self.most_blocks, count)
            offset = self.packed if depth == 0 else self.coarse
            below = len(sides) - 1 - depth
            if depth % DEPTH == 0 and below:
                self._add_tiles(depth // DEPTH, h, w, min(below, DEPTH))
            # height, width, offset, finest, first block, blocks, levels below, pixels
            self.levels.append([h, w, offset, int(depth == 0), first, count, below, h * w])
            if depth == 0:
                squares = -(-h // 2) * -(-w // 2)
                self.quads += [[len(self.levels) - 1, i] for i in range(0, squares, QUADS)]
                self.packed += h * w
            else:
                self.coarse += h * w

    def _add_tiles(self, launch_: int, h: int, w: int, count: int) -> None:
        while len(self.tiles) <= launch_:
            self.tiles.append([])
        for y in range(0, h, TILE):
            self.tiles[launch_] += [[len(self.levels), y, x, count] for x in range(0, w, TILE)]

    def finish(self, device: torch.device) -> _Plan:
        rows = [self.levels, self.blocks, self.quads, *self.tiles]
        self.tables = [
            torch.tensor(r, dtype=torch.int32).to(device, non_blocking=True) for r in rows
        ]
        return self


@functools.lru_cache(maxsize=64)
def _plan(sizes: tuple[tuple[int, int], ...], device: torch.device) -> _Plan:
    plan = _Plan()
    for height, width in sizes:
        plan.add(height, width)
    return plan.finish(device)


@triton.jit
def _data(maps, scratch, level, maps_step, scratch_step, n):
    """Where image n's pixels of a level begin: finest ones in `maps`, the others in `scratch`."""
    offset = tl.load(level + 2)
    if tl.load(level + 3) != 0:
        data = maps + n * maps_step + offset
    else:
        data = scratch + n * scratch_step + offset
    return data


@triton.jit
def _means(
    maps, scratch, levels, tiles, maps_step, scratch_step,
    TILE: tl.constexpr, DEPTH: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    tile = tiles + 4 * tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    level = levels + FIELDS * tl.load(tile)
    top, left, count = tl.load(tile + 1), tl.load(tile + 2), tl.load(tile + 3)
    h, w = tl.load(level), tl.load(level + 1)
    data = _data(maps, scratch, level, maps_step, scratch_step, n)
    scratch += n * scratch_step
    ys = (top + 2 * tl.arange(0, TILE // 2))[:, None]
    xs = (left + 2 * tl.arange(0, TILE // 2))[None, :]
    # The last row and column of an odd size belong to no square; what they would add is not stored.
    inside = (ys + 1 < h) & (xs + 1 < w)
    at = data + ys * w + xs
    mean = tl.load(at, mask=inside, other=0.0)
    mean += tl.load(at + 1, mask=inside, other=0.0)
    mean += tl.load(at + w, mask=inside, other=0.0)
    mean += tl.load(at + w + 1, mask=inside, other=0.0)
    mean *= 0.25
    for depth in tl.static_range(1, DEPTH + 1):
        if depth <= count:
            deeper = level + FIELDS * depth
            h_, w_, offset_ = tl.load(deeper), tl.load(deeper + 1), tl.load(deeper + 2)
            y = ((top >> depth) + tl.arange(0, TILE >> depth))[:, None]
            x = ((left >> depth) + tl.arange(0, TILE >> depth))[None, :]
            tl.store(scratch + offset_ + y * w_ + x, mean, mask=(y < h_) & (x < w_))
        if depth < DEPTH:
            mean = tl.reshape(mean, [TILE >> (depth + 1), 2, TILE >> (depth + 1), 2])
            mean = tl.sum(tl.sum(mean, axis=3), axis=1) * 0.25


@triton.jit
def _products(
    maps, scratch, levels, blocks, partial, maps_step, scratch_step, partial_step,
    BLOCK: tl.constexpr, FIELDS: tl.constexpr,
):  # fmt: skip
    block = tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    level = levels + FIELDS * tl.load(blocks + 2 * block)
    i = tl.load(blocks + 2 * block + 1) + tl.arange(0, BLOCK)
    h, w = tl.load(level), tl.load(level + 1)
    data = _data(maps, scratch, level, maps_step, scratch_step, n)
    inside = i < h * w
    y, x = i // w, i % w
    own = tl.load(data + i, mask=inside, other=0.0)
    left = tl.load(data + y * w + tl.where(x == 0, w - 1, x - 1), mask=inside, other=0.0)
    above = tl.load(data + tl.where(y == 0, h - 1, y - 1) * w + x, mask=inside, other=0.0)
    partial += n * partial_step + 2 * block
    tl.store(partial, tl.sum(own * left, axis=0))
    tl.store(partial + 1, tl.sum(own * above, axis=0))


@triton.jit
def _totals(
    partial, levels, slopes, value, partial_step, count, most_blocks,
    LEVELS: tl.constexpr, CHUNK: tl.constexpr, FIELDS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    partial += n * partial_step
    index = tl.arange(0, LEVELS)
    known = index < count
    level = levels + FIELDS * index
    first = tl.load(level + 4, mask=known, other=0)
    blocks = tl.load(level + 5, mask=known, other=0)
    pixels = tl.load(level + 7, mask=known, other=1).to(ACC)
    x = tl.zeros([LEVELS], ACC)
    y = tl.zeros([LEVELS], ACC)
    for start in range(0, most_blocks, CHUNK):
        i = start + tl.arange(0, CHUNK)[None, :]
        at = partial + 2 * (first[:, None] + i)
        x += tl.sum(tl.load(at, mask=i < blocks[:, None], other=0.0), axis=1)
        y += tl.sum(tl.load(at + 1, mask=i < blocks[:, None], other=0.0), axis=1)
    x /= pixels
    y /= pixels
    tl.store(value + n, tl.sum(x * x + y * y, axis=0))
    slopes += 2 * (n * count + index)
    tl.store(slopes, 2 * x / pixels, mask=known)
    tl.store(slopes + 1, 2 * y / pixels, mask=known)


@triton.jit
def _around(data, y, x, h, w, slope, inside):
    """A level's own gradient at its pixels (y, x); `slope` points at its two."""
    left = y * w + tl.where(x == 0, w - 1, x - 1)
    right = y * w + tl.where(x + 1 == w, 0, x + 1)
    above = tl.where(y == 0, h - 1, y - 1) * w + x
    below = tl.where(y + 1 == h, 0, y + 1) * w + x
    side = tl.load(data + left, mask=inside, other=0.0)
    side += tl.load(data + right, mask=inside, other=0.0)
    over = tl.load(data + above, mask=inside, other=0.0)
    over += tl.load(data + below, mask=inside, other=0.0)
    return tl.load(slope) * side + tl.load(slope + 1) * over


@triton.jit
def _gradient(
    maps, scratch, levels, quads, slopes, gradient, maps_step, scratch_step, gradient_step, count,
    QUADS: tl.constexpr, FIELDS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    quad = quads + 2 * tl.program_id(0)
    n = tl.program_id(1).to(tl.int64)
    index = tl.load(quad)
    level = levels + FIELDS * index
    i = tl.load(quad + 1) + tl.arange(0, QUADS)
    h, w, offset, below = (
        tl.load(level), tl.load(level + 1), tl.load(level + 2), tl.load(level + 6),
    )  # fmt: skip
    maps += n * maps_step + offset
    scratch += n * scratch_step
    slopes += 2 * (n * count + index)
    across = (w + 1) // 2
    y, x = i // across, i % across
    inside = y < (h + 1) // 2
    coarse = tl.zeros([QUADS], ACC)
    share = 0.25
    for depth in range(1, below + 1):
        deeper = level + FIELDS * depth
        h_, w_, offset_ = tl.load(deeper), tl.load(deeper + 1), tl.load(deeper + 2)
        y_, x_ = y >> (depth - 1), x >> (depth - 1)
        there = inside & (y_ < h_) & (x_ < w_)
        own = _around(scratch + offset_, y_, x_, h_, w_, slopes + 2 * depth, there)
        coarse += share * tl.where(there, own, 0.0)
        share *= 0.25
    gradient += n * gradient_step + offset
    for corner in tl.static_range(4):
        yy, xx = 2 * y + corner // 2, 2 * x + corner % 2
        there = inside & (yy < h) & (xx < w)
        own = _around(maps, yy, xx, h, w, slopes, there)
        tl.store(gradient + yy * w + xx, own + coarse, mask=there)


def packed(maps: list[Tensor]) -> Tensor:
    """Maps [N,h,w] as one tensor [N,P]: without a copy where they are views of such a tensor."""
    first, count = maps[0], len(maps[0])
    pixels = [m.shape[1] * m.shape[2] for m in maps]
    step = sum(pixels) if count == 1 else first.stride(0)
    at = first.storage_offset()
    whole = step >= sum(pixels)
    for m, size in zip(maps, pixels, strict=True):
        whole = whole and m.untyped_storage().data_ptr() == first.untyped_storage().data_ptr()
        whole = whole and m.storage_offset() == at and m[:1].is_contiguous()
        whole = whole and (count == 1 or m.stride(0) == step)
        at += size
    if whole:
        return first.as_strided((count, sum(pixels)), (step, 1))
    return torch.cat([m.flatten(1) for m in maps], 1)


def noise_reg(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Value [N] and gradient [N,P] of maps [N,h,w], all float32 or all float64."""
    flat = packed(maps)
    count = len(flat)
    plan = _plan(tuple((m.shape[1], m.shape[2]) for m in maps), flat.device)
    levels, blocks, quads, *tiles = plan.tables
    value, gradient = flat.new_empty(count), flat.new_empty(count, plan.packed)
    if not count:
        return value, gradient
    acc = tl.float64 if flat.dtype == torch.float64 else tl.float32
    scratch = flat.new_empty(count, max(1, plan.coarse))
    partial = flat.new_empty(count, len(blocks), 2)
    slopes = flat.new_empty(count, len(levels), 2)
    steps = (flat.stride(0), scratch.stride(0))
    for table in tiles:
        launch(
            _means, (len(table), count), flat, scratch, levels, table, *steps,
            warps=8, TILE=TILE, DEPTH=DEPTH, FIELDS=FIELDS,
        )  # fmt: skip
    launch(
        _products, (len(blocks), count), flat, scratch, levels, blocks, partial, *steps,
        partial.stride(0), BLOCK=BLOCK, FIELDS=FIELDS,
    )  # fmt: skip
    launch(
        _totals, (count,), partial, levels, slopes, value, partial.stride(0), len(levels),
        plan.most_blocks, warps=8, LEVELS=power_of_two(len(levels)), CHUNK=CHUNK, FIELDS=FIELDS,
        ACC=acc,
    )  # fmt: skip
    launch(
        _gradient, (len(quads), count), flat, scratch, levels, quads, slopes, gradient, *steps,
        gradient.stride(0), len(levels), QUADS=QUADS, FIELDS=FIELDS, ACC=acc,
    )  # fmt: skip
    return value, gradient
