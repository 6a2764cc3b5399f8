"""Attributes of a face that its 68 points tell: no classifier is needed to score pictures by them.

Lengths are measured along the line through the eyes and across it, and divided by lengths of the
same face, so that moving, scaling and turning the picture changes nothing (except `roll`, which is
the turn). Larger always means more of what the name says.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.faces.groups import OUTER_EYE_CORNERS

__all__ = ["ATTRIBUTES", "LandmarkScores", "attribute"]

_TINY = 1e-6
_FEWEST = 0.2  # of the landmarks' mean confidence; below, the points are guesses


def mouth_open(points: Tensor) -> Tensor:
    """Gap of the inner lips over their width: 0 shut, about 1 wide open."""
    gaps = [_length(points, low, high) for low, high in ((61, 67), (62, 66), (63, 65))]
    return torch.stack(gaps).mean(0) / _length(points, 60, 64)


def eye_open(points: Tensor) -> Tensor:
    """Eye aspect ratio, mean of both eyes: height over width (Soukupova and Cech 2016)."""
    eyes = []
    for first in (36, 42):
        heights = _length(points, first + 1, first + 5) + _length(points, first + 2, first + 4)
        eyes.append(heights / (2 * _length(points, first, first + 3)))
    return torch.stack(eyes).mean(0)


def smile(points: Tensor) -> Tensor:
    """How far the mouth's corners lie above its middle, over its width.

    The middle is a third of the way down from the upper to the lower lip: the corners of a mouth
    that only opens go down about as far.
    """
    along = _across(points)
    corners = (along[:, 48] + along[:, 54]) / 2
    upper, lower = (along[:, 51] + along[:, 62]) / 2, (along[:, 57] + along[:, 66]) / 2
    return (torch.lerp(upper, lower, 0.35) - corners) / _length(points, 48, 54)


def mouth_width(points: Tensor) -> Tensor:
    """Distance of the mouth's corners over that of the outer eye corners."""
    return _length(points, 48, 54) / _length(points, *OUTER_EYE_CORNERS)


def brow_raise(points: Tensor) -> Tensor:
    """Height of both brows above the eyes, over the distance of the outer eye corners."""
    along = _across(points)
    lift = along[:, 36:48].mean(1) - along[:, 17:27].mean(1)
    return lift / _length(points, *OUTER_EYE_CORNERS)


def yaw(points: Tensor) -> Tensor:
    """Tip of the nose off the middle of the eyes, over half their distance: right is positive."""
    left, right = OUTER_EYE_CORNERS
    ahead = _along(points)
    middle = (ahead[:, left] + ahead[:, right]) / 2
    return 2 * (ahead[:, 30] - middle) / _length(points, left, right)


def pitch(points: Tensor) -> Tensor:
    """Height of the nose's tip above its base, over that of the eyes: looking up is larger."""
    along = _across(points)
    eyes, base = along[:, 36:48].mean(1), along[:, 33]
    return (base - along[:, 30]) / (base - eyes).clamp_min(_TINY)


def roll(points: Tensor) -> Tensor:
    """Turn of the line through the eyes, in degrees: clockwise in the picture is positive."""
    axis = _eye_axis(points)
    return torch.rad2deg(torch.atan2(axis[:, 1], axis[:, 0]))


ATTRIBUTES: dict[str, Callable[[Tensor], Tensor]] = {
    function.__name__: function
    for function in (
        mouth_open, smile, mouth_width, eye_open, brow_raise, yaw, pitch, roll
    )
}  # fmt: skip
"""Name -> function of points [N,68,2] (any unit, y down) to scores [N]."""


def attribute(name: str) -> Callable[[Tensor], Tensor]:
    """The attribute of that name; ConfigError, with the closest one, if there is none."""
    if name not in ATTRIBUTES:
        close = difflib.get_close_matches(name, ATTRIBUTES, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"attribute: expected one of {', '.join(ATTRIBUTES)}, got {name!r}{hint}")
    return ATTRIBUTES[name]


class LandmarkScores:
    """Scores of pictures by their landmarks.

    Args:
        points_of: images [N,3,R,R] in [-1, 1] to relative points [N,68,2] and confidence [N,68];
            `losses.landmark.Landmarker.points` is one.
        names: of `ATTRIBUTES`; None: all.
        fewest: smallest mean confidence; the scores of other pictures are NaN.
    """

    def __init__(
        self,
        points_of: Callable[[Tensor], tuple[Tensor, Tensor]],
        names: Sequence[str] | None = None,
        *,
        fewest: float = _FEWEST,
    ) -> None:
        self.points_of = points_of
        self.functions = {name: attribute(name) for name in names or ATTRIBUTES}
        self.fewest = fewest

    def __call__(self, images: Tensor) -> Mapping[str, Tensor]:
        """Scores [N] by name, NaN where no face was seen."""
        points, confidence = self.points_of(images)
        seen = confidence.mean(1) >= self.fewest
        missing = torch.full(seen.shape, float("nan"), device=seen.device)
        return {name: torch.where(seen, f(points), missing) for name, f in self.functions.items()}


def _eye_axis(points: Tensor) -> Tensor:
    """Unit vector [N,2] from the eye on the left of the picture to the one on the right."""
    axis = points[:, 42:48].mean(1) - points[:, 36:42].mean(1)
    unit: Tensor = axis / axis.norm(dim=1, keepdim=True).clamp_min(_TINY)
    return unit


def _along(points: Tensor) -> Tensor:
    """Coordinate of every point along the line through the eyes, [N,68]."""
    along: Tensor = (points * _eye_axis(points)[:, None]).sum(-1)
    return along


def _across(points: Tensor) -> Tensor:
    """Coordinate of every point at right angles to that line, down, [N,68]."""
    axis = _eye_axis(points)
    down = torch.stack([-axis[:, 1], axis[:, 0]], dim=1)
    across: Tensor = (points * down[:, None]).sum(-1)
    return across


def _length(points: Tensor, first: int, second: int) -> Tensor:
    length: Tensor = (points[:, first] - points[:, second]).norm(dim=-1)
    return length.clamp_min(_TINY)
