"""The 68 iBUG landmarks in nine named groups, and weights by name.

Point 30, the tip of the nose, belongs to both nose groups in the published code; the later group
(`lower_nose`) wins, here as there.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyfacelat.errors import LandmarkError

NUM_LANDMARKS = 68

GROUPS: dict[str, range] = {
    "jaw": range(0, 17),
    "left_eyebrow": range(17, 22),
    "right_eyebrow": range(22, 27),
    "nose_bridge": range(27, 31),
    "lower_nose": range(30, 36),
    "left_eye": range(36, 42),
    "right_eye": range(42, 48),
    "outer_lip": range(48, 60),
    "inner_lip": range(60, 68),
}
"""Group name to landmark indices; left and right as seen in the image."""

CLOSED = frozenset({"lower_nose", "left_eye", "right_eye", "outer_lip", "inner_lip"})
"""Groups that are drawn as closed curves."""

REFERENCE_WEIGHTS: dict[str, float] = dict(
    zip(GROUPS, (0.05, 1.0, 1.0, 0.1, 1.0, 1.0, 1.0, 5.0, 5.0), strict=True)
)
"""The published command line's default weight of each group."""

OUTER_EYE_CORNERS = (36, 45)
"""Their distance normalises landmark errors."""

GroupWeights = Mapping[str, float] | Sequence[float] | Tensor


def expand(weights: GroupWeights | None, *, name: str = "group_weights") -> Tensor:
    """One weight per landmark from weights by group name, nine weights, or 68 weights.

    Args:
        weights: a mapping from group names to weights (groups not named weigh 1), nine numbers in
            the order of `GROUPS`, 68 numbers, or None for all ones.
        name: the argument's name, for error messages.

    Returns:
        [68] float32, >= 0.

    Raises:
        LandmarkError: unknown group (the message lists the nine and the closest), wrong count,
            negative or non-finite weight, or nothing but zeros.
    """
    if weights is None:
        return torch.ones(NUM_LANDMARKS)
    if isinstance(weights, Mapping):
        for group in weights:
            if group not in GROUPS:
                raise LandmarkError(f"{name}: {_unknown(group)}")
        by_group = [float(weights.get(group, 1.0)) for group in GROUPS]
    else:
        values = [float(value) for value in weights]
        if len(values) == NUM_LANDMARKS:
            return _checked(torch.tensor(values), name)
        if len(values) != len(GROUPS):
            raise LandmarkError(
                f"{name}: expected {len(GROUPS)} weights (one per group: {', '.join(GROUPS)}) "
                f"or {NUM_LANDMARKS}, got {len(values)}"
            )
        by_group = values
    expanded = torch.ones(NUM_LANDMARKS)
    for indices, value in zip(GROUPS.values(), by_group, strict=True):
        expanded[indices.start : indices.stop] = value
    return _checked(expanded, name)


def parse(text: str, *, name: str = "group_weights") -> dict[str, float] | list[float]:
    """Weights as typed on a command line: `outer_lip=5,jaw=0.05`, or nine or 68 numbers.

    Raises:
        LandmarkError: an item that is neither a number nor `group=number`.
    """
    items = [item.strip() for item in text.replace(";", ",").split(",") if item.strip()]
    try:
        if any("=" in item for item in items):
            pairs = [item.split("=", 1) for item in items]
            return {key.strip(): float(value) for key, value in pairs}
        return [float(item) for item in items]
    except ValueError:
        raise LandmarkError(
            f"{name}: expected numbers, or pairs like outer_lip=5,jaw=0.05, got {text!r}"
        ) from None


def _unknown(group: object) -> str:
    close = difflib.get_close_matches(str(group), GROUPS, n=1, cutoff=0.3)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"unknown group {group!r}{hint} The nine groups: {', '.join(GROUPS)}"


def _checked(weights: Tensor, name: str) -> Tensor:
    for index, value in enumerate(weights.tolist()):
        if not math.isfinite(value) or value < 0:
            raise LandmarkError(f"{name}: expected finite weights >= 0, got {value} at {index}")
    if not bool(weights.any()):
        raise LandmarkError(f"{name}: expected at least one weight above 0, got only zeros")
    return weights
