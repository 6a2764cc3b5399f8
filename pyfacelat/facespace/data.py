"""The faces that span a face space, from a folder of aligned pictures."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError, ImageError, NoFaceError
from pyfacelat.faces.groups import NUM_LANDMARKS
from pyfacelat.images import load_image

__all__ = ["FaceData", "Kind", "PointsOf", "load_faces", "points_vector"]

Kind = Literal["one-hot", "landmarks"]
PointsOf = Callable[[Tensor], Tensor]
"""One image [3,R,R] in [-1, 1] to the relative points [k,68,2] of the k faces seen in it."""

_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_LANDMARK_UNIT = 1024  # pixels: the published landmarks are of 1024 px pictures


@dataclasses.dataclass
class FaceData:
    """Faces and their vectors.

    Attributes:
        names: N file names without suffix, sorted.
        images: [N,3,R,R] float32 in [-1, 1].
        z: [N,d] float32: rows of the identity for one-hot vectors.
        kind: of z.
        targets: latents [N,L,D] that training starts from; None starts at the generator's mean.
        train_z: z itself is fitted as well.
    """

    names: list[str]
    images: Tensor
    z: Tensor
    kind: Kind = "one-hot"
    targets: Tensor | None = None
    train_z: bool = False

    def __post_init__(self) -> None:
        counts = {len(self.names), len(self.images), len(self.z)}
        if len(counts) != 1 or self.z.ndim != 2 or self.images.ndim != 4:
            raise ConfigError(
                f"data: expected N names, images [N,3,R,R] and z [N,d], got {len(self.names)}, "
                f"{list(self.images.shape)}, {list(self.z.shape)}"
            )

    def __len__(self) -> int:
        return len(self.names)


def load_faces(
    folder: str | os.PathLike[str],
    size: int,
    *,
    z_dims: int | None = None,
    points_of: PointsOf | None = None,
    seed: int = 0,
) -> FaceData:
    """Read a folder of aligned faces, in the order of their names.

    Args:
        folder: every picture in it is a face; other files are left alone.
        size: side that pictures are cropped and resized to: the generator's.
        z_dims: None gives each face an axis of its own. A number gives random vectors of that
            width, which are fitted too. (The published ones start at zero, which has no direction.)
        points_of: with it, z are the 68 landmarks in pixels of a 1024 px picture; pictures in
            which it sees no face, or more than one, are left out, with a warning.
        seed: of random vectors.

    Raises:
        ConfigError: no such folder, or both z_dims and points_of.
        ImageError: no picture, or one that cannot be read.
        NoFaceError: no picture with exactly one face.
    """
    path = Path(folder)
    if not path.is_dir():
        raise ConfigError(f"folder: {path}: expected a folder of pictures")
    if z_dims is not None and points_of is not None:
        raise ConfigError("z_dims: landmarks have 136 numbers; give z_dims or points_of")
    if z_dims is not None and z_dims < 1:
        raise ConfigError(f"z_dims: expected at least 1, got {z_dims}")
    files = sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    if not files:
        raise ImageError(f"folder: {path}: no pictures; known are {', '.join(_SUFFIXES)}")
    names = [file.stem for file in files]
    if len(set(names)) < len(names):
        # Two pictures that differ in their suffix only.
        names = [file.name for file in files]
    images = [load_image(file, size=size) for file in files]
    if points_of is None:
        if z_dims is None:
            return FaceData(names, torch.stack(images), torch.eye(len(files)))
        z = torch.randn(len(files), z_dims, generator=torch.Generator().manual_seed(seed))
        return FaceData(names, torch.stack(images), z, train_z=True)
    found = [points_of(image) for image in images]
    keep = [i for i, points in enumerate(found) if len(points) == 1]
    for i, points in enumerate(found):
        if len(points) != 1:
            warnings.warn(f"{files[i]}: {len(points)} faces seen, left out", stacklevel=2)
    if not keep:
        raise NoFaceError(f"folder: {path}: no picture in which exactly one face is seen")
    return FaceData(
        [names[i] for i in keep],
        torch.stack([images[i] for i in keep]),
        torch.cat([points_vector(found[i]) for i in keep]),
        kind="landmarks",
    )


def points_vector(points: Tensor) -> Tensor:
    """Relative points [N,68,2] as vectors [N,136]: x, y of each in pixels of a 1024 px picture."""
    if points.ndim != 3 or tuple(points.shape[1:]) != (NUM_LANDMARKS, 2):
        raise ConfigError(f"points: expected [N, 68, 2], got {list(points.shape)}")
    return (points.float() * _LANDMARK_UNIT).flatten(1)
