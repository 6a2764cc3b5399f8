"""Faces out of ordinary photographs: found, read, and cropped as generators know them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from PIL import Image
from torch import Tensor, nn

from pyfacelat import zoo
from pyfacelat.errors import ConfigError, ImageError, LandmarkError
from pyfacelat.faces.align import AlignedFace, align_face, crop_quad, ffhq_quad, smooth_quads
from pyfacelat.faces.detect import (
    FACE_CHOICES,
    Detector,
    S3FDDetector,
    as_detections,
    box_quad,
    choose_face,
)
from pyfacelat.faces.landmarks import as_points
from pyfacelat.images import SUFFIXES, ImageSource, from_uint8, read_images, to_pil
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.video import read_frames

Photo = NDArray[np.uint8]


class FaceFinder:
    """A detector and a landmark network, ready for many photographs.

    Args:
        detector: "auto" or "s3fd" (`zoo.load_detector`, read when the first photograph comes), the
            path of such a network, or a callable; see `faces.detect`.
        landmarker: "auto" or "2dfan4", "sample", a path, a network or a `Landmarker`.
        face: which of several; see `faces.detect.choose_face`.
        device: where networks run that are read here.

    Raises:
        ConfigError: an unknown choice of face.
        CheckpointError, MissingWeightsError: a network file is malformed, or absent.
    """

    def __init__(
        self,
        detector: str | os.PathLike[str] | Detector = "auto",
        landmarker: str | os.PathLike[str] | nn.Module = "auto",
        *,
        face: str | int = "largest",
        device: str | torch.device = "cpu",
    ) -> None:
        check_face(face)
        self.face = face
        self._device = zoo.check_device(device)
        self._given = detector
        self._detector = detector if callable(detector) else None
        if not isinstance(landmarker, nn.Module):
            name = "2dfan4" if landmarker == "auto" else landmarker
            landmarker = zoo.load_landmarker(name, device=self._device)
        if not isinstance(landmarker, Landmarker):
            landmarker = Landmarker(landmarker)
        self.landmarker = landmarker

    @property
    def detector(self) -> Detector:
        """The detector; read from its file on first use."""
        if self._detector is None:
            name = "s3fd" if self._given == "auto" else self._given
            assert not callable(name)
            self._detector = S3FDDetector(zoo.load_detector(name, device=self._device))
        return self._detector

    @property
    def has_detector(self) -> bool:
        """Whether `find` can be called: a detector was given, or its file is there."""
        if self._given != "auto":
            return True
        return any(row.name == "s3fd" and row.found for row in zoo.known_weights())

    def find(self, photo: Photo, *, name: str = "look") -> NDArray[np.float64]:
        """Landmarks [68,2] in pixels of the face that is meant in a photograph uint8 [H,W,3].

        Raises:
            NoFaceError: see `faces.detect.choose_face`.
            LandmarkError: the detector returned something else than boxes or landmarks.
        """
        boxes, points = as_detections(self.detector(photo))
        height, width = photo.shape[:2]
        index = choose_face(boxes, self.face, (width, height), name=name)
        if points is not None:
            return np.asarray(points[index])
        return self.read(photo, box_quad(boxes[index]))

    def find_all(self, photo: Photo) -> list[NDArray[np.float64]]:
        """Landmarks [68,2] in pixels of every face in a photograph uint8 [H,W,3], from the left.

        Raises:
            LandmarkError: the detector returned something else than boxes or landmarks.
        """
        boxes, points = as_detections(self.detector(photo))
        order = np.argsort(boxes[:, 0] + boxes[:, 2], kind="stable")
        if points is not None:
            return [np.asarray(points[i]) for i in order]
        return [self.read(photo, box_quad(boxes[i])) for i in order]

    @torch.no_grad()
    def read(self, photo: Photo, quad: ArrayLike, *, passes: int = 2) -> NDArray[np.float64]:
        """Landmarks [68,2] in pixels, as the network sees them in a part of a photograph.

        Args:
            photo: uint8 [H,W,3].
            quad: the corners of the part, [4,2]; see `faces.align.ffhq_quad`.
            passes: looks; the second and later are at the FFHQ crop of what the one before saw, in
                which the face stands upright.
        """
        size = self.landmarker.size
        weight = next(self.landmarker.parameters(), torch.zeros(()))
        points: NDArray[np.float64] | None = None
        for _ in range(passes):
            corners = quad if points is None else ffhq_quad(points)
            crop = crop_quad(photo, corners, size=size, transform_size=2 * size, padding=False)
            image = from_uint8(crop.image)[None].to(weight.device, weight.dtype)
            found, _ = self.landmarker.points(image)
            points = crop.to_photo(found[0].cpu().double().numpy() * size)
        assert points is not None
        return points

    def align(self, photo: Photo, *, size: int = 1024, name: str = "look") -> AlignedFace:
        """The FFHQ crop of the face that is meant. Raises: as `find`."""
        return align_face(photo, self.find(photo, name=name), size=size)


def check_face(face: object) -> None:
    """Raise ConfigError unless `face` is a way to choose among several."""
    number = isinstance(face, int) and not isinstance(face, bool) and face >= 0
    if not number and face not in FACE_CHOICES:
        raise ConfigError(
            f"face: expected one of {', '.join(FACE_CHOICES)} or a number from 0, got {face!r}"
        )


def align(
    image: ImageSource,
    landmarks: Any = None,
    *,
    size: int = 1024,
    detector: str | os.PathLike[str] | Detector = "auto",
    landmarker: str | os.PathLike[str] | nn.Module = "auto",
    face: str | int = "largest",
    padding: bool = True,
    device: str | torch.device = "cpu",
) -> AlignedFace:
    """Crop a face out of a photograph the way FFHQ does.

    Args:
        image: a path, a PIL image, a uint8 array [H,W,3], or a float tensor [3,H,W] in [-1, 1].
        landmarks: points [68,2] in pixels; None to find the face and read them.
        size: side of the crop, in pixels.
        detector: see `photographs.FaceFinder`, as the next two and `device`.
        landmarker: the landmark network.
        face: which of several faces.
        padding: whether a crop that passes the photograph's edge goes on blurred, or black.
        device: where networks run.

    Returns:
        an `AlignedFace`: `.image`, `.quad`, `.landmarks`, `.paste_back(edited)`.

    Raises:
        ImageError, LandmarkError: bad arguments.
        NoFaceError: there is no face, or not the one asked for.
        MissingWeightsError: a network is needed whose file is not there.
    """
    photo = photo_of(image)
    if landmarks is None:
        points = FaceFinder(detector, landmarker, face=face, device=device).find(
            photo, name="image"
        )
    else:
        given = as_points(landmarks)
        if given is None or len(given) != 1:
            raise LandmarkError("landmarks: expected points [68,2]")
        points = given[0].double().numpy()
    return align_face(photo, points, size=size, padding=padding)


def detect_landmarks(
    image: ImageSource,
    *,
    detector: str | os.PathLike[str] | Detector = "auto",
    landmarker: str | os.PathLike[str] | nn.Module = "auto",
    face: str | int = "largest",
    device: str | torch.device = "cpu",
) -> Tensor:
    """Landmarks of a face in a photograph, [68,2] float32 pixels. Arguments, errors: as `align`."""
    finder = FaceFinder(detector, landmarker, face=face, device=device)
    return torch.from_numpy(finder.find(photo_of(image), name="image")).float()


def align_clip(
    frames: Iterable[Photo],
    landmarks: Sequence[ArrayLike] | None = None,
    *,
    finder: FaceFinder | None = None,
    size: int = 1024,
    centre_sigma: float = 1.0,
    axes_sigma: float = 3.0,
) -> list[AlignedFace]:
    """Crop one face out of the frames of a clip, through quads that are smooth in time.

    Args:
        frames: photographs uint8 [H,W,3], in order.
        landmarks: of each frame, [68,2] pixels; None to find and read them.
        finder: what finds them; None for one with the standard networks.
        size: side of the crops, in pixels.
        centre_sigma: see `faces.align.smooth_quads`, as the next.
        axes_sigma: of size and rotation.

    Returns:
        one `AlignedFace` for each frame, cut out of the frame at full size.

    Raises:
        NoFaceError: a frame has no face; the message says which.
        LandmarkError: not as many landmarks as frames.
    """
    photos = list(frames)
    if landmarks is None:
        finder = finder or FaceFinder()
        landmarks = [finder.find(photo, name=f"frame {i}") for i, photo in enumerate(photos)]
    if len(landmarks) != len(photos):
        raise LandmarkError(f"landmarks: {len(landmarks)}, expected one for each of {len(photos)}")
    if not photos:
        return []
    quads = smooth_quads(
        np.stack([ffhq_quad(points) for points in landmarks]),
        centre_sigma=centre_sigma,
        axes_sigma=axes_sigma,
    )
    return [crop_quad(photo, quad, size=size) for photo, quad in zip(photos, quads, strict=True)]


def natural_order(path: Path) -> list[Any]:
    """A key by which 2.png comes before 10.png."""
    parts = re.split(r"(\d+)", path.name.lower())
    return [int(part) if part.isdigit() else part for part in parts]


def pictures_in(folder: Path, *, name: str = "source") -> list[Path]:
    """The picture files of a folder in natural order. Raises ImageError if there are none."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES]
    if not files:
        raise ImageError(f"{name}: {folder}: there are no pictures in it")
    return sorted(files, key=natural_order)


def frames_of(source: str | os.PathLike[str], *, name: str = "source") -> Iterator[Photo]:
    """Photographs uint8 [H,W,3] of a folder, in natural order, or of a video.

    Raises:
        ImageError: nothing is there, it is no readable video, or there are no pictures in it.
        ImportError: it is a video, and PyAV is not installed.
    """
    path = Path(source)
    if not path.exists():
        raise ImageError(f"{name}: there is no file {path}")
    if not path.is_dir():
        yield from read_frames(path)
        return
    for file in pictures_in(path, name=name):
        yield photo_of(file)


def photo_of(image: ImageSource) -> Photo:
    """One photograph, in any form `load_image` takes, as uint8 [H,W,3]."""
    found = read_images(image, name="image")
    if len(found) != 1:
        raise LandmarkError(f"image: expected one photograph, got {len(found)}")
    (one,) = found
    return np.asarray(one if isinstance(one, Image.Image) else to_pil(one))
