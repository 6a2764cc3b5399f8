"""Render procedural faces: images, exact landmarks and, on request, the geometry behind them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import ModuleType
from typing import Any

from numpy.typing import ArrayLike, NDArray

from pyfacelat.procface.params import PARAMS, check_range, matrix

OUTPUTS = ("image", "landmarks", "visibility", "depth", "uv", "normals", "parts")
PART_NAMES = tuple("background skin hair ear neck clothes eye lips mouth brow".split())


# Samples a side; 16 bytes each, so a face takes at most 1 GiB.
_MOST_SAMPLES = 8192


def _load() -> ModuleType:
    from pyfacelat import _native

    expected = [p.name for p in PARAMS]
    if list(_native.face_parameter_names) != expected:
        raise ImportError("pyfacelat._native knows other face parameters: rebuild the package")
    module: ModuleType = _native
    return module


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def render(
    params: ArrayLike,
    size: int = 128,
    supersample: int = 2,
    outputs: Sequence[str] = ("image",),
    threads: int | None = None,
) -> dict[str, NDArray[Any]]:
    """Render faces, framed as FFHQ aligns photographs, from their own landmarks.

    Args:
        params: face parameters [N, Z_DIM] (or one vector), see procface.params.
        size: side of the square image in pixels, 1..4096 and size * supersample <= 8192.
        supersample: samples per pixel and axis for the image, 1..8.
        outputs: any of OUTPUTS. "landmarks" always come, and "visibility" with anything else.
        threads: faces rendered at once; the number of usable cores by default. Results do not
            depend on it.

    Returns:
        dict of arrays:
        "image" uint8 [N, S, S, 3]; "landmarks" float32 [N, 68, 2], x and y in pixels, iBUG order,
        the centre of the first pixel at 0.5; "visibility" float32 [N, 68], 1 where the point lies
        in the frame and nothing hides it; "depth" float32 [N, S, S], distance to the camera along
        its axis in head units (0 = background); "uv" float32 [N, S, S, 2] in [0, 1], fixed to the
        surface; "normals" float32 [N, S, S, 3], unit, x right, y up, z to the camera; "parts"
        uint8 [N, S, S], an index into PART_NAMES. The last four are taken at pixel centres.

    Raises:
        ValueError: wrong shape, non-finite values, a parameter outside its range by more than a
            quarter of it, unknown output, size or supersample out of range.

    """
    array = matrix(params, "params")
    check_range(array)
    if isinstance(outputs, str):
        outputs = (outputs,)
    unknown = [name for name in outputs if name not in OUTPUTS]
    if unknown:
        raise ValueError(f"outputs: unknown {unknown[0]!r}; expected any of {', '.join(OUTPUTS)}")
    for what, value, most in (("size", size, 4096), ("supersample", supersample, 8)):
        if isinstance(value, bool) or int(value) != value or not 1 <= value <= most:
            raise ValueError(f"{what}: expected an integer in 1..{most}, got {value!r}")
    if size * supersample > _MOST_SAMPLES:
        raise ValueError(
            f"size * supersample: expected at most {_MOST_SAMPLES}, got {size} * {supersample}"
        )
    if threads is None:
        threads = _usable_cores()
    if int(threads) < 1:
        raise ValueError(f"threads: expected >= 1, got {threads!r}")
    wanted = dict.fromkeys([*outputs, "landmarks"])
    if set(wanted) != {"landmarks"}:  # landmarks alone need no rasteriser
        wanted["visibility"] = None
    out: dict[str, NDArray[Any]] = _load().render_faces(
        array, int(size), int(supersample), list(wanted), int(threads)
    )
    return out
