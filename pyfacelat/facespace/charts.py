"""Pictures about a face space: the weights of a blend as bars, and latents as a scatter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pyfacelat.errors import ConfigError

__all__ = ["scatter", "scatter_chart", "weight_chart"]

_BAR, _SPAN = "#00798c", "#d1495b"
_LINE = 18  # pixels a bar
_LABEL = 110  # pixels for a name
_MARGIN = 20


def weight_chart(
    names: Sequence[str], weights: Sequence[float], *, width: int = 360
) -> np.ndarray[Any, Any]:
    """Bars of the weights of a blend, named; uint8 [H,width,3]. Bars to the left are negative."""
    if len(names) != len(weights) or not names:
        raise ConfigError(f"weights: expected one for each of {len(names)} faces")
    canvas = Image.new("RGB", (width, _LINE * len(names) + 8), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    largest = max(max(map(abs, weights)), 1e-12)
    room = width - _LABEL - 50
    zero = _LABEL + (room // 2 if min(weights) < 0 else 0)
    unit = (room // 2 if min(weights) < 0 else room) / largest
    for row, (name, weight) in enumerate(zip(names, weights, strict=True)):
        top = 4 + row * _LINE
        end = zero + unit * weight
        pen.text((_LABEL - 8, top + _LINE // 2), _short(name), "black", font, anchor="rm")
        pen.rectangle([min(zero, end), top + 3, max(zero, end), top + _LINE - 3], _BAR)
        place = (max(zero, end) + 6, top + _LINE // 2)
        pen.text(place, f"{weight:.2f}", "#555555", font, anchor="lm")
    return np.asarray(canvas)


def scatter(latents: Tensor, *, seed: int = 0) -> Tensor:
    """Random orthogonal projection to the plane: [N,...] to [N,2]; same seed, same plane."""
    flat = latents.detach().float().cpu().flatten(1)
    if flat.shape[1] < 2:
        raise ConfigError(f"latents: expected at least two numbers each, got {flat.shape[1]}")
    draw = torch.randn(flat.shape[1], 2, generator=torch.Generator().manual_seed(seed))
    projected: Tensor = flat @ torch.linalg.qr(draw).Q
    return projected


def scatter_chart(
    points: Tensor, names: Sequence[str] = (), *, side: int = 360
) -> np.ndarray[Any, Any]:
    """Points [N,2] as dots, named where there are names; uint8 [side,side,3], y up."""
    canvas = Image.new("RGB", (side, side), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    low, high = points.min(0).values, points.max(0).values
    unit = (side - 2 * _MARGIN) / max(float((high - low).max()), 1e-12)
    middle = (low + high) / 2
    for number, point in enumerate((points - middle) * unit):
        x, y = side / 2 + float(point[0]), side / 2 - float(point[1])
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], _SPAN)
        if number < len(names):
            pen.text((x + 6, y), _short(names[number]), "black", font, anchor="lm")
    return np.asarray(canvas)


def _short(name: str) -> str:
    return name if len(name) <= 14 else name[:13] + "…"
