"""Projected latents on disk: .npz with key `w`, plain .npy, and noise maps as .npz.

`projected_w.npz` holds `w` [1|N, num_ws, w_dim] float32, as StyleGAN2-ADA's projector writes it;
`noise.npz` one array per noise map. Files are read without unpickling anything, and never become
larger in memory than a fixed limit.
"""

from __future__ import annotations

import io
import math
import os
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat.errors import CheckpointError
from pyfacelat.files import write_atomically

__all__ = ["load_latents", "load_noise", "normalise_latents", "save_latents", "save_noise"]

PathLike = str | os.PathLike[str]

_MAX_FILE_BYTES = 1 << 30
_MAX_ARRAYS = 1024
_MAX_HEADER_BYTES = 4096
_MAX_NAME_CHARS = 200
_DTYPES = ("<f2", "<f4", "<f8")
_MIN_ALLOWANCE = 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    r"\{'descr': '([^']{1,8})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,12}(?:, \d{1,12})*,?)?)\),? ?\}\s*"
)
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


def normalise_latents(ws: Tensor, *, num_ws: int, w_dim: int) -> Tensor:
    """Bring latents of any of the usual layouts to [N, num_ws, w_dim].

    Args:
        ws: [w_dim] or [1, w_dim] (one W for all layers), [num_ws, w_dim] (one W+), [N, num_ws,
            w_dim] or [N, 1, w_dim]; any float dtype, finite.
        num_ws: rows that the generator reads.
        w_dim: width of a row.

    Returns:
        [N, num_ws, w_dim], float32; a view where rows are repeated.

    Raises:
        ValueError: another shape, or a value that is not finite.
    """
    shape = list(ws.shape)
    if ws.ndim == 1:
        ws = ws[None]
    if ws.ndim == 2:
        ws = ws[None]
    if ws.ndim != 3 or ws.shape[2] != w_dim or ws.shape[1] not in (1, num_ws):
        raise ValueError(
            f"latents: expected [{w_dim}], [1, {w_dim}], [{num_ws}, {w_dim}] or "
            f"[N, {num_ws}, {w_dim}], got {shape}"
        )
    if not bool(torch.isfinite(ws).all()):
        raise ValueError("latents: expected finite values, got NaN or infinity")
    return ws.float().expand(-1, num_ws, -1)


def save_latents(path: PathLike, ws: Tensor) -> None:
    """Write latents, atomically; .npy holds the bare array, everything else an npz with key `w`.

    Args:
        path: the file; its folder must exist.
        ws: [N, num_ws, w_dim], float; stored as float32.

    Raises:
        ValueError: another number of dimensions, or a value that is not finite.
    """
    if ws.ndim != 3:
        raise ValueError(f"ws: expected shape [N, num_ws, w_dim], got {list(ws.shape)}")
    array = _array("ws", ws)
    buffer = io.BytesIO()
    if os.fspath(path).endswith(".npy"):
        np.save(buffer, array, allow_pickle=False)
    else:
        np.savez(buffer, w=array)
    write_atomically(path, buffer.getvalue())


def save_noise(path: PathLike, noise: Mapping[str, Tensor]) -> None:
    """Write noise maps as npz, atomically.

    Args:
        path: the file; its folder must exist.
        noise: name (as in `Generator.noise_names`) -> [H, W] or [N, H, W], float; may be empty.

    Raises:
        ValueError: a name with other characters than letters, digits, `_`, `.` and `-`, or a map
            of another shape or with a value that is not finite.
    """
    arrays = {}
    for name, value in noise.items():
        # Arguments of np.savez cannot be names of arrays.
        if not _NAME.fullmatch(name) or name in ("file", "allow_pickle"):
            raise ValueError(f"noise: {name!r} is no name of a noise map")
        if value.ndim not in (2, 3):
            raise ValueError(f"{name}: expected [H, W] or [N, H, W], got {list(value.shape)}")
        arrays[name] = _array(name, value)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    write_atomically(path, buffer.getvalue())


def load_latents(path: PathLike, *, num_ws: int | None = None, w_dim: int | None = None) -> Tensor:
    """Read latents from .npz (key `w`, or the only array there is) or .npy.

    Args:
        path: the file.
        num_ws: rows that the generator reads; with `w_dim`, the result is [N, num_ws, w_dim].
        w_dim: width of a row.

    Returns:
        float32, finite, in the shape of the file unless `num_ws` and `w_dim` are given.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = _read(path)
    if "" in arrays:
        array = arrays[""]
    elif "w" in arrays:
        array = arrays["w"]
    elif len(arrays) == 1:
        array = next(iter(arrays.values()))
    else:
        names = ", ".join(sorted(arrays)[:5])
        _fail(path, f"has no array called w; there are {len(arrays)}: {names or 'none'}")
    if array.ndim not in (1, 2, 3) or array.size == 0:
        _fail(path, f"latents of shape {list(array.shape)}; expected 1 to 3 dimensions")
    ws = torch.from_numpy(array)
    if num_ws is None or w_dim is None:
        return ws
    try:
        return normalise_latents(ws, num_ws=num_ws, w_dim=w_dim)
    except ValueError as error:
        _fail(path, str(error))


def load_noise(path: PathLike) -> dict[str, Tensor]:
    """Read noise maps: name -> [H, W] or [N, H, W], float32, finite.

    Raises:
        CheckpointError: the file is malformed, too large, or holds something else.
        FileNotFoundError: there is no such file.
    """
    arrays = _read(path)
    for name, array in arrays.items():
        if not name:
            _fail(path, "is a single array; expected an npz with one array for each noise map")
        if array.ndim not in (2, 3):
            _fail(path, f"shape {list(array.shape)}; expected [H, W] or [N, H, W]", name)
    return {name: torch.from_numpy(array) for name, array in arrays.items()}


def _array(name: str, value: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = value.detach().to("cpu", torch.float32).contiguous().numpy()
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got NaN or infinity")
    return array


def _fail(path: PathLike, reason: str, place: str = "") -> NoReturn:
    raise CheckpointError(os.fspath(path), reason, place)


def _read(path: PathLike) -> dict[str, NDArray[np.float32]]:
    """Every array of an npz by name, or the one of an npy under ""."""
    try:
        # O_NONBLOCK: a fifo must not make the reader wait for a writer.
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        raise
    except (OSError, ValueError) as error:
        _fail(path, f"cannot be opened: {getattr(error, 'strerror', None) or error}")
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            _fail(path, "is not a regular file")
        if not 0 < status.st_size <= _MAX_FILE_BYTES:
            _fail(path, f"has {status.st_size} bytes; expected 1 to {_MAX_FILE_BYTES}")
        with os.fdopen(fd, "rb", closefd=False) as file:
            data = file.read(status.st_size)
    finally:
        os.close(fd)
    if data[:6] == _NPY_MAGIC:
        return {"": _parse_npy(path, data, "")}
    if data[:2] == b"PK":
        return _read_npz(path, data)
    _fail(path, "is neither .npz nor .npy")


def _read_npz(path: PathLike, data: bytes) -> dict[str, NDArray[np.float32]]:
    # Random numbers hardly compress; a member that expands a lot is no array of latents.
    allowance = max(_MIN_ALLOWANCE, 8 * len(data))
    out: dict[str, NDArray[np.float32]] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > _MAX_ARRAYS:
                _fail(path, f"{len(members)} members, more than {_MAX_ARRAYS}")
            for member in members:
                name = member.filename.removesuffix(".npy")
                place = f"member {ascii(member.filename[:_MAX_NAME_CHARS])}"
                if name == member.filename or len(name) > _MAX_NAME_CHARS:
                    _fail(path, "is not an array", place)
                if not _NAME.fullmatch(name) or name in out:
                    _fail(path, "a name that is not allowed, or there twice", place)
                if member.flag_bits & 1 or member.compress_type not in _METHODS:
                    _fail(path, "is encrypted, or compressed in an unknown way", place)
                allowance -= member.file_size
                if allowance < 0:
                    _fail(path, "would expand far beyond the size of the file", place)
                with archive.open(member) as file:
                    # One byte more than announced shows a member that says too little.
                    content = file.read(member.file_size + 1)
                if len(content) != member.file_size:
                    _fail(path, "is longer or shorter than announced", place)
                out[name] = _parse_npy(path, content, place)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        _fail(path, f"is a damaged zip archive: {ascii(str(error))[:100]}")
    except (OSError, ValueError, struct.error, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        # zipfile lets these through when offsets in its directory are nonsense.
        _fail(path, f"is a damaged zip archive: {type(error).__name__}")
    return out


def _parse_npy(path: PathLike, data: bytes, place: str) -> NDArray[np.float32]:
    """A float array in numpy's format, versions 1 to 3, as float32."""
    if data[:6] != _NPY_MAGIC or len(data) < 12 or data[6] not in (1, 2, 3) or data[7] != 0:
        _fail(path, "is no array in numpy's format", place)
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_HEADER_BYTES or start > len(data):
        _fail(path, f"a header of {length} bytes", place)
    # Numpy evaluates the header as a Python literal; what it writes has exactly this form.
    match = _NPY_HEADER.fullmatch(data[8 + width : start].decode("latin1"))
    if match is None:
        _fail(path, "a header that numpy does not write for arrays of numbers", place)
    descr, fortran, sides = match.groups()
    if descr not in _DTYPES:
        _fail(path, f"dtype {ascii(descr)}; expected one of {', '.join(_DTYPES)}", place)
    shape = tuple(int(side) for side in sides.replace(",", " ").split())
    dtype = np.dtype(descr)
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data) - start:
        _fail(path, f"{len(data) - start} bytes for shape {list(shape)} of {descr}", place)
    flat = np.frombuffer(data, dtype, offset=start)
    array = flat.reshape(shape, order="F" if fortran == "True" else "C")
    with np.errstate(over="ignore"):  # float64 beyond float32 is caught as infinity
        out: NDArray[np.float32] = np.array(array, np.float32, order="C")
    if not np.isfinite(out).all():
        _fail(path, "has values that are not finite (in float32)", place)
    return out
