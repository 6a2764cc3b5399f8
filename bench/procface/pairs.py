"""The fixed pairs of faces: A gives the look, B the landmarks.

The latents of candidate k come from a frozen random stream per parameter name, so they do not
depend on how many parameters the renderer has, nor on their order. Candidates are sorted into
three strata by how far their landmarks are apart, and taken in turn: pair i is of stratum i mod 3,
and the first N of a longer list are the list of N.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pyfacelat import procface
from pyfacelat.errors import ConfigError

Points = NDArray[np.float64]
"""[..., 68, 2], relative to the image's side."""

SEED = 20211120
STRATA = (("small", 0.0, 0.15), ("medium", 0.15, 0.30), ("large", 0.30, math.inf))
"""Name, least and largest displacement, in distances between the eyes' centres."""

_CHUNK = 2048
_MOST_CANDIDATES = 65_536
_INNER = slice(17, 68)


@dataclass(frozen=True)
class Pair:
    """Two faces.

    Attributes:
        index: place in the fixed list.
        stratum: name in STRATA.
        displacement: mean distance of the inner 51 landmarks between A and B, in units of the
            distance between B's eyes.
        a, b: face parameters, float64 [Z_DIM].

    """

    index: int
    stratum: str
    displacement: float
    a: NDArray[np.float64]
    b: NDArray[np.float64]


def draw(names: Sequence[str], count: int, seed: int = SEED) -> NDArray[np.float64]:
    """Standard normal numbers [count, len(names)]; a column depends on its name and seed only."""
    columns = []
    for name in names:
        key = hashlib.sha256(f"{seed}/{name}".encode()).digest()
        # RandomState's streams are frozen for good, those of numpy.random.Generator are not.
        stream = np.random.RandomState(int.from_bytes(key[:4], "little"))
        columns.append(stream.standard_normal(count))
    return np.stack(columns, axis=1)


def displacement(start: Points, end: Points) -> NDArray[np.float64]:
    """Mean motion of the inner 51 landmarks over `end`'s distance of the eyes' centres: [N]."""
    eyes = end[..., 36:42, :].mean(-2) - end[..., 42:48, :].mean(-2)
    moved = np.linalg.norm(start[..., _INNER, :] - end[..., _INNER, :], axis=-1).mean(-1)
    ratio: NDArray[np.float64] = moved / np.linalg.norm(eyes, axis=-1)
    return ratio


def exact_points(params: NDArray[np.float64], threads: int | None = None) -> Points:
    """Landmarks of faces [N, Z_DIM], relative to the image's side, whatever its size."""
    size = 256  # only a unit: no pixel is drawn
    found = procface.render(params, size, outputs=("landmarks",), threads=threads)["landmarks"]
    return found.astype(np.float64) / size


def fixed_pairs(count: int, *, threads: int | None = None) -> list[Pair]:
    """The first `count` pairs.

    Raises:
        ConfigError: count below 1, or more pairs of a stratum than the candidates hold.

    """
    if count < 1:
        raise ConfigError(f"pairs: expected at least 1, got {count}")
    wanted = [len(range(k, count, len(STRATA))) for k in range(len(STRATA))]
    found: list[list[tuple[float, NDArray[np.float64], NDArray[np.float64]]]] = [[], [], []]
    latents = draw(procface.names(), 2 * _MOST_CANDIDATES)
    for first in range(0, len(latents), 2 * _CHUNK):
        params = procface.from_latent(latents[first : first + 2 * _CHUNK])
        a, b = params[0::2], params[1::2]
        apart = displacement(exact_points(a, threads), exact_points(b, threads))
        for k, (_, low, high) in enumerate(STRATA):
            for i in np.flatnonzero((apart >= low) & (apart < high)):
                if len(found[k]) < wanted[k]:
                    found[k].append((float(apart[i]), a[i], b[i]))
        if all(len(f) >= n for f, n in zip(found, wanted, strict=True)):
            break
    for (name, low, _), pairs, number in zip(STRATA, found, wanted, strict=True):
        if len(pairs) < number:
            raise ConfigError(
                f"pairs: expected {number} of displacement {name} (from {low}) among "
                f"{_MOST_CANDIDATES} candidates, got {len(pairs)}; ask for fewer"
            )
    chosen = [(STRATA[i % 3][0], found[i % 3][i // 3]) for i in range(count)]
    return [
        Pair(i, stratum, apart_, a_, b_) for i, (stratum, (apart_, a_, b_)) in enumerate(chosen)
    ]


def fingerprint(pairs: Sequence[Pair]) -> str:
    """Hash of the pairs' parameters, to six decimals, and of the parameters' names."""
    digest = hashlib.sha256(",".join(procface.names()).encode())
    for pair in pairs:
        digest.update(np.round(np.stack([pair.a, pair.b]), 6).astype("<f8").tobytes())
    return digest.hexdigest()
