"""Latents on a plane: two principal components of the flattened rows, with thumbnails."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyfacelat.errors import ConfigError

__all__ = ["plane_chart", "principal_plane"]


def principal_plane(latents: Tensor) -> Tensor:
    """Coordinates along the two directions in which latents differ most.

    Args:
        latents: [N,...] with N >= 3; flattened per item.

    Returns:
        [N,2] float32, centred; each axis' largest coordinate is positive.

    Raises:
        ConfigError: fewer than three latents, or of one number each.
    """
    flat = latents.detach().double().cpu().flatten(1)
    if len(flat) < 3 or flat.shape[1] < 2:
        raise ConfigError(f"latents: expected [N, ...] with N >= 3, got {list(latents.shape)}")
    u, s, _ = torch.linalg.svd(flat - flat.mean(0), full_matrices=False)
    points = u[:, :2] * s[:2]
    largest = points.gather(0, points.abs().argmax(0, keepdim=True))
    signed: Tensor = points * torch.where(largest < 0, -1.0, 1.0)
    return signed.float()


def plane_chart(
    points: Tensor, images: Sequence[np.ndarray[Any, Any]], *, side: int = 800, thumb: int = 64
) -> np.ndarray[Any, Any]:
    """Paste uint8 pictures [R,R,3] at points [N,2] on white, y up; uint8 [side,side,3]."""
    if len(points) != len(images) or not len(images):
        raise ConfigError(f"images: expected one for each of {len(points)} points")
    low, high = points.min(0).values, points.max(0).values
    scale = (side - thumb) / (high - low).clamp_min(1e-12)
    canvas = Image.new("RGB", (side, side), "white")
    for (x, y), image in zip(((points - low) * scale).tolist(), images, strict=True):
        small = Image.fromarray(image).resize((thumb, thumb), Image.Resampling.LANCZOS)
        canvas.paste(small, (round(x), round(side - thumb - y)))
    return np.asarray(canvas)
