"""Sample sheets: grids of small images, enlarged so that a person can look at them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

__all__ = ["draw_points", "save_sheet", "to_uint8"]


def to_uint8(images: Tensor) -> Tensor:
    """[N,3,H,W] in [-1,1] -> [N,H,W,3] uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1)


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
    temporary = path.with_suffix(".tmp.png")
    Image.fromarray(sheet).save(temporary)
    os.replace(temporary, path)
    return path
