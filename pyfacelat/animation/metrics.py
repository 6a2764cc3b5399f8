"""How well frames follow a track, and how steadily, on plain arrays.

Points are [F,K,2] in any one unit. Jitter and lag are those of the control benchmark.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

_TINY = 1e-12
_THUMBNAIL = 16  # pixels; edges that move by a pixel do not count as flicker


def acceleration(track: ArrayLike) -> float:
    """Mean length of the second difference in time of a track [F,K,2]; 0 where F < 3."""
    p = np.asarray(track, np.float64)
    if len(p) < 3:
        return 0.0
    second = p[2:] - 2 * p[1:-1] + p[:-2]
    return float(np.linalg.norm(second, axis=-1).mean())


def jitter(track: ArrayLike, truth: ArrayLike) -> float:
    """Acceleration of a track over that of the truth; 1 is as smooth as the truth."""
    return acceleration(track) / max(acceleration(truth), _TINY)


def lag(track: ArrayLike, truth: ArrayLike, most: int = 6) -> float:
    """By how many frames a track [F,K,2] comes late; 0 where F < 4.

    The shift s in -most..most that minimises the mean of |track[t + s] - truth[t]|^2, refined by
    the parabola through its neighbours. Each landmark's mean over time is taken out first: a
    lasting offset is an error of place, not of time.
    """
    a, b = np.asarray(track, np.float64), np.asarray(truth, np.float64)
    a, b = a - a.mean(0), b - b.mean(0)
    most = min(most, len(a) - 3)
    if most < 1:
        return 0.0
    shifts = range(-most, most + 1)
    cost = []
    for s in shifts:
        late, early = (a[s:], b[: len(b) - s]) if s >= 0 else (a[:s], b[-s:])
        cost.append(float(((late - early) ** 2).mean()))
    best = int(np.argmin(cost))
    if 0 < best < len(cost) - 1:
        before, here, after = cost[best - 1 : best + 2]
        bend = before - 2 * here + after
        return shifts[best] + (0.5 * (before - after) / bend if bend > _TINY else 0.0)
    return float(shifts[best])


def flicker(images: NDArray[np.uint8]) -> float:
    """How much brightness and colour tremble, in levels of 255; 0 where F < 3.

    The mean absolute second difference in time of the pictures [F,H,W,3], averaged down to 16
    pixels a side: steady motion and steady fading cost little.
    """
    if len(images) < 3:
        return 0.0
    small = np.stack([_thumbnail(image) for image in images])
    return float(np.abs(small[2:] - 2 * small[1:-1] + small[:-2]).mean())


def _thumbnail(image: NDArray[Any]) -> NDArray[np.float64]:
    size = (min(_THUMBNAIL, image.shape[1]), min(_THUMBNAIL, image.shape[0]))
    channels = [
        Image.fromarray(image[..., c].astype(np.float32)).resize(size, Image.Resampling.BOX)
        for c in range(image.shape[2])
    ]
    return np.stack([np.asarray(channel, np.float64) for channel in channels], axis=-1)
