"""Draw 68 landmarks over an image: nine polylines, or dots."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pyfacelat.faces.groups import CLOSED, GROUPS

COLOUR = (255, 200, 0)


def draw_landmarks(
    image: np.ndarray[Any, Any],
    points: np.ndarray[Any, Any],
    *,
    colour: tuple[int, int, int] = COLOUR,
    width: int = 2,
) -> np.ndarray[Any, Any]:
    """Draw the nine landmark groups as polylines on a copy of an image.

    The lower nose, the eyes and the lips are closed curves, as in the published script.

    Args:
        image: uint8 [H,W,3].
        points: [68,2] pixels, the centre of the first pixel being 0.5.
        colour: red, green, blue, 0..255.
        width: of the lines, in pixels.

    Returns:
        uint8 [H,W,3].
    """
    canvas = Image.fromarray(image)
    pen = ImageDraw.Draw(canvas)
    # PIL's integer coordinates are pixel centres.
    vertices = [(float(x) - 0.5, float(y) - 0.5) for x, y in points]
    for group, indices in GROUPS.items():
        line = [vertices[i] for i in indices]
        pen.line(line + line[:1] if group in CLOSED else line, fill=colour, width=width)
    return np.asarray(canvas)
