"""Latents as pictures: rendering in small batches, grids with captions, frames of a video."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.images import enlarge, to_uint8

__all__ = ["Renderer", "frames", "render", "sheet"]

_BATCH = 8
_GAP = 4  # pixels between the pictures of a sheet
_CAPTION = 20  # pixels for a line of text


class Renderer(Protocol):
    """A generator, as far as rendering needs one; `nets.stylegan2.Generator` is one."""

    mapping: Any
    synthesis: Any


@torch.no_grad()
def frames(generator: Renderer, ws: Tensor) -> Iterator[np.ndarray[Any, Any]]:
    """Render latents one after the other, a few at a time, with the stored noise.

    Args:
        generator: maps ws to images [n,3,R,R] in about [-1, 1].
        ws: [N,L,D], on any device.

    Yields:
        uint8 [R,R,3], N times.
    """
    like = next(iter(generator.synthesis.parameters()))
    for part in torch.split(ws, _BATCH):
        images = generator.synthesis(part.to(like), noise_mode="const")
        yield from to_uint8(images).cpu().numpy()


def render(generator: Renderer, ws: Tensor) -> np.ndarray[Any, Any]:
    """Render latents [..., L, D] to uint8 [..., R, R, 3]; see `frames`."""
    flat = np.stack(list(frames(generator, ws.flatten(0, -3) if ws.ndim > 2 else ws[None])))
    return flat.reshape(*ws.shape[:-2], *flat.shape[1:])


def sheet(
    rows: Sequence[Sequence[np.ndarray[Any, Any] | None]],
    *,
    captions: Sequence[str] = (),
    labels: Sequence[str] = (),
    side: int = 128,
) -> np.ndarray[Any, Any]:
    """Lay pictures out as a table.

    Args:
        rows: square uint8 images [R,R,3]; None leaves a cell white. Rows may differ in length.
        captions: text above each column.
        labels: text above the first picture of each row; room is made where there are any.
        side: smaller pictures are enlarged to this many pixels.

    Returns:
        uint8 [H,W,3] on white.

    Raises:
        ConfigError: no picture at all.
    """
    pictures = [image for row in rows for image in row if image is not None]
    if not pictures:
        raise ConfigError("rows: expected at least one picture, got none")
    cell = max(side, *(image.shape[0] for image in pictures))
    columns = max(len(row) for row in rows)
    head = _CAPTION if captions else 0
    line = cell + _GAP + (_CAPTION if labels else 0)
    size = (columns * (cell + _GAP) - _GAP, head + len(rows) * line - _GAP)
    canvas = Image.new("RGB", size, "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(13)
    for column, text in enumerate(captions):
        place = (column * (cell + _GAP) + cell // 2, head // 2)
        pen.text(place, text, "black", font, anchor="mm")
    for number, row in enumerate(rows):
        top = head + number * line
        if labels:
            pen.text((0, top + _CAPTION // 2), labels[number], "black", font, anchor="lm")
            top += _CAPTION
        for column, image in enumerate(row):
            if image is not None:
                big = Image.fromarray(enlarge(image, cell))
                canvas.paste(big, (column * (cell + _GAP), top))
    return np.asarray(canvas)
