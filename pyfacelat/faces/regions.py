"""Parts of the picture by landmarks: the face, and what lies near its features."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from pyfacelat.faces.groups import CLOSED, GROUPS

_FOREHEAD = 0.8  # how far the brows are raised for the face's outline, in eye-to-brow-end distances
_FINE = 4  # the masks are drawn this much larger and averaged


def face_region(points: Tensor, size: int, *, margin: float = 0.0) -> Tensor:
    """The face: inside the jaw line and some way above the brows.

    Args:
        points: [N,68,2] relative: 0 to 1.
        size: side of the masks.
        margin: widen it by this share of the image's side.

    Returns:
        [N,1,size,size] float32 in [0, 1]: the share of each pixel inside the region.
    """
    return _draw(points, size, margin, whole=True)


def landmark_region(points: Tensor, size: int, *, margin: float = 0.03) -> Tensor:
    """What is within `margin` of the landmarks' lines; eyes and mouth filled. As `face_region`."""
    return _draw(points, size, margin, whole=False)


def _draw(points: Tensor, size: int, margin: float, *, whole: bool) -> Tensor:
    masks = []
    for face in points.detach().cpu().double().numpy():
        canvas = Image.new("L", (size * _FINE, size * _FINE))
        pen = ImageDraw.Draw(canvas)
        width = 2 * margin * size * _FINE
        scaled = face * (size * _FINE) - 0.5  # PIL's integer coordinates are pixel centres
        if whole:
            _outline(pen, _face_outline(scaled), width, closed=True, fill=True)
        else:
            for group, indices in GROUPS.items():
                closed = group in CLOSED
                _outline(pen, scaled[list(indices)], width, closed=closed, fill=closed)
        masks.append(np.asarray(canvas.resize((size, size), Image.Resampling.BOX)))
    stacked = torch.from_numpy(np.stack(masks)).float() / 255
    return stacked[:, None].to(points.device)


def _face_outline(points: np.ndarray) -> np.ndarray:
    """Jaw from left to right, then back over the raised brows."""
    brows = points[17:27]
    eyes = points[36:48].mean(0)
    up = eyes - points[30]  # from the tip of the nose
    return np.concatenate([points[:17], (brows + _FOREHEAD * up)[::-1]])


def _outline(
    pen: ImageDraw.ImageDraw, line: np.ndarray, width: float, *, closed: bool, fill: bool
) -> None:
    vertices = [(float(x), float(y)) for x, y in line]
    if fill:
        pen.polygon(vertices, fill=255)
    if width >= 1:
        pen.line(vertices + vertices[:1] if closed else vertices, fill=255, width=round(width))
        for x, y in vertices:  # round joints and ends
            pen.ellipse((x - width / 2, y - width / 2, x + width / 2, y + width / 2), fill=255)
