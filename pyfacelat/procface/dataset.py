"""Deterministic sets of procedural faces: face i of a seed is the same, however it is asked for.

The latent of face i comes from splitmix64 of (seed, i, column) through Box-Muller, so batches,
start positions and thread counts cannot change it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyfacelat.procface.params import Z_DIM, from_latent
from pyfacelat.procface.render import render

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _splitmix(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    # Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014), mix64 variant 13.
    z: NDArray[np.uint64] = state + _GOLDEN
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return z


def latents(seed: int, count: int, *, start: int = 0) -> NDArray[np.float32]:
    """Draw the standard normal latents of faces start, start + 1, ...: float32 [count, Z_DIM]."""
    if seed < 0 or count < 0 or start < 0:
        raise ValueError(f"seed, count, start: expected >= 0, got {seed}, {count}, {start}")
    rows = np.arange(start, start + count, dtype=np.uint64)[:, None]
    columns = np.arange(2 * Z_DIM, dtype=np.uint64)[None]
    with np.errstate(over="ignore"):
        key = _splitmix(_splitmix(np.full((1, 1), seed % 2**64, np.uint64)) ^ rows)
        bits = _splitmix(key + columns * _GOLDEN)
    # 53 random bits, half a step away from 0 and 1.
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    radius = np.sqrt(-2 * np.log(uniform[:, :Z_DIM]))
    z: NDArray[np.float64] = radius * np.cos(2 * np.pi * uniform[:, Z_DIM:])
    return z.astype(np.float32)


@dataclass(frozen=True)
class Faces:
    """Rendered faces with everything that made them.

    Attributes:
        z: latents, float32 [N, Z_DIM], as a generator would receive them (not normalised).
        params: face parameters, float64 [N, Z_DIM].
        images: uint8 [N, S, S, 3].
        landmarks: float32 [N, 68, 2], pixels, first pixel centre at 0.5.
        visibility: float32 [N, 68], 1 where the point is seen.

    """

    z: NDArray[np.float32]
    params: NDArray[np.float64]
    images: NDArray[np.uint8]
    landmarks: NDArray[np.float32]
    visibility: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.z)

    def sha256(self) -> str:
        """Hash of the contents: z, images and landmarks."""
        digest = hashlib.sha256()
        for array in (self.z, self.images, self.landmarks):
            digest.update(np.ascontiguousarray(array).tobytes())
        return digest.hexdigest()


def generate(
    seed: int,
    count: int,
    *,
    size: int = 64,
    supersample: int = 2,
    threads: int | None = None,
    start: int = 0,
) -> Faces:
    """Render faces start .. start + count - 1 of a seed.

    Args:
        seed: >= 0; another seed, other faces.
        count: how many.
        size: side of the images in pixels.
        supersample: samples per pixel and axis.
        threads: as for render(); they do not change the result.
        start: index of the first face.

    Raises:
        ValueError: negative seed, count or start; size, supersample or threads out of range.

    """
    z = latents(seed, count, start=start)
    params = from_latent(z)
    out = render(params, size, supersample, threads=threads)
    return Faces(z, params, out["image"], out["landmarks"], out["visibility"])


def batches(
    seed: int,
    count: int,
    batch: int,
    *,
    size: int = 64,
    supersample: int = 2,
    threads: int | None = None,
    start: int = 0,
) -> Iterator[Faces]:
    """Yield the same faces as generate(), at most `batch` at a time."""
    if batch < 1:
        raise ValueError(f"batch: expected >= 1, got {batch}")
    for first in range(start, start + count, batch):
        step = min(batch, start + count - first)
        yield generate(seed, step, size=size, supersample=supersample, threads=threads, start=first)
