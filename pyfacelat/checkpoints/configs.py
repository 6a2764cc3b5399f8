"""The config of a checkpoint as a dataclass: names, types and ranges of its fields checked."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from pyfacelat.errors import CheckpointError

from .checkpoint import Checkpoint

__all__ = ["config_of", "expect_kind"]

# Upper limits of integers; the config classes check the lower ones, and what belongs together.
_LIMITS = {"channel_base": 1 << 24, "num_mapping_layers": 64, "img_channels": 64}
_DEFAULT_LIMIT = 1 << 16

_Config = TypeVar("_Config")
_HINTS: dict[type, dict[str, Any]] = {}


def expect_kind(checkpoint: Checkpoint, kind: str) -> None:
    """Raise CheckpointError unless the checkpoint is of `kind`."""
    if checkpoint.kind != kind:
        raise CheckpointError(checkpoint.file, f"holds a {checkpoint.kind}, expected a {kind}")


def config_of(checkpoint: Checkpoint, kind: str, cls: type[_Config]) -> _Config:
    """Make the config dataclass of a network from what its file says.

    Args:
        checkpoint: as read; its config holds JSON values only.
        kind: what the checkpoint must be.
        cls: the dataclass; fields that the file does not name keep their defaults.

    Raises:
        CheckpointError: another kind, an unknown field, or a value of a wrong type or out of range.
    """
    expect_kind(checkpoint, kind)
    file = checkpoint.file
    hints = _hints(cls)
    fields = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
    for name, value in checkpoint.config.items():
        place = f"config.{ascii(name)[1:-1][:40]}"
        if name not in fields:
            raise CheckpointError(file, f"unknown field; known are {', '.join(fields)}", place)
        if not _fits(value, hints[name]):
            hint = str(hints[name]).replace("collections.abc.", "")
            raise CheckpointError(file, f"expected {hint}, got {ascii(value)[:60]}", place)
        limit = _LIMITS.get(name, _DEFAULT_LIMIT)
        items = value.values() if isinstance(value, dict) else value
        for item in items if isinstance(value, (list, tuple, dict)) else [value]:
            if isinstance(item, int) and item > limit:
                raise CheckpointError(file, f"{item} is more than {limit}", place)
    try:
        return cls(**checkpoint.config)
    except (TypeError, ValueError) as error:
        raise CheckpointError(file, str(error), "config") from None


def _hints(cls: type) -> dict[str, Any]:
    """Types of the fields of a dataclass, once: Python compiles annotations that are strings."""
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def _fits(value: Any, hint: Any) -> bool:
    """Whether a JSON value has the type of a dataclass field."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(value, arg) for arg in args)
    if hint is type(None):
        return value is None
    if hint is float:
        return type(value) in (int, float)
    if origin is tuple:
        return isinstance(value, (list, tuple)) and all(_fits(item, args[0]) for item in value)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        # JSON has only text as keys.
        return isinstance(value, dict) and all(
            str(key).isdecimal() and len(str(key)) < 8 and _fits(item, args[1])
            for key, item in value.items()
        )
    return type(value) is hint
