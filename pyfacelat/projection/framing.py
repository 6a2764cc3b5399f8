"""Photographs among the inputs become FFHQ crops; crops pass as they are."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pyfacelat.errors import ConfigError, LandmarkError, NoFaceError
from pyfacelat.faces.align import AlignedFace, misalignment
from pyfacelat.images import from_uint8, to_pil
from pyfacelat.photographs import FaceFinder
from pyfacelat.projection.inputs import Inputs

FAR = 0.12
"""Mean distance of an image's corners from its FFHQ crop's, in sides, past which it is no crop."""


_SMALLEST = 16  # pixels a side; in less no landmarks can be read


@dataclasses.dataclass(frozen=True)
class Framed:
    """Inputs, and where in photographs they come from.

    Attributes:
        inputs: as aligned as they are going to be.
        looks: for each look the crop that was made of it, or None where it was taken as it is.

    """

    inputs: Inputs
    looks: list[AlignedFace | None]


def check_align(align: object) -> None:
    """Raise ConfigError unless `align` is True, False or "auto"."""
    if align is not True and align is not False and align != "auto":
        raise ConfigError(f'align: expected True, False or "auto", got {align!r}')


def frame_inputs(inputs: Inputs, align: bool | str, finder: FaceFinder, size: int) -> Framed:
    """Crop the faces out of photographs.

    Args:
        inputs: as read.
        align: True crops every image; False none; "auto" those given as pictures or files (not as
            tensors, which are taken for crops) in which the landmarks say that it is none, if a
            detector is there; if not, it warns and takes them as they are.
        finder: finds and reads faces.
        size: of the crops, in pixels.

    Warns:
        UserWarning: an image was cropped, or was not, though it is no FFHQ crop.

    Raises:
        NoFaceError: a photograph has no face, or not the one asked for.
        MissingWeightsError: align is True and the detector's file is not there.

    """
    nothing: list[AlignedFace | None] = [None] * len(inputs)
    if align is False:
        return Framed(inputs, nothing)
    looks = _crops(inputs.look, align, finder, size, "look")
    changes: dict[str, Any] = {"look": _pictures(inputs.look, looks)}
    if inputs.landmark_images is inputs.look:
        changes["landmark_images"] = changes["look"]
    elif inputs.landmark_images is not None:
        targets = _crops(inputs.landmark_images, align, finder, size, "landmarks")
        changes["landmark_images"] = _pictures(inputs.landmark_images, targets)
    if inputs.person is not None:
        persons = _crops(inputs.person, align, finder, size, "person")
        changes["person"] = _pictures(inputs.person, persons)
    if inputs.landmark_points is not None:
        moved = [
            points if crop is None else into_crop(points, crop)
            for points, crop in zip(inputs.landmark_points, looks, strict=True)
        ]
        changes["landmark_points"] = torch.stack(moved)
    return Framed(dataclasses.replace(inputs, **changes), looks)


def _crops(
    images: Sequence[Image.Image | Tensor],
    align: bool | str,
    finder: FaceFinder,
    size: int,
    name: str,
) -> list[AlignedFace | None]:
    """For each image its crop, or None; one that is there several times is cropped once."""
    done: dict[int, AlignedFace | None] = {}
    for index, image in enumerate(images):
        if id(image) not in done:
            label = name if len(images) == 1 else f"{name}[{index}]"
            done[id(image)] = _crop(image, align, finder, size, label)
    return [done[id(image)] for image in images]


def _crop(
    image: Image.Image | Tensor, align: bool | str, finder: FaceFinder, size: int, name: str
) -> AlignedFace | None:
    if align == "auto" and isinstance(image, Tensor):
        return None
    photo = np.asarray(to_pil(image) if isinstance(image, Tensor) else image)
    if align is True:
        return finder.align(photo, size=size, name=name)
    height, width = photo.shape[:2]
    side = min(width, height)
    if side < _SMALLEST:
        return None
    left, top = (width - side) // 2, (height - side) // 2
    quad = np.array([[0, 0], [0, side], [side, side], [side, 0]], np.float64) + [left, top]
    far = misalignment((finder.read(photo, quad, passes=1) - [left, top]) / side)
    if far <= FAR:
        return None
    what = f"{name}: the landmarks in it are not where FFHQ's are ({100 * far:.0f} % of its side)"
    if not finder.has_detector:
        warnings.warn(
            f"{what}; taken as it is, since there is no detector (`pyfacelat fetch s3fd`). "
            "align=False says that it is a crop",
            stacklevel=2,
        )
        return None
    try:
        crop = finder.align(photo, size=size, name=name)
    except NoFaceError as error:
        raise NoFaceError(f"{error}; align=False takes it as it is") from None
    warnings.warn(f"{what}; cropped to the face. align=False takes it as it is", stacklevel=2)
    return crop


def _pictures(
    images: Sequence[Image.Image | Tensor], crops: Sequence[AlignedFace | None]
) -> list[Image.Image | Tensor]:
    return [
        image if crop is None else from_uint8(crop.image)
        for image, crop in zip(images, crops, strict=True)
    ]


def into_crop(points: Tensor, crop: AlignedFace) -> Tensor:
    """Points relative to a photograph's centred square, [68,2], relative to its crop."""
    height, width = crop.photo.shape[:2]
    side = min(width, height)
    corner = np.array([(width - side) // 2, (height - side) // 2])
    inside = crop.to_crop(points.double().numpy() * side + corner) / crop.size
    moved = torch.from_numpy(inside).to(points)
    if float(moved.min()) < -0.5 or float(moved.max()) > 1.5:
        raise LandmarkError("landmarks: the points lie far outside the face that was found")
    return moved
