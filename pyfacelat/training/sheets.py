"""Sample sheets: grids of small images, enlarged so that a person can look at them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyfacelat.images import save_png, to_uint8

__all__ = ["draw_points", "save_sheet"]


def draw_points(images: Tensor, points: Tensor, colour: Sequence[float] = (-1, 1, -1)) -> Tensor:
    """Mark relative points [N,68,2] as single pixels in a copy of images [N,3,H,W]."""
    out = images.clone()
    size = images.shape[-1]
    cells = (points * size).long().clamp(0, size - 1)
    for i in range(len(out)):
        out[i, :, cells[i, :, 1], cells[i, :, 0]] = torch.tensor(colour, dtype=out.dtype)[:, None]
    return out


def save_sheet(path: str | os.PathLike[str], rows: Sequence[Tensor], enlarge: int = 2) -> Path:
    """Write rows of images as one PNG.

    Args:
        path: file to write (through a temporary name).
        rows: each [N,3,H,W] in [-1,1], all of one size.
        enlarge: every pixel becomes a square of this side.
    """
    path = Path(path)
    lines = [np.concatenate(list(to_uint8(row).numpy()), axis=1) for row in rows]
    width = max(line.shape[1] for line in lines)
    lines = [np.pad(line, ((0, 0), (0, width - line.shape[1]), (0, 0))) for line in lines]
    sheet = np.concatenate(lines).repeat(enlarge, 0).repeat(enlarge, 1)
    save_png(path, sheet)
    return path
