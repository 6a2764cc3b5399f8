"""What drives an animation, brought to landmarks relative to the generator's picture."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pyfacelat import images, video
from pyfacelat.errors import ImageError, LandmarkError
from pyfacelat.faces.align import (
    AlignedFace,
    crop_quad,
    ffhq_quad,
    misalignment,
    smooth_quads,
    smooth_track,
)
from pyfacelat.faces.landmarks import POINT_FILES, as_points, load_points
from pyfacelat.photographs import FaceFinder, Photo, frames_of
from pyfacelat.projection.framing import FAR, into_crop
from pyfacelat.projection.inputs import check_range, relative_points

_RATE = 30.0


@dataclass(frozen=True)
class Driving:
    """A track that is ready to drive.

    Attributes:
        points: [F,68,2] relative to the picture.
        pictures: the frames it was read from, cropped, uint8 [F,R,R,3]; None for a track of points.
        fps: frames per second.

    """

    points: Tensor
    pictures: NDArray[np.uint8] | None
    fps: float

    def __len__(self) -> int:
        return len(self.points)


class Source:
    """What a caller gave as `driving`, checked as far as that costs nothing.

    Args:
        driving: see `pyfacelat.animate`.
        fps: frames per second; None for the video's own, or 30.

    Raises:
        ImageError, LandmarkError: not one of the kinds that are known.

    """

    def __init__(self, driving: Any, fps: float | None) -> None:
        self._points: Tensor | None = None
        self._side: float | None = None
        self._path: Path | None = None
        self._given: list[Image.Image | Tensor] = []
        self.fps = fps or _RATE
        if fps is not None and not 0 < fps <= 1000:
            raise ImageError(f"fps: expected more than 0, at most 1000, got {fps!r}")
        if isinstance(driving, str | os.PathLike):
            self._from_path(Path(driving), fps)
            return
        self._points = as_points(driving, name="driving")
        if self._points is None:
            self._given = images.read_images(driving, name="driving")

    def _from_path(self, path: Path, fps: float | None) -> None:
        suffix = path.suffix.lower()
        if suffix in POINT_FILES:
            self._points, self._side = load_points(path, name="driving")
            return
        if not path.exists():
            raise ImageError(f"driving: there is no file {path}")
        if path.is_dir():
            next(frames_of(path, name="driving"))  # there is at least one, and it can be read
        elif suffix in images.SUFFIXES:
            self._given = images.read_images(path, name="driving")
            return
        else:
            self.fps = fps or video.frame_rate(path)
        self._path = path

    @property
    def are_tensors(self) -> bool:
        """Whether pictures came as tensors, which are always crops."""
        return bool(self._given) and all(isinstance(image, Tensor) for image in self._given)

    def photos(self) -> Iterator[Photo]:
        """The frames, uint8 [H,W,3], one after the other; may be asked for again."""
        if self._path is not None:
            yield from frames_of(self._path, name="driving")
            return
        for image in self._given:
            yield np.asarray(images.to_pil(image) if isinstance(image, Tensor) else image)

    def read(
        self,
        finder: FaceFinder,
        *,
        align: bool | str,
        size: int,
        look: tuple[int, int],
        look_crop: AlignedFace | None,
        sigma: float,
    ) -> Driving:
        """Points relative to the picture, and crops of the frames.

        Args:
            finder: finds faces and reads landmarks.
            align: True crops every frame to its face, through quads that are smooth in time (a
                track of points is framed by itself); False takes frames as crops, and points as
                pixels of the look; "auto" looks which of the two it is.
            size: of the generator's pictures.
            look: width and height of the look as given.
            look_crop: the crop that was made of the look, or None.
            sigma: of the Gaussian mean over time, in frames.

        Warns:
            UserWarning: "auto" aligned, or did not although it should have.

        Raises:
            NoFaceError: a frame has no face; the message says which.
            LandmarkError: points outside the picture.
            ImageError: a frame cannot be read.

        """
        pictures = None
        if self._points is not None:
            points = self._track(align, look, look_crop)
        else:
            pictures = self._crops(finder, align, size)
            points = torch.cat([_read(finder, p, i) for i, p in enumerate(pictures)])
        smooth = smooth_track(points.double().numpy(), sigma)
        return Driving(torch.from_numpy(smooth).float(), pictures, self.fps)

    def _track(
        self, align: bool | str, look: tuple[int, int], look_crop: AlignedFace | None
    ) -> Tensor:
        assert self._points is not None
        own = self._points.double().numpy()
        if align is True:
            return _framed(own)
        try:
            points = self._relative(look, look_crop)
        except LandmarkError as error:
            if align is False or float(self._points.abs().max()) <= 1.5:
                raise
            warnings.warn(
                f"{error}; framed by themselves, as FFHQ frames faces. align=True does so "
                "without a warning",
                stacklevel=4,
            )
            return _framed(own)
        if align == "auto" and _far(points) > FAR:
            warnings.warn(
                f"driving: the points are not where FFHQ's are ({100 * _far(points):.0f} % of the "
                "picture's side); framed by themselves. align=False takes them as they are",
                stacklevel=4,
            )
            return _framed(own)
        return points

    def _relative(self, look: tuple[int, int], look_crop: AlignedFace | None) -> Tensor:
        """The points as pixels of the look, relative to its square or its crop."""
        assert self._points is not None
        if self._side is not None:
            return check_range(self._points / self._side, "driving", self._side)
        points = relative_points(self._points, look, "driving")
        if look_crop is None:
            return points
        return torch.stack([into_crop(frame, look_crop) for frame in points])

    def _crops(self, finder: FaceFinder, align: bool | str, size: int) -> NDArray[np.uint8]:
        if align is True:
            return self._aligned(finder, size)
        squares = _stack(self.photos(), size)
        if align is False or self.are_tensors:
            return squares
        sample = squares[:: max(1, len(squares) // 5)]
        far = _far(torch.cat([_read(finder, p, i) for i, p in enumerate(sample)]))
        if far <= FAR:
            return squares
        what = (
            "driving: the landmarks in its frames are not where FFHQ's are "
            f"({100 * far:.0f} % of their side)"
        )
        if not finder.has_detector:
            warnings.warn(
                f"{what}; taken as they are, since there is no detector (`pyfacelat fetch s3fd`). "
                "align=False says that they are crops",
                stacklevel=4,
            )
            return squares
        warnings.warn(
            f"{what}; cropped to the face. align=False takes them as they are", stacklevel=4
        )
        return self._aligned(finder, size)

    def _aligned(self, finder: FaceFinder, size: int) -> NDArray[np.uint8]:
        # Twice over the frames, so that only the crops are in memory.
        found = [finder.find(p, name=f"driving: frame {i}") for i, p in enumerate(self.photos())]
        if not found:
            raise ImageError("driving: there are no pictures in it")
        quads = smooth_quads(np.stack([ffhq_quad(points) for points in found]))
        crops = (
            crop_quad(photo, quad, size=size).image
            for photo, quad in zip(self.photos(), quads, strict=True)
        )
        return np.stack(list(crops))


@torch.no_grad()
def _read(finder: FaceFinder, picture: Photo, index: int) -> Tensor:
    """Relative points [1,68,2] that the landmark network sees in a crop."""
    weight = next(finder.landmarker.parameters(), torch.zeros(()))
    image = images.from_uint8(picture)[None].to(weight.device, weight.dtype)
    points, _ = finder.landmarker.points(image)
    if not bool(torch.isfinite(points).all()):
        raise LandmarkError(f"driving: frame {index}: the landmark network sees no face")
    return points.cpu().float()


def _stack(photos: Iterable[Photo], size: int) -> NDArray[np.uint8]:
    """Centred squares, uint8 [F,size,size,3]."""
    squares = [images.center_square(Image.fromarray(photo), size) for photo in photos]
    if not squares:
        raise ImageError("driving: there are no pictures in it")
    return np.stack(squares)


def _framed(points: NDArray[np.float64]) -> Tensor:
    """Points [F,68,2] relative to their own FFHQ crops, smooth in time."""
    quads = smooth_quads(np.stack([ffhq_quad(frame) for frame in points]))
    inside = []
    for frame, quad in zip(points, quads, strict=True):
        basis = np.stack([quad[3] - quad[0], quad[1] - quad[0]])
        inside.append((frame - quad[0]) @ np.linalg.inv(basis))
    return torch.from_numpy(np.stack(inside)).float()


def _far(points: Tensor) -> float:
    """Median over frames of how far they are from the FFHQ crop."""
    return float(np.median([misalignment(frame) for frame in points.double().numpy()]))
