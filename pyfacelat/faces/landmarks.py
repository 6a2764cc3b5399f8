"""Landmarks as points and as heat maps, and the way between the two.

Points are (x, y) with the pixel-centre convention: the centre of the first pixel of a row is 0.5,
so a point in an image of side S divided by S lies in [0, 1] whatever the resolution. Functions
here work on such *relative* points; only `load_points` and the public results speak in pixels.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat.checkpoints.arrays import read_arrays
from pyfacelat.checkpoints.source import Source
from pyfacelat.errors import CheckpointError, LandmarkError
from pyfacelat.faces.groups import NUM_LANDMARKS, OUTER_EYE_CORNERS

POINT_FILES = (".json", ".npy", ".npz", ".pts", ".txt")
"""Suffixes that name a file of points rather than an image."""

_MAX_POINT_FILE = 16_000_000  # bytes; 68 points take a few kilobytes, a long track a few megabytes


def heatmaps_to_points(maps: Tensor, *, window: int = 5) -> tuple[Tensor, Tensor]:
    """Decode heat maps to sub-cell points: the centroid of a window around the highest cell.

    Args:
        maps: [N,68,H,W], float; negative values count as zero.
        window: odd side of the window, in cells.

    Returns:
        points [N,68,2] float32, relative; confidence [N,68], the height of the peak.
    """
    count, landmarks, height, width = maps.shape
    flat = maps.detach().float().reshape(count, landmarks, -1)
    confidence, index = flat.max(dim=-1)
    peak_y, peak_x = index // width, index % width

    reach = torch.arange(window, device=maps.device) - window // 2
    y = peak_y[..., None, None] + reach[:, None]  # [N,68,window,1]
    x = peak_x[..., None, None] + reach[None, :]  # [N,68,1,window]
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    cells = (y.clamp(0, height - 1) * width + x.clamp(0, width - 1)).flatten(-2)
    weight = flat.gather(-1, cells).reshape(inside.shape).clamp_min(0) * inside

    total = weight.sum((-2, -1)).clamp_min(1e-12)
    found = weight.sum((-2, -1)) > 1e-12
    mean_x = torch.where(found, (weight * x).sum((-2, -1)) / total, peak_x.float())
    mean_y = torch.where(found, (weight * y).sum((-2, -1)) / total, peak_y.float())
    points = torch.stack([(mean_x + 0.5) / width, (mean_y + 0.5) / height], dim=-1)
    return points, confidence


def points_to_heatmaps(points: Tensor, size: tuple[int, int], *, sigma: float = 1.0) -> Tensor:
    """Draw one Gaussian of height 1 per landmark.

    Args:
        points: [N,68,2] relative.
        size: (H, W) of the maps, in cells.
        sigma: standard deviation in cells.

    Returns:
        [N,68,H,W] float32: exp(-|cell centre - point|^2 / (2 sigma^2)).
    """
    height, width = size
    x = torch.arange(width, device=points.device) + 0.5
    y = torch.arange(height, device=points.device) + 0.5
    along_x = torch.exp(-((x - points[..., :1] * width) ** 2) / (2 * sigma**2))  # [N,68,W]
    along_y = torch.exp(-((y - points[..., 1:] * height) ** 2) / (2 * sigma**2))  # [N,68,H]
    return along_y[..., :, None] * along_x[..., None, :]


def normalised_error(points: Tensor, truth: Tensor, indices: Sequence[int] | None = None) -> Tensor:
    """Mean point-to-point error over the distance of the outer eye corners of the truth (NME).

    Args:
        points: [N,68,2].
        truth: [N,68,2], in the same units.
        indices: of the landmarks that count; None for all.

    Returns:
        [N], a ratio: 0.02 is 2 %.
    """
    left, right = OUTER_EYE_CORNERS
    eyes = (truth[:, left] - truth[:, right]).norm(dim=-1).clamp_min(1e-12)
    error = (points - truth).norm(dim=-1)
    if indices is not None:
        error = error[:, indices]
    mean: Tensor = error.mean(-1)
    return mean / eyes


def as_points(source: Any, *, name: str = "landmarks") -> Tensor | None:
    """Points from an array, tensor or nested list; None when `source` is not of that kind.

    Returns:
        [N,68,2] float32 in the caller's units, or None (an image, a path, ...).

    Raises:
        LandmarkError: it is an array of points, but not of 68 finite ones.
    """
    if isinstance(source, str | os.PathLike):
        return None
    shaped_like_image = getattr(source, "ndim", 0) >= 3 and 3 in (
        source.shape[-1],
        source.shape[-3],
    )
    if isinstance(source, Tensor | np.ndarray):
        if shaped_like_image and source.shape[-1] != 2:
            return None
        if isinstance(source, np.ndarray) and source.dtype == np.uint8:
            return None  # grey image
        values = torch.as_tensor(
            np.asarray(source.detach().cpu() if isinstance(source, Tensor) else source)
        )
    elif (
        isinstance(source, Sequence)
        and source
        and isinstance(source[0], Sequence | np.ndarray | Tensor)
    ):
        try:
            values = torch.as_tensor(np.asarray(source, dtype=np.float64))
        except (ValueError, TypeError, RuntimeError):
            return None
        if values.ndim > 3:
            return None
    else:
        return None
    return check_points(values, name=name)


def as_heatmaps(source: Any, *, name: str = "landmarks") -> Tensor | None:
    """Heat maps from an array or tensor; None when `source` is not of that kind.

    Args:
        source: float [68,h,w] or [N,68,h,w], h and w at least 4.
        name: the argument's name, for error messages.

    Returns:
        [N,68,h,w] float32, or None (an image, points, a path, ...).

    Raises:
        LandmarkError: they are not finite, or one is constant.
    """
    if not isinstance(source, Tensor | np.ndarray) or source.ndim not in (3, 4):
        return None
    if source.shape[-3] != NUM_LANDMARKS or min(source.shape[-2:]) < 4 or 0 in source.shape:
        return None
    maps = torch.as_tensor(source.detach().cpu() if isinstance(source, Tensor) else source)
    if not maps.is_floating_point():
        return None
    maps = maps.to(torch.float32)
    maps = maps[None] if maps.ndim == 3 else maps
    if not bool(torch.isfinite(maps).all()):
        raise LandmarkError(f"{name}: expected finite heat maps, got NaN or infinity")
    flat = (maps.amax((2, 3)) == maps.amin((2, 3))).nonzero()
    if len(flat):
        raise LandmarkError(f"{name}: heat map {flat[0].tolist()} is constant: it has no peak")
    return maps


def check_points(values: Tensor, *, name: str = "landmarks") -> Tensor:
    """Check and shape points. Returns [N,68,2] float32.

    Raises:
        LandmarkError: not numbers, not [68,2] or [N,68,2], NaN or infinity.
    """
    shape = list(values.shape)
    if values.ndim not in (2, 3) or shape[-2:] != [NUM_LANDMARKS, 2] or 0 in shape:
        raise LandmarkError(f"{name}: expected points [68,2] or [N,68,2], got shape {shape}")
    if values.is_complex() or values.dtype == torch.bool:
        raise LandmarkError(f"{name}: expected real numbers, got {values.dtype}")
    points = values.to(torch.float32)
    if not bool(torch.isfinite(points).all()):
        bad = (~torch.isfinite(points)).nonzero()[0].tolist()
        raise LandmarkError(
            f"{name}: expected finite coordinates, got {points[tuple(bad)]} at {bad}"
        )
    return points if points.ndim == 3 else points[None]


def load_points(
    path: str | os.PathLike[str], *, name: str = "landmarks"
) -> tuple[Tensor, float | None]:
    """Read points from `.json`, `.npy`, `.npz` (key `landmarks`), `.pts` (iBUG) or `.txt`.

    A JSON file is either a plain list of 68 pairs, or an object with `points` and, optionally,
    `size`: the side in pixels of the square image that the points refer to.

    Returns:
        [N,68,2] float32 in pixels, and the side of their image if the file says it.

    Raises:
        LandmarkError: absent, unreadable or malformed file, wrong count, NaN.
    """
    path = Path(path)
    name = f"{name}: {path}"
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # checked before opening: a FIFO would block for ever
            raise LandmarkError(f"{name}: expected a regular file")
        if status.st_size > _MAX_POINT_FILE:
            raise LandmarkError(
                f"{name}: expected at most {_MAX_POINT_FILE} bytes, got {status.st_size}"
            )
        size: float | None = None
        if path.suffix == ".json":
            content = json.loads(path.read_text())
            if isinstance(content, dict):
                size = _side(content.get("size"), name)
                content = content.get("points")
            values = np.asarray(content, dtype=np.float64)
        elif path.suffix in (".npy", ".npz"):
            arrays = read_arrays(Source.open(path), integers=True)
            wanted = "landmarks" if path.suffix == ".npz" else ""
            if wanted not in arrays:
                raise LandmarkError(f"{name}: has no array called {wanted}")
            values = arrays[wanted].numpy().astype(np.float64)
        else:
            lines = [line.split("#")[0].strip() for line in path.read_text().splitlines()]
            rows = [line for line in lines if line and line[0] not in "{}" and ":" not in line]
            values = np.asarray([row.replace(",", " ").split() for row in rows], dtype=np.float64)
    except LandmarkError:
        raise
    except OSError as error:
        raise LandmarkError(f"{name}: cannot be read: {error.strerror or error}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        # A CheckpointError names the file, as this does.
        text = f"{error.place} {error.reason}" if isinstance(error, CheckpointError) else str(error)
        reason = ascii(text.strip())
        raise LandmarkError(f"{name}: not a file of 68 points ({reason[1:-1][:300]})") from None
    return check_points(torch.from_numpy(values), name=name), size


def _side(value: object, name: str) -> float | None:
    if value is None:
        return None
    if not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise LandmarkError(f"{name}: size: expected a positive number of pixels, got {value!r}")
    return float(value)
