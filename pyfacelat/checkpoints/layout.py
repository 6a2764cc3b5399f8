"""What a state dict of a network looks like: names and shapes, and what files call them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from .storages import TensorRecord

__all__ = ["Config", "Layout", "Records", "Shapes", "batch_norm", "conv", "dense"]

Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]
# Tensors by their names in a file, as records or read already.
Records = Mapping[str, TensorRecord | Tensor]


@dataclasses.dataclass(frozen=True)
class Layout:
    """What the state dict in a file is.

    Attributes:
        kind: one of `checkpoint.KINDS`.
        config: fields of the network's config dataclass.
        foreign: our name of a tensor -> its name in the file.
        unused: how the names of entries begin that are of no use here.
    """

    kind: str
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    foreign: Callable[[str], str] = str
    unused: tuple[str, ...] = ()


def dense(out: Shapes, name: str, fan_in: int, fan_out: int) -> None:
    """Add a dense layer with bias."""
    out[f"{name}.weight"] = (fan_out, fan_in)
    out[f"{name}.bias"] = (fan_out,)


def batch_norm(out: Shapes, name: str, width: int) -> None:
    """Add a batch normalisation with running statistics."""
    for part in ("weight", "bias", "running_mean", "running_var"):
        out[f"{name}.{part}"] = (width,)
    out[f"{name}.num_batches_tracked"] = ()


def conv(out: Shapes, name: str, fan_in: int, fan_out: int, size: int, bias: bool = True) -> None:
    """Add a convolution with a square kernel."""
    out[f"{name}.weight"] = (fan_out, fan_in, size, size)
    if bias:
        out[f"{name}.bias"] = (fan_out,)
