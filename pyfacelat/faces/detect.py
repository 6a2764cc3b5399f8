"""Where the faces are in a photograph, and which of them is meant.

A detector is any callable from a photograph, uint8 [H,W,3], to what it found: boxes [K,4] (left,
top, right, bottom, in pixels), boxes with a score [K,5], or landmarks [K,68,2]. `S3FDDetector` is
one; a table of known boxes or another package's detector is as good.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from pyfacelat.errors import LandmarkError, NoFaceError
from pyfacelat.faces.groups import NUM_LANDMARKS
from pyfacelat.images import from_uint8
from pyfacelat.nets.s3fd import S3FD

Detector = Callable[[NDArray[np.uint8]], Any]

FaceChoice = Literal["largest", "central", "confident", "only"]
FACE_CHOICES: tuple[str, ...] = get_args(FaceChoice)

_SMALLEST = 16  # pixels a side that the network takes


class S3FDDetector:
    """Faces by S3FD.

    Args:
        net: frozen; runs where its parameters are.
        max_side: larger photographs are shrunk to this many pixels on their longer side first;
            faces of about 16 pixels in what is left are found.
        min_score: probability above which a box counts.
    """

    def __init__(self, net: S3FD, *, max_side: int = 1024, min_score: float = 0.5) -> None:
        self.net = net.eval().requires_grad_(False)
        self.max_side = max_side
        self.min_score = min_score

    def __call__(self, photo: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Boxes [K,5] in pixels of the photograph, most likely first."""
        height, width = photo.shape[:2]
        scale = min(1.0, self.max_side / max(height, width))
        size = tuple(max(_SMALLEST, round(side * scale)) for side in (width, height))
        if size != (width, height):
            photo = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BOX))
        weight = next(self.net.parameters())
        image = from_uint8(photo)[None].to(weight.device, weight.dtype)
        (boxes,) = self.net.detect(image, min_score=self.min_score)
        found = boxes.cpu().double().numpy()
        found[:, [0, 2]] *= width / size[0]
        found[:, [1, 3]] *= height / size[1]
        return np.asarray(found)


def as_detections(found: Any) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """What a detector returned, in one form.

    Args:
        found: boxes [K,4] or [K,5], landmarks [K,68,2] or [68,2], or nothing (None, or empty).

    Returns:
        boxes [K,5] with the score (1 where there was none), and the landmarks [K,68,2] where that
        is what was found.

    Raises:
        LandmarkError: another shape, or values that are not finite.
    """
    if found is None:
        return np.zeros((0, 5)), None
    if isinstance(found, torch.Tensor):
        found = found.detach().cpu().numpy()
    try:
        values = np.asarray(found, np.float64)
    except (ValueError, TypeError) as error:
        raise LandmarkError(f"detector: expected boxes or landmarks ({error})") from None
    if values.size == 0:
        return np.zeros((0, 5)), None
    points = None
    if values.shape[-2:] == (NUM_LANDMARKS, 2) and values.ndim in (2, 3):
        points = values.reshape(-1, NUM_LANDMARKS, 2)
        values = np.concatenate([points.min(1), points.max(1)], axis=1)
    if values.ndim == 1:
        values = values[None]
    if values.ndim != 2 or values.shape[1] not in (4, 5) or not np.isfinite(values).all():
        raise LandmarkError(
            "detector: expected finite boxes [K,4] or [K,5] or landmarks [K,68,2], "
            f"got shape {list(values.shape)}"
        )
    if values.shape[1] == 4:
        values = np.concatenate([values, np.ones((len(values), 1))], axis=1)
    if (values[:, 2:4] <= values[:, :2]).any():
        raise LandmarkError("detector: expected boxes left, top, right, bottom; got an empty one")
    return values, points


def choose_face(
    boxes: ArrayLike, choice: str | int, size: tuple[int, int], *, name: str = "look"
) -> int:
    """Which of several faces is meant.

    Args:
        boxes: [K,5].
        choice: "largest" by area; "central", nearest to the photograph's middle; "confident", of
            the highest score; "only", the one there is; or a number, from left to right.
        size: (width, height) of the photograph.
        name: says in messages which photograph it is.

    Returns:
        its index in `boxes`. Ties go to the first.

    Warns:
        UserWarning: there are several, and which one was not said by number.

    Raises:
        NoFaceError: there is none; or several where one was asked for; or no such number.
    """
    found = np.asarray(boxes, np.float64)
    count = len(found)
    if count == 0:
        raise NoFaceError(f"{name}: no face was found in a photograph of {size[0]} x {size[1]}")
    middles = (found[:, :2] + found[:, 2:4]) / 2
    if isinstance(choice, int):
        if not 0 <= choice < count:
            raise NoFaceError(f"{name}: face {choice} was asked for, and {count} were found")
        return int(np.argsort(middles[:, 0], kind="stable")[choice])
    if count == 1:
        return 0
    if choice == "only":
        raise NoFaceError(f'{name}: face="only" was asked for, and {count} faces were found')
    warnings.warn(
        f"{name}: {count} faces were found; taking the one that is {choice}", stacklevel=3
    )
    sides = found[:, 2:4] - found[:, :2]
    match choice:
        case "central":
            value = -np.linalg.norm(middles - np.array(size) / 2, axis=1)
        case "confident":
            value = found[:, 4]
        case _:
            value = sides.prod(1)
    return int(value.argmax())


def box_quad(box: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
    """The square [4,2] around a box in which FAN is used to seeing a face.

    Its side is 200 / 195 of the box's width and height together, its centre an eighth of the
    height (0.12) above the box's (Bulat and Tzimiropoulos 2017). Corners as in `align.ffhq_quad`.
    """
    left, top, right, bottom = (float(value) for value in box[:4])
    half = 100 / 195 * (right - left + bottom - top)
    x, y = (left + right) / 2, (top + bottom) / 2 - 0.12 * (bottom - top)
    return np.array(
        [[x - half, y - half], [x - half, y + half], [x + half, y + half], [x + half, y - half]]
    )
