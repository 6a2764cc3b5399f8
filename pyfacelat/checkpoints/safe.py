"""The native format: safetensors, with kind and config as JSON in its metadata.

A file is an 8-byte little-endian header length, a JSON header (name -> dtype, shape, data_offsets)
and the raw data. The metadata entry "pyfacelat" holds {"version": 1, "kind": ..., "config": {...}}.
The reader is written here, not taken from the safetensors package, because it refuses more:
duplicate names, gaps, and anything that is not finite.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat.files import whole_file

from .checkpoint import KINDS, Checkpoint, check_finite
from .source import Source, shown
from .statedicts import identify, take, without_prefix

__all__ = ["METADATA_KEY", "read_safetensors", "write_safetensors"]

METADATA_KEY = "pyfacelat"
_VERSION = 1
_MAX_HEADER_BYTES = 4 << 20
_MAX_TENSORS = 20_000
_MAX_DIMS = 8
_MAX_CONFIG_NODES = 2000
_MAX_CONFIG_DEPTH = 8

_DTYPES: dict[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_NAMES = {dtype: name for name, dtype in _DTYPES.items()}


def _parse_json(source: Source, text: bytes | str, place: str) -> dict[str, Any]:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        out = dict(items)
        if len(out) != len(items):
            raise ValueError("a name occurs twice in one object")
        return out

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is not JSON")

    def integer(digits: str) -> int:
        if len(digits) > 32:  # reading digits takes quadratic time
            raise ValueError(f"an integer of {len(digits)} digits")
        return int(digits)

    try:
        # json guesses the encoding of bytes; this format has one.
        value = json.loads(
            text if isinstance(text, str) else str(text, "utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_int=integer,
        )
    except RecursionError:
        source.fail("JSON that is nested too deeply", place)
    except ValueError as error:  # also UnicodeDecodeError
        source.fail(f"not valid JSON: {shown(str(error))}", place)
    if type(value) is not dict:
        source.fail("not a JSON object", place)
    return dict(value)


def check_config_size(source: Source, config: Mapping[str, Any]) -> None:
    """A config is small and shallow: whoever walks it later need not worry.

    Raises:
        CheckpointError: more than 2,000 values, or nested more than 8 deep.
    """
    todo: list[tuple[Any, int]] = [(config, 0)]
    count = 0
    while todo:
        value, depth = todo.pop()
        count += 1
        if count > _MAX_CONFIG_NODES or depth > _MAX_CONFIG_DEPTH:
            source.fail("more values, or deeper nesting, than any config has", "config")
        if isinstance(value, (list, tuple)):
            todo.extend((item, depth + 1) for item in value)
        elif isinstance(value, dict):
            todo.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, str):
            if len(value) > 4096:
                source.fail(f"a text of {len(value)} characters", "config")
        elif isinstance(value, float) and not math.isfinite(value):
            source.fail("a number that is not finite", "config")
        elif not (value is None or isinstance(value, (bool, int, float))):
            source.fail(f"{shown(value)}, which is not JSON", "config")


def _tensor(source: Source, place: str, entry: Any, data: memoryview, expected: int) -> Tensor:
    """One tensor of the header; it must begin at `expected`."""
    if type(entry) is not dict or entry.keys() != {"dtype", "shape", "data_offsets"}:
        source.fail("expected exactly dtype, shape and data_offsets", place)
    dtype_name, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(dtype_name) if type(dtype_name) is str else None
    if dtype is None:
        source.fail(f"dtype {shown(dtype_name)}; known are {', '.join(_DTYPES)}", place)
    if type(shape) is not list or len(shape) > _MAX_DIMS:
        source.fail(f"a shape that is no list of at most {_MAX_DIMS} integers", place)
    numel = 1
    for side in shape:
        if type(side) is not int or not 0 <= side < 1 << 40:
            source.fail(f"{shown(side)} in its shape", place)
        numel *= side
    if (
        type(offsets) is not list
        or len(offsets) != 2
        or any(type(x) is not int for x in offsets)
        or not 0 <= offsets[0] <= offsets[1] <= len(data)
    ):
        source.fail(
            f"data_offsets that are no range inside of the {len(data)} bytes of data", place
        )
    start, end = offsets
    if end - start != numel * dtype.itemsize:
        source.fail(f"{end - start} bytes for {numel} values of {dtype_name}", place)
    if start != expected:
        source.fail(f"begins at {start}; the tensor before it ends at {expected}", place)
    if not source.values:
        return torch.empty(shape, dtype=dtype, device="meta")
    out = torch.empty(shape, dtype=dtype)
    if numel:
        raw = out.reshape(-1).view(torch.uint8).numpy()
        raw[:] = np.frombuffer(data[start:end], np.uint8)
        if dtype == torch.bool and raw.max() > 1:
            source.fail("a boolean that is neither 0 nor 1", place)
    check_finite(source, place, out)
    return out


def read_safetensors(source: Source) -> Checkpoint:
    """Read a file that `write_safetensors` wrote, or one with the state dict of a known network.

    Raises:
        CheckpointError: the file is malformed, was not written by this package and holds a network
            that is not known, or holds values that are not finite.
    """
    data = source.data
    if len(data) < 8:
        source.fail("is too short for a safetensors file")
    (size,) = struct.unpack_from("<Q", data)
    most = min(_MAX_HEADER_BYTES, len(data) - 8)
    if not 2 <= size <= most:
        source.fail(f"a header of {size} bytes; at most {most} are possible here", "header")
    header = _parse_json(source, bytes(data[8 : 8 + size]), "header")
    body = data[8 + size :]
    metadata = header.pop("__metadata__", {})
    if type(metadata) is not dict or any(type(text) is not str for text in metadata.values()):
        source.fail("expected an object of texts", "__metadata__")
    about = _about(source, metadata.pop(METADATA_KEY)) if METADATA_KEY in metadata else None
    if len(header) > _MAX_TENSORS:
        source.fail(f"{len(header)} tensors, more than {_MAX_TENSORS}", "header")

    def start(item: tuple[str, Any]) -> tuple[int, int]:
        offsets: Any = item[1].get("data_offsets") if type(item[1]) is dict else None
        ok = type(offsets) is list and len(offsets) == 2 and all(type(x) is int for x in offsets)
        return (offsets[0], offsets[1]) if ok else (0, 0)

    tensors: dict[str, Tensor] = {}
    position = 0
    for name, entry in sorted(header.items(), key=start):
        tensor = _tensor(source, f"tensor {shown(name)}", entry, body, position)
        position = entry["data_offsets"][1]
        tensors[name] = tensor
    if position != len(body):
        source.fail(f"{len(body) - position} bytes of data that belong to no tensor", "data")
    if about is None:
        # Somebody's conversion of a state dict: it says as much as the original.
        records = without_prefix(tensors)
        layout = identify(source, records)
        tensors = take(source, records, layout)
        return Checkpoint(
            layout.kind, layout.config, tensors, {"format": "safetensors"}, source.name
        )
    return Checkpoint(*about, tensors, metadata, source.name)


def _about(source: Source, text: str) -> tuple[str, dict[str, Any]]:
    """(kind, config) of a file that this package wrote."""
    about = _parse_json(source, text, f"__metadata__.{METADATA_KEY}")
    if type(about.get("version")) is not int or about["version"] != _VERSION:
        source.fail(f"format version {shown(about.get('version'))}; known is {_VERSION}", "version")
    kind, config = about.get("kind"), about.get("config")
    if type(kind) is not str or kind not in KINDS:
        source.fail(f"kind {shown(kind)}; known are {', '.join(KINDS)}", "kind")
    if type(config) is not dict:
        source.fail("expected an object", "config")
    check_config_size(source, config)
    return kind, config


def write_safetensors(
    path: str | os.PathLike[str],
    kind: str,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    dtype: torch.dtype | None = None,
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write a weight file in the native format, atomically: a temporary file, then a rename.

    Args:
        path: the file; its folder must exist. An existing file is replaced.
        kind: one of `checkpoint.KINDS`, e.g. "stylegan2-generator".
        config: JSON values, e.g. `dataclasses.asdict(generator.config)`.
        tensors: name -> tensor of any device and strides, finite.
        dtype: convert floating-point tensors to this, e.g. torch.float16; None keeps theirs.
        metadata: further texts to store.

    Raises:
        CheckpointError: an unknown kind, a config that is not JSON, a tensor of an unknown dtype,
            or one that is not finite (in `dtype`). Nothing is left behind.
    """
    name = os.fspath(path)
    source = Source(name, b"")
    if kind not in KINDS:
        source.fail(f"kind {shown(kind)}; known are {', '.join(KINDS)}", "kind")
    check_config_size(source, dict(config))
    about = json.dumps({"version": _VERSION, "kind": kind, "config": dict(config)}, allow_nan=False)
    texts = {**(metadata or {}), METADATA_KEY: about}
    header: dict[str, Any] = {"__metadata__": texts}
    offset = 0
    order = sorted(tensors)
    for key in order:
        stored = _stored_dtype(tensors[key], dtype)
        if stored not in _NAMES:
            source.fail(f"dtype {stored} cannot be stored", key)
        end = offset + tensors[key].numel() * stored.itemsize
        shape = list(tensors[key].shape)
        header[key] = {"dtype": _NAMES[stored], "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    # Data begins at a multiple of 8, so that readers may map it.
    text += b" " * (-len(text) % 8)
    if len(text) > _MAX_HEADER_BYTES:
        source.fail(f"a header of {len(text)} bytes; the limit is {_MAX_HEADER_BYTES}", "header")

    with whole_file(name) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key in order:
            value = tensors[key].detach()
            value = value.to("cpu", _stored_dtype(value, dtype)).contiguous()
            check_finite(source, key, value)
            if value.numel():
                file.write(value.reshape(-1).view(torch.uint8).numpy().data)


def _stored_dtype(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype
