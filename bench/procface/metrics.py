"""The formulas of the benchmark, on plain arrays; docs/control_benchmark.md explains them.

Points are [..., 68, 2] in any one unit; every result is a ratio without unit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from pyfacelat.animation.metrics import acceleration as acceleration
from pyfacelat.animation.metrics import jitter as jitter
from pyfacelat.animation.metrics import lag as lag
from pyfacelat.faces.groups import GROUPS
from pyfacelat.faces.landmarks import normalised_error

Array = NDArray[np.float64]
Statistic = Callable[[Array], Array]
"""Reduces the last axis."""

INNER = tuple(range(17, 68))
"""The landmarks without the jaw line, which hair hides and which no detector places well."""

LIMIT = 0.08
"""Error at which a face counts as failed, and up to which the area under the curve goes."""

_TINY = 1e-12


def nme(points: ArrayLike, truth: ArrayLike, indices: Sequence[int] = INNER) -> Array:
    """`faces.landmarks.normalised_error` of arrays that broadcast against each other, [...]."""
    p, t = np.broadcast_arrays(np.asarray(points, np.float64), np.asarray(truth, np.float64))
    found, exact = (torch.from_numpy(x.reshape(-1, 68, 2).copy()) for x in (p, t))
    error = normalised_error(found, exact, list(indices)).numpy()
    return np.asarray(error.reshape(p.shape[:-2]))


def nme_by_group(points: ArrayLike, truth: ArrayLike) -> dict[str, Array]:
    """`nme` of each of the nine landmark groups, the jaw among them."""
    return {name: nme(points, truth, list(group)) for name, group in GROUPS.items()}


def median(values: Array) -> Array:
    """Median of the last axis."""
    return np.asarray(np.median(values, axis=-1))


def area_under_curve(errors: ArrayLike, limit: float = LIMIT) -> Array:
    """Area under the cumulative error curve from 0 to `limit`, over `limit`; 1 is perfect.

    Errors are [..., N], the result is [...].

    The curve F(x) is the share of faces with an error of at most x, so that
    (1 / limit) * integral of F from 0 to limit = mean(max(0, 1 - error / limit)).
    """
    return np.asarray(np.clip(1 - np.asarray(errors, np.float64) / limit, 0, None).mean(-1))


def failures(errors: ArrayLike, limit: float = LIMIT) -> Array:
    """Share of faces with an error above `limit`: [..., N] to [...]."""
    return np.asarray((np.asarray(errors, np.float64) > limit).mean(-1))


def carried(error: ArrayLike, start: ArrayLike) -> Array:
    """Share of the way to the target that was gone: 1 - error / error at the start."""
    share: Array = 1 - np.asarray(error, np.float64) / np.maximum(
        np.asarray(start, np.float64), _TINY
    )
    return share


def motion(start: ArrayLike, end: ArrayLike, indices: Sequence[int]) -> Array:
    """How far some landmarks moved: `nme` of the end against the start, over the start's eyes."""
    return nme(end, start, indices)


def achieved_dose(
    start: ArrayLike, end: ArrayLike, wanted: ArrayLike, indices: Sequence[int] = INNER
) -> Array:
    """How much of a motion was made: <end - start, wanted - start> / |wanted - start|^2, [...].

    1 where the landmarks moved as asked, 0 where they stayed or moved across it.
    """
    chosen = list(indices)
    s, e, w = (np.asarray(p, np.float64)[..., chosen, :] for p in (start, end, wanted))
    asked = ((w - s) ** 2).sum((-2, -1))
    share: Array = ((e - s) * (w - s)).sum((-2, -1)) / np.maximum(asked, _TINY)
    return share


def line_fit(x: ArrayLike, y: ArrayLike) -> tuple[float, float]:
    """Slope of the least-squares line through (x, y), and R^2 of it (0 where y is constant)."""
    xs, ys = np.asarray(x, np.float64), np.asarray(y, np.float64)
    dx, dy = xs - xs.mean(), ys - ys.mean()
    slope = float((dx * dy).sum() / max(float((dx * dx).sum()), _TINY))
    spread = float((dy * dy).sum())
    rest = float(((dy - slope * dx) ** 2).sum())
    return slope, 0.0 if spread < _TINY else 1 - rest / spread


def seconds_to_reach(curve: Sequence[dict[str, float]], goals: dict[str, float]) -> float | None:
    """Seconds of the first entry of a curve whose values are all at or below the goals, or None."""
    for entry in curve:
        if all(entry[name] <= goal for name, goal in goals.items()):
            return entry["seconds"]
    return None


def bootstrap(
    values: Sequence[ArrayLike],
    statistic: Statistic = median,
    *,
    level: float = 0.90,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic with its percentile bootstrap interval (Efron 1979).

    Args:
        values: one entry per pair: a number, or the numbers of its seeds. Pairs are drawn with
            replacement, and then one seed for each draw of a pair.
        statistic: of the last axis of an array.
        level: coverage.
        draws: number of resamples.
        seed: of the resampling.

    Returns:
        statistic of all values, lower end, upper end; three NaN without values.

    """
    per_pair = [np.atleast_1d(np.asarray(v, np.float64)) for v in values]
    if not per_pair:
        return (float("nan"),) * 3
    everything = np.concatenate(per_pair)
    rng = np.random.default_rng(seed)
    count = len(per_pair)
    lengths = np.array([len(v) for v in per_pair])
    offsets = np.cumsum(lengths) - lengths
    picked = rng.integers(0, count, (draws, count))
    which = (rng.random((draws, count)) * lengths[picked]).astype(int)
    resamples = everything[offsets[picked] + which]  # [draws, count]
    tail = (1 - level) / 2
    low, high = np.quantile(statistic(resamples), [tail, 1 - tail])
    return float(statistic(everything)), float(low), float(high)
