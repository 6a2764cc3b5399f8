"""Photographs to align: smooth colours, dots, or a procedural face set into a scene."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pyfacelat import procface

Array = NDArray[np.float64]


@cache
def face(size: int = 256) -> tuple[NDArray[np.uint8], Array]:
    """A procedural face in its FFHQ frame, and its 68 points."""
    out = procface.render(procface.default(), size, outputs=("image",))
    return out["image"][0], out["landmarks"][0].astype(np.float64)


def similarity(degrees: float, scale: float, shift: tuple[float, float]) -> Array:
    """[2,3]: rotate, scale and shift points (x, y)."""
    c, s = np.cos(np.radians(degrees)) * scale, np.sin(np.radians(degrees)) * scale
    return np.array([[c, -s, shift[0]], [s, c, shift[1]]])


def apply(matrix: Array, points: Array) -> Array:
    return points @ matrix[:, :2].T + matrix[:, 2]


def backdrop(width: int, height: int) -> NDArray[np.uint8]:
    """Smooth colours: what is sampled twice stays what it was."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    waves = [np.sin(x / 37 + k) + np.cos(y / (41 + 5 * k)) for k in range(3)]
    return np.uint8(np.rint(127.5 + 55 * np.stack(waves, -1)))


def photograph(
    matrix: Array, width: int = 480, height: int = 400, size: int = 256
) -> tuple[NDArray[np.uint8], Array]:
    """The face moved by `matrix` into a scene, [H,W,3], and its points there."""
    image, points = face(size)
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))[:2]
    moved = Image.fromarray(image).transform(
        (width, height), Image.Transform.AFFINE, tuple(inverse.flatten()), Image.Resampling.BICUBIC
    )
    where = Image.new("L", (size, size), 255).transform(
        (width, height), Image.Transform.AFFINE, tuple(inverse.flatten())
    )
    scene = Image.fromarray(backdrop(width, height))
    scene.paste(moved, (0, 0), where)
    return np.asarray(scene), apply(matrix, points)


def dots(points: Array, width: int, height: int, radius: float = 3.0) -> NDArray[np.uint8]:
    """One dot for each point, each of its own brightness, on black; sharper than a pixel."""
    factor = 4
    image = Image.new("L", (width * factor, height * factor))
    pen = ImageDraw.Draw(image)
    for index, (x, y) in enumerate(points * factor):
        r = radius * factor
        pen.ellipse((x - r, y - r, x + r, y + r), fill=100 + 2 * index)
    small = np.asarray(image.resize((width, height), Image.Resampling.BOX))
    return np.repeat(small[..., None], 3, axis=2)


def psnr(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> float:
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-12)))
