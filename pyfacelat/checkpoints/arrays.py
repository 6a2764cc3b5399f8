"""Files of arrays: latents, directions, noise maps, in the formats in which people share them.

.npy and .npz of numbers; .npy with one pickled dict (np.save of a dict); files of torch.save with a
tensor, or with dicts and lists of tensors. Names of nested dicts are joined by "/". The pickles go
through the same opcode machine as those of networks.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat.errors import CheckpointError

from .checkpoint import check_floating
from .ndarrays import array_dtype, array_tensor
from .opcodes import Machine
from .reading import LEGACY_MAGIC_BYTES
from .records import COMMON_GLOBALS, ArrayRecord, Global, InertDict
from .source import Source, shown
from .storages import TensorRecord
from .torchfile import read_torch_object

__all__ = ["MAX_ARRAY_FILE_BYTES", "pickled_object", "read_arrays"]

MAX_ARRAY_FILE_BYTES = 1 << 30

_MAX_ARRAYS = 1024
_MAX_DEPTH = 4
_MAX_LIST = 1 << 16
_MAX_VISITS = 20_000
_MAX_HEADER_BYTES = 4096
_MAX_NAME_CHARS = 200
_DTYPES = ("<f2", "<f4", "<f8")
_INTEGERS = ("|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8")
_OBJECT = "|O"
_MIN_ALLOWANCE = 64 << 20
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_NPY_MAGIC = b"\x93NUMPY"
_NPY_HEADER = re.compile(
    r"\{'descr': '([^']{1,8})', 'fortran_order': (True|False), "
    r"'shape': \(((?:\d{1,12}(?:, \d{1,12})*,?)?)\),? ?\}\s*"
)
_NAME = re.compile(r"[A-Za-z0-9_.\-]+")


def read_arrays(source: Source, *, integers: bool = False) -> dict[str, Tensor]:
    """Every array of a file by its name; one that stands alone is called "".

    Args:
        source: the file.
        integers: take numpy's arrays of integers as well, as people store points.

    Returns:
        float32 tensors, contiguous and finite, in the order of the file.

    Raises:
        CheckpointError: the file is malformed, too large, or holds anything but arrays of
            floating-point numbers.
    """
    try:
        return _read(source, _DTYPES + _INTEGERS if integers else _DTYPES)
    except MemoryError:
        raise CheckpointError(source.name, "needs more memory than there is") from None


def _read(source: Source, dtypes: tuple[str, ...]) -> dict[str, Tensor]:
    data = source.data
    start = bytes(data[:64])
    if start[:6] == _NPY_MAGIC:
        value = _parse_npy(source, bytes(data), "", dtypes)
        return {"": value} if isinstance(value, Tensor) else _flatten(source, value)
    # An archive of torch.save begins with its pickle.
    torch_zip = start[:2] == b"PK" and b"/data.pkl" in start
    if torch_zip or (start[:1] == b"\x80" and LEGACY_MAGIC_BYTES in start[:24]):
        return _flatten(source, read_torch_object(source))
    if start[:2] == b"PK":
        return _read_npz(source, bytes(data), dtypes)
    source.fail("is neither .npz nor .npy, nor a file of torch.save")


# Pickled values


def _flatten(source: Source, value: object) -> dict[str, Tensor]:
    """Every array in nested dicts and lists, by its path."""
    out: dict[str, Tensor] = {}
    visits = 0

    def visit(place: str) -> None:
        # One container may stand in many places, each of which is walked.
        nonlocal visits
        visits += 1
        if visits > _MAX_VISITS or len(out) >= _MAX_ARRAYS:
            source.fail("more values than files of arrays have", place)

    def add(name: str, value: Any, depth: int) -> None:
        place = f"entry {shown(name)}" if name else ""
        visit(place)
        if type(value) in (dict, InertDict):
            if depth >= _MAX_DEPTH:
                source.fail("deeper nesting than files of arrays have", place)
            for key, item in value.items():
                if type(key) is not str or not 0 < len(key) <= _MAX_NAME_CHARS:
                    source.fail(f"an entry called {shown(key)}", place)
                add(f"{name}/{key}" if name else key, item, depth + 1)
            return
        if type(value) in (list, tuple) and not _is_numbers(value):
            if len(value) > _MAX_ARRAYS:
                source.fail("more values than files of arrays have", place)
            tensors = []
            for i, item in enumerate(value):
                visit(place)
                tensors.append(_tensor(source, item, f"{place}[{i}]"))
            if not tensors or any(x.shape != tensors[0].shape for x in tensors):
                source.fail("a list of nothing, or of arrays of several shapes", place)
            # Pivots [1, num_ws, w_dim] of several pictures become one batch.
            batch = tensors[0].ndim == 3 and len(tensors[0]) == 1
            tensor = torch.cat(tensors) if batch else torch.stack(tensors)
        else:
            tensor = _tensor(source, value, place)
        out[name] = tensor

    add("", value, 0)
    return out


def _is_numbers(value: Any) -> bool:
    return 0 < len(value) <= _MAX_LIST and all(type(item) in (float, int) for item in value)


def _tensor(source: Source, value: Any, place: str) -> Tensor:
    if type(value) is TensorRecord:
        tensor = value.materialise(source, place)
    elif type(value) is ArrayRecord:
        if array_dtype(value) is None:
            source.fail("an array of objects, or of numbers that are no latents", place)
        tensor = array_tensor(source, value, place)
    elif type(value) in (list, tuple) and len(value) <= _MAX_LIST:
        # Paid for before it is looked at: it may stand in many places.
        source.spend_copied(4 * len(value), place)
        if not _is_numbers(value):
            source.fail("a list of something else than numbers", place)
        tensor = torch.tensor([float(x) for x in value], dtype=torch.float64)
    elif type(value) is float:
        tensor = torch.tensor(value, dtype=torch.float64)
    else:
        source.fail(f"is {shown(value)}, not an array", place)
    check_floating(source, place, tensor.dtype)
    tensor = tensor.to(torch.float32)
    if not tensor.is_meta and not bool(torch.isfinite(tensor).all()):
        source.fail("has values that are not finite (in float32)", place)
    return tensor


# numpy's files


def _read_npz(source: Source, data: bytes, dtypes: tuple[str, ...]) -> dict[str, Tensor]:
    # Random numbers hardly compress; a member that expands a lot is no array of latents.
    allowance = max(_MIN_ALLOWANCE, 8 * len(data))
    out: dict[str, Tensor] = {}
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = archive.infolist()
            if len(members) > _MAX_ARRAYS:
                source.fail(f"{len(members)} members, more than {_MAX_ARRAYS}")
            for member in members:
                name = member.filename.removesuffix(".npy")
                place = f"member {ascii(member.filename[:_MAX_NAME_CHARS])}"
                if name == member.filename or len(name) > _MAX_NAME_CHARS:
                    source.fail("is not an array", place)
                if not _NAME.fullmatch(name) or name in out:
                    source.fail("a name that is not allowed, or there twice", place)
                if member.flag_bits & 1 or member.compress_type not in _METHODS:
                    source.fail("is encrypted, or compressed in an unknown way", place)
                allowance -= member.file_size
                if allowance < 0:
                    source.fail("would expand far beyond the size of the file", place)
                with archive.open(member) as file:
                    # One byte more than announced shows a member that says too little.
                    content = file.read(member.file_size + 1)
                if len(content) != member.file_size:
                    source.fail("is longer or shorter than announced", place)
                value = _parse_npy(source, content, place, dtypes)
                if not isinstance(value, Tensor):
                    source.fail("an array of objects", place)
                out[name] = value
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError) as error:
        # NotImplementedError is zipfile's for a version of the format, patched data or an
        # encryption that it does not know; numpy writes none of them.
        source.fail(f"is a damaged zip archive: {ascii(str(error))[:100]}")
    except (OSError, ValueError, struct.error, OverflowError) as error:
        if isinstance(error, CheckpointError):
            raise
        # zipfile lets these through when offsets in its directory are nonsense.
        source.fail(f"is a damaged zip archive: {type(error).__name__}")
    return out


def _parse_npy(source: Source, data: bytes, place: str, dtypes: tuple[str, ...]) -> Tensor | object:
    """An array in numpy's format, versions 1 to 3; a pickled one as what is in it."""
    if data[:6] != _NPY_MAGIC or len(data) < 12 or data[6] not in (1, 2, 3) or data[7] != 0:
        source.fail("is no array in numpy's format", place)
    width = 2 if data[6] == 1 else 4
    length = int.from_bytes(data[8 : 8 + width], "little")
    start = 8 + width + length
    if length > _MAX_HEADER_BYTES or start > len(data):
        source.fail(f"a header of {length} bytes", place)
    # Numpy evaluates the header as a Python literal; what it writes has exactly this form.
    match = _NPY_HEADER.fullmatch(data[8 + width : start].decode("latin1"))
    if match is None:
        source.fail("a header that numpy does not write for arrays of numbers", place)
    descr, fortran, sides = match.groups()
    if descr == _OBJECT and not place:
        return pickled_object(source, memoryview(data), start)
    if descr not in dtypes:
        source.fail(f"dtype {ascii(descr)}; expected one of {', '.join(dtypes)}", place)
    shape = tuple(int(side) for side in sides.replace(",", " ").split())
    dtype = np.dtype(descr)
    if len(shape) > 8 or math.prod(shape) * dtype.itemsize != len(data) - start:
        source.fail(f"{len(data) - start} bytes for shape {list(shape)} of {descr}", place)
    flat = np.frombuffer(data, dtype, offset=start)
    array = flat.reshape(shape, order="F" if fortran == "True" else "C")
    with np.errstate(over="ignore"):  # float64 beyond float32 is caught as infinity
        out = torch.from_numpy(np.array(array, np.float32, order="C"))
    if not source.values:
        return torch.empty(shape, dtype=torch.float32, device="meta")
    if not bool(torch.isfinite(out).all()):
        source.fail("has values that are not finite (in float32)", place)
    return out


def pickled_object(
    source: Source,
    data: memoryview,
    start: int,
    names: Mapping[tuple[str, str], Global] = COMMON_GLOBALS,
) -> object:
    """The one object of an array without axes, as np.save writes a dict.

    Args:
        source: the file.
        data: its content.
        start: where the pickle begins.
        names: what it may refer to.

    Raises:
        CheckpointError: the pickle is malformed or hostile, or holds more than one object.
    """
    machine = Machine(source, data, start=start, names=names, where="pickled array")
    record = machine.run_alone()
    if type(record) is not ArrayRecord or record.shape != () or len(record.items) != 1:
        source.fail("is an array of objects; only a single dict of arrays is read")
    return record.items[0]
