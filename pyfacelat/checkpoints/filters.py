"""The FIR filters that StyleGAN2 networks of ours hold as buffers, for files that have none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from .names import expected_tensors

__all__ = ["DEFAULT_TAPS", "outer", "stored_filters"]

DEFAULT_TAPS = (1.0, 3.0, 3.0, 1.0)


def outer(taps: Sequence[float]) -> Tensor:
    """The filter of the given taps, [k, k] float32, with sum 1."""
    line = torch.tensor(taps, dtype=torch.float64)
    return (line[:, None] * line / line.sum().square()).float()


def stored_filters(kind: str, config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our name -> filter, [k, k] float32, of every filter of a network; `config` as of its file."""
    names = [n for n in expected_tensors(kind, config) if n.endswith("resample_filter")]
    own, default = outer(config["resample_filter"]), outer(DEFAULT_TAPS)
    return {name: (own if _resamples(kind, name) else default).clone() for name in names}


def _resamples(kind: str, name: str) -> bool:
    # A layer that does not resample carries the default filter, unused.
    layer = name.split(".")[-2]
    if kind == "stylegan1-generator":
        return True
    if kind == "stylegan2-generator":
        return layer != "conv1"
    return layer in ("conv1", "skip") or layer.startswith("b")
