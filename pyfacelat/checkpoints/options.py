"""Rules for the options that describe a network in a file: type and range of every value.

They are checked before anything is allocated from them; a dict of options may hold nothing that
its reader does not know.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from .records import InertDict
from .source import Source, shown

__all__ = [
    "ABSENT",
    "ACTIVATION",
    "ARCHITECTURE",
    "CLAMP",
    "COLOURS",
    "DECAY",
    "DEVIATION_MAPS",
    "DIMENSION",
    "FLAG",
    "FP16",
    "GROUP",
    "LAYERS",
    "MULTIPLIER",
    "OPTIONAL_WIDTH",
    "RESOLUTION",
    "TAPS",
    "WIDTH",
    "Check",
    "Table",
    "checked",
    "integer",
    "number",
    "take",
]

_ACTIVATIONS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "softplus", "swish")
_ARCHITECTURES = ("orig", "skip", "resnet")
_MAX_WIDTH = 1 << 16
ABSENT = object()


class Check(NamedTuple):
    """A rule for one option: `read` returns the normalised value, or ABSENT if it is broken."""

    rule: str
    read: Callable[[Any], Any]


def integer(low: int, high: int, *, optional: bool = False) -> Check:
    """An integer in a range, ends included; with `optional`, also None."""

    def read(value: Any) -> Any:
        if optional and value is None:
            return None
        return value if type(value) is int and low <= value <= high else ABSENT

    return Check(f"an integer from {low} to {high}{' or None' if optional else ''}", read)


def number(low: float, high: float, *, optional: bool = False) -> Check:
    """A finite number in a range, ends included; with `optional`, also None."""

    def read(value: Any) -> Any:
        if optional and value is None:
            return None
        ok = type(value) in (int, float) and math.isfinite(value) and low <= value <= high
        return float(value) if ok else ABSENT

    return Check(f"a number from {low:g} to {high:g}{' or None' if optional else ''}", read)


def _choice(names: tuple[str, ...]) -> Check:
    def read(value: Any) -> Any:
        return value if type(value) is str and value in names else ABSENT

    return Check("one of " + ", ".join(names), read)


def _read_resolution(value: Any) -> Any:
    ok = type(value) is int and 4 <= value <= 4096 and value & (value - 1) == 0
    return value if ok else ABSENT


def _read_flag(value: Any) -> Any:
    return value if type(value) is bool else ABSENT


def _read_taps(value: Any) -> Any:
    # Longer filters are stored in another shape (separable); no published network has one.
    if type(value) not in (list, tuple) or not 1 <= len(value) <= 7:
        return ABSENT
    rule = number(-1e6, 1e6)
    out = [rule.read(tap) for tap in value]
    return ABSENT if ABSENT in out or sum(out) == 0 else out


RESOLUTION = Check("a power of two from 4 to 4096", _read_resolution)
FLAG = Check("true or false", _read_flag)
TAPS = Check("a list of 1 to 7 numbers with a sum other than 0", _read_taps)
WIDTH = integer(1, _MAX_WIDTH)
DIMENSION = integer(0, _MAX_WIDTH)
OPTIONAL_WIDTH = integer(1, _MAX_WIDTH, optional=True)
CLAMP = number(1e-6, 1e9, optional=True)
ACTIVATION = _choice(_ACTIVATIONS)
FP16 = integer(0, 16)
COLOURS = integer(1, 64)
# Of the mapping network: layers, learning rate multiplier, decay of the average of w.
LAYERS = integer(1, 64)
MULTIPLIER = number(1e-9, 1e6)
DECAY = number(0, 1, optional=True)
# Of the minibatch's standard deviation.
GROUP = integer(1, 4096, optional=True)
DEVIATION_MAPS = integer(0, 64)
ARCHITECTURE = _choice(_ARCHITECTURES)

# option -> (field of the config, check, default of the published code or ABSENT)
Table = dict[str, tuple[str, Check, Any]]


def checked(source: Source, place: str, check: Check, value: object) -> Any:
    """`value` normalised by its rule.

    Raises:
        CheckpointError: the rule is broken.
    """
    out = check.read(value)
    if out is ABSENT:
        source.fail(f"expected {check.rule}, got {shown(value)}", place)
    return out


def take(
    source: Source, options: Any, table: Table, place: str, known: Collection[str]
) -> dict[str, Any]:
    """Fields of `table` from a dict of options; those that are not there get their defaults.

    Args:
        source: the file.
        options: the dict.
        table: what is read.
        place: where the dict is.
        known: further options, which someone else reads or nobody needs.

    Raises:
        CheckpointError: an option that is unknown, missing, of a wrong type or out of range.
    """
    if type(options) not in (dict, InertDict):
        source.fail(f"expected a dict, got {shown(options)}", place)
    for key in options:
        if key not in table and key not in known:
            source.fail(f"unknown option {shown(key)}: this is not the published network", place)
    out = {}
    for key, (field, check, default) in table.items():
        value = options.get(key, ABSENT)
        if value is ABSENT:
            if default is ABSENT:
                source.fail("is missing", f"{place}.{key}")
            out[field] = default
        else:
            out[field] = checked(source, f"{place}.{key}", check, value)
    return out
