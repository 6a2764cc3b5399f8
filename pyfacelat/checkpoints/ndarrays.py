"""Arrays in numpy's pickles, as records and as tensors."""

from __future__ import annotations

import struct

import numpy as np
import torch
from torch import Tensor

from .records import ArrayRecord
from .source import Source, shown
from .storages import Storage, TensorRecord

__all__ = ["array_dtype", "array_tensor", "as_tensor_record"]

_DTYPES: dict[str, torch.dtype] = {
    "b1": torch.bool, "i1": torch.int8, "i2": torch.int16, "i4": torch.int32, "i8": torch.int64,
    "u1": torch.uint8, "f2": torch.float16, "f4": torch.float32, "f8": torch.float64,
}  # fmt: skip


def array_dtype(record: ArrayRecord) -> torch.dtype | None:
    """The torch dtype of an array; None for those that torch lacks or that are never weights."""
    return _DTYPES.get(record.dtype)


def array_tensor(source: Source, record: ArrayRecord, place: str) -> Tensor:
    """An array as a contiguous tensor of its own, in the dtype of the file.

    Raises:
        CheckpointError: a dtype without counterpart, an array that was announced and never filled,
            or more bytes than the file has.
    """
    dtype = array_dtype(record)
    if dtype is None or record.shape is None:
        source.fail(f"an array of {record.dtype or 'nothing'}", place)
    if not source.values:
        return torch.empty(record.shape, dtype=dtype, device="meta")
    source.spend_copied(len(record.data), place)
    flat = np.frombuffer(record.data, np.dtype("<" + record.dtype))
    array = flat.reshape(record.shape, order="F" if record.fortran else "C")
    return torch.from_numpy(np.array(array, order="C"))


def as_tensor_record(source: Source, value: ArrayRecord | float, place: str) -> TensorRecord:
    """An array, or a single number in float32, as the record of a tensor.

    Raises:
        CheckpointError: as `array_tensor`, or a number is beyond the range of float32.
    """
    if not isinstance(value, ArrayRecord):
        storage = Storage(place, torch.float32, 1)
        try:
            storage.data = memoryview(struct.pack("<f", value))
        except OverflowError:
            source.fail(f"is {shown(value)}, which is beyond the range of float32", place)
        return TensorRecord(storage, 0, (), ())
    dtype = array_dtype(value)
    if dtype is None or value.shape is None:
        source.fail(f"an array of {value.dtype or 'nothing'}", place)
    storage = Storage(place, dtype, len(value.data) // dtype.itemsize)
    storage.data = value.data
    strides, step = [], 1
    for side in value.shape if value.fortran else reversed(value.shape):
        strides.append(step)
        step *= side
    return TensorRecord(
        storage, 0, value.shape, tuple(strides if value.fortran else reversed(strides))
    )
