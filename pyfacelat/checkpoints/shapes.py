"""Names and shapes of the layers that networks are made of, as torch's modules name them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Config", "Shapes", "batch_norm", "conv", "dense"]

Config = Mapping[str, Any]
Shapes = dict[str, tuple[int, ...]]


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
