"""From what a caller gives as look and landmarks to checked tensors, before any work is done."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pyfacelat import images
from pyfacelat.errors import ImageError, LandmarkError
from pyfacelat.faces.landmarks import POINT_FILES, as_heatmaps, as_points, load_points


@dataclass(frozen=True)
class Inputs:
    """Checked inputs of a projection, not yet resized to the generator.

    Attributes:
        look: N images, PIL or [3,H,W] in [-1, 1].
        landmark_images: N images that the landmarks are read from, or None.
        landmark_points: [N,68,2] relative to the cropped square, or None.
        landmark_maps: heat maps [N,68,h,w] of the cropped square, or None.
        person: N images of whoever the results shall be, or None: the looks.

    """

    look: list[Image.Image | Tensor]
    landmark_images: list[Image.Image | Tensor] | None
    landmark_points: Tensor | None
    landmark_maps: Tensor | None = None
    person: list[Image.Image | Tensor] | None = None

    def __len__(self) -> int:
        return len(self.look)

    def look_batch(self, size: int) -> Tensor:
        """The looks as squares [N,3,size,size] in [-1, 1]."""
        return images.stack_squares(self.look, size)

    def landmark_batch(self, size: int) -> Tensor | None:
        """The landmark images as squares [N,3,size,size], or None when points were given."""
        if self.landmark_images is None:
            return None
        return images.stack_squares(self.landmark_images, size)

    def person_batch(self, size: int) -> Tensor | None:
        """The persons as squares [N,3,size,size], or None where they are the looks."""
        return None if self.person is None else images.stack_squares(self.person, size)


def read_inputs(look: Any, landmarks: Any = None, person: Any = None) -> Inputs:
    """Read and check the pictures that `pyfacelat.project` is given.

    Args:
        look: see `images.read_images`.
        landmarks: the same kinds, or points: an array [68,2] or [N,68,2] in pixels of the look
            image as given, or a file of points (`faces.landmarks.POINT_FILES`), or heat maps of it:
            an array [68,h,w] or [N,68,h,w] of floats. None takes the landmarks of the look. One
            image, set of points or stack of maps serves a whole batch of looks.
        person: one image or as many as looks; None is the looks.

    Raises:
        ImageError, LandmarkError: the message starts with the argument's name.

    """
    looks = images.read_images(look, name="look")
    given = _with_landmarks(looks, landmarks)
    if person is None:
        return given
    return dataclasses.replace(given, person=_as_many(person, looks, "person"))


def _with_landmarks(looks: list[Image.Image | Tensor], landmarks: Any) -> Inputs:
    if landmarks is None:
        return Inputs(looks, looks, None)
    maps = as_heatmaps(landmarks)
    if maps is not None:
        if len(maps) not in (1, len(looks)):
            raise LandmarkError(
                f"landmarks: expected 1 or {len(looks)} stacks of heat maps, got {len(maps)}"
            )
        return Inputs(looks, None, None, _repeat(maps, len(looks)))
    points = _points(landmarks, looks)
    if points is not None:
        return Inputs(looks, None, _repeat(points, len(looks)))
    return Inputs(looks, _as_many(landmarks, looks, "landmarks"), None)


def _as_many(
    source: Any, looks: list[Image.Image | Tensor], name: str
) -> list[Image.Image | Tensor]:
    """Images, as many as looks; one serves them all."""
    found = images.read_images(source, name=name)
    if len(found) == 1:
        found = found * len(looks)
    if len(found) != len(looks):
        raise ImageError(f"{name}: expected 1 or {len(looks)} images, got {len(found)}")
    return found


def _points(landmarks: Any, looks: Sequence[Image.Image | Tensor]) -> Tensor | None:
    """Relative points [1 or N,68,2], or None when `landmarks` are images."""
    if isinstance(landmarks, str | os.PathLike) and Path(landmarks).suffix.lower() in POINT_FILES:
        points, side = load_points(landmarks)
        if side is not None:
            return check_range(points / side, "landmarks", side)
    else:
        found = as_points(landmarks)
        if found is None:
            return None
        points = found
    sizes = [_size(image) for image in looks]
    if len(points) not in (1, len(looks)):
        raise LandmarkError(
            f"landmarks: expected 1 or {len(looks)} sets of points, got {len(points)}"
        )
    if len(points) == 1 and len(set(sizes)) > 1:
        raise LandmarkError(
            "landmarks: one set of points in pixels needs looks of one size, "
            f"got {sorted(set(sizes))}; give one set per look"
        )
    pairs = zip(points, sizes, strict=False)
    return torch.cat([relative_points(item[None], size, "landmarks") for item, size in pairs])


def relative_points(points: Tensor, size: tuple[int, int], name: str) -> Tensor:
    """Points [N,68,2] in pixels of an image, relative to its centred square.

    Args:
        points: in pixels.
        size: width and height of the image.
        name: the argument's, for error messages.

    Raises:
        LandmarkError: they are relative already, or far outside the square.
    """
    width, height = size
    side = min(width, height)
    corner = torch.tensor([(width - side) // 2, (height - side) // 2])
    if side > 8 and float(points.abs().max()) <= 1.5:
        raise LandmarkError(
            f"{name}: expected pixels of the look image, got coordinates no larger than "
            f"{float(points.abs().max()):.3g}; multiply relative points by its side, {side}"
        )
    return check_range((points - corner) / side, name, side)


def check_range(points: Tensor, name: str, side: float) -> Tensor:
    """Relative points, unless they are too far outside a square of that side for a face in it."""
    low, high = float(points.min()), float(points.max())
    if low < -0.5 or high > 1.5:
        raise LandmarkError(
            f"{name}: expected pixels of an image of side {side:g}, "
            f"got coordinates from {low * side:.4g} to {high * side:.4g}"
        )
    return points


def _size(image: Image.Image | Tensor) -> tuple[int, int]:
    if isinstance(image, Tensor):
        return int(image.shape[-1]), int(image.shape[-2])
    return image.size


def _repeat(points: Tensor, count: int) -> Tensor:
    return points if len(points) == count else points.expand(count, *points.shape[1:])
