"""Maps of noise for files that have none, drawn as the code that goes with them would draw them."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .source import Source

__all__ = ["NOISE_NOTE", "drawn_noise"]

_SEED = 0
_MAX_SIDE = 1024

NOISE_NOTE = f"not in the file; drawn with seed {_SEED}"


def drawn_noise(source: Source, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """N(0, 1) maps from a fixed seed: name -> [H, W] float32.

    Raises:
        CheckpointError: a map of more than 1024 pixels a side: nobody shares such a network, and
            a few bytes could ask for hundreds of megabytes.
    """
    for name, shape in shapes.items():
        if max(shape) > _MAX_SIDE:
            source.fail(
                f"is not in the file, which has no noise; maps are drawn up to {_MAX_SIDE} pixels, "
                f"this one has {max(shape)}",
                name,
            )
    if not source.values:
        return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    random = torch.Generator().manual_seed(_SEED)
    return {name: torch.randn(shape, generator=random) for name, shape in shapes.items()}
