"""Torch storages and tensors as records: parsed by hand, checked before any view exists.

A storage in a file is raw little-endian data and a type name. A tensor is (storage, offset, size,
stride). `read_legacy` reads torch's stream format from before 1.6, which NVIDIA's pickles embed
once per storage: five pickles (magic number, protocol version, system info, the object, the list of
storage keys), then for every key its number of elements as int64 and its raw data.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .opcodes import Machine
from .records import Global, InertDict, StorageType
from .source import Source, shown

__all__ = [
    "LEGACY_MAGIC",
    "STORAGE_GLOBALS",
    "TENSOR_GLOBALS",
    "Storage",
    "TensorRecord",
    "load_from_bytes",
    "read_legacy",
]

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_DIMS = 8
_MAX_COUNT = 1 << 40

_STORAGE_DTYPES: dict[str, torch.dtype] = {
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}

STORAGE_GLOBALS: dict[tuple[str, str], Global] = {
    ("torch", name): StorageType(f"torch.{name}", dtype) for name, dtype in _STORAGE_DTYPES.items()
}


class Storage:
    """Raw data of tensors: `numel` elements of `dtype`; `data` arrives later in a legacy stream."""

    __slots__ = ("_tensor", "data", "dtype", "key", "numel")

    def __init__(self, key: str, dtype: torch.dtype, numel: int) -> None:
        self.key = key
        self.dtype = dtype
        self.numel = numel
        self.data: memoryview | None = None
        self._tensor: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of raw data."""
        return self.numel * self.dtype.itemsize

    def tensor(self, source: Source, place: str) -> Tensor:
        """The storage as a flat tensor, [numel]; copied out of the file once."""
        if self._tensor is None:
            assert self.data is not None
            source.spend_copied(self.nbytes, place)
            out = torch.empty(self.numel, dtype=self.dtype)
            if self.numel:
                raw = out.view(torch.uint8).numpy()
                raw[:] = np.frombuffer(self.data, np.uint8)
                if self.dtype == torch.bool and raw.max() > 1:
                    source.fail("a boolean that is neither 0 nor 1", place)
            self._tensor = out
        return self._tensor


class TensorRecord:
    """A view of a storage, known to lie inside it and to have no more elements than it."""

    __slots__ = ("offset", "size", "storage", "stride")

    def __init__(
        self, storage: Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...]
    ) -> None:
        self.storage = storage
        self.offset = offset
        self.size = size
        self.stride = stride

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sides; named as a tensor's are."""
        return self.size

    @property
    def dtype(self) -> torch.dtype:
        """Of its values in the file."""
        return self.storage.dtype

    @property
    def numel(self) -> int:
        """Elements of the view."""
        return _product(self.size)

    def materialise(self, source: Source, place: str) -> Tensor:
        """The tensor, contiguous, in the dtype of the file; on "meta" where no data is wanted.

        Raises:
            CheckpointError: the file's tensors add up to more bytes than the file has.
        """
        if not source.values:
            return torch.empty(self.size, dtype=self.storage.dtype, device="meta")
        return self.values(source, place)

    def values(self, source: Source, place: str) -> Tensor:
        """The tensor with its data, also where `source` asks for none.

        Raises:
            CheckpointError: as `materialise`.
        """
        flat = self.storage.tensor(source, place)
        view = torch.as_strided(flat, self.size, self.stride, self.offset)
        if view.is_contiguous() and view.numel() == flat.numel():
            return view
        source.spend_copied(view.numel() * view.element_size(), place)
        return view.clone(memory_format=torch.contiguous_format)


def _product(sides: tuple[int, ...]) -> int:
    out = 1
    for side in sides:
        out *= side
    return out


def _counts(machine: Machine, value: object, what: str) -> tuple[int, ...]:
    if type(value) is not tuple or len(value) > _MAX_DIMS:
        machine.fail(f"a tensor whose {what} is no tuple of at most {_MAX_DIMS} integers")
    for item in value:
        if type(item) is not int or not 0 <= item < _MAX_COUNT:
            machine.fail(f"a tensor with {shown(item)} in its {what}")
    return value


def _rebuild_tensor(machine: Machine, args: tuple[object, ...]) -> TensorRecord:
    """(storage, offset, size, stride[, requires_grad, backward_hooks[, metadata]])."""
    if not 4 <= len(args) <= 7:
        machine.fail(f"a tensor made from {len(args)} arguments")
    storage, offset = args[0], args[1]
    if type(storage) is not Storage:
        machine.fail("a tensor without a storage")
    if type(offset) is not int or not 0 <= offset < _MAX_COUNT:
        machine.fail(f"a tensor at offset {shown(offset)}")
    size, stride = _counts(machine, args[2], "size"), _counts(machine, args[3], "stride")
    if len(args) > 4 and type(args[4]) is not bool:
        machine.fail("a tensor whose requires_grad is no boolean")
    for extra in args[5:]:
        if extra is not None and not (type(extra) in (dict, InertDict) and not extra):
            machine.fail("a tensor with backward hooks or metadata")
    if len(size) != len(stride):
        machine.fail(f"a tensor with {len(size)} sizes and {len(stride)} strides")
    numel = _product(size)
    if numel > storage.numel:
        # Also forbids strides of 0 that make a few bytes look like terabytes.
        machine.fail(f"a tensor of {numel} elements in a storage of {storage.numel}")
    last = offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) if numel else offset
    if last > storage.numel or (numel and last == storage.numel):
        machine.fail(f"a tensor that reaches element {last} of a storage of {storage.numel}")
    return TensorRecord(storage, offset, size, stride)


def _rebuild_parameter(machine: Machine, args: tuple[object, ...]) -> TensorRecord:
    """(tensor, requires_grad, backward_hooks)."""
    if len(args) != 3 or type(args[0]) is not TensorRecord or type(args[1]) is not bool:
        machine.fail("a malformed parameter")
    if type(args[2]) not in (dict, InertDict) or args[2]:
        machine.fail("a parameter with backward hooks")
    return args[0]


TENSOR_GLOBALS: dict[tuple[str, str], Global] = {
    ("torch._utils", "_rebuild_tensor"): Global(
        "torch._utils._rebuild_tensor", call=_rebuild_tensor
    ),
    ("torch._utils", "_rebuild_tensor_v2"): Global(
        "torch._utils._rebuild_tensor_v2", call=_rebuild_tensor
    ),
    ("torch._utils", "_rebuild_parameter"): Global(
        "torch._utils._rebuild_parameter", call=_rebuild_parameter
    ),
}


def storage_of_pid(machine: Machine, pid: object, *, legacy: bool) -> Storage:
    """Check a persistent id ('storage', type, key, location, numel[, None]) of torch.

    Where the tensor used to live (location) has no meaning here; `legacy` ids have a sixth field
    for views of storages, which no known file uses.
    """
    fields = 6 if legacy else 5
    if type(pid) is not tuple or len(pid) != fields or pid[0] != "storage":
        machine.fail("a persistent id that is no torch storage")
    _, kind, key, location, numel = pid[:5]
    if type(kind) is not StorageType:
        machine.fail("a storage of no known type")
    if type(key) is not str or not 0 < len(key) <= 64 or type(location) is not str:
        machine.fail("a storage whose key or location is no short text")
    if type(numel) is not int or not 0 <= numel < _MAX_COUNT:
        machine.fail(f"a storage of {shown(numel)} elements")
    if legacy and pid[5] is not None:
        machine.fail("a storage that is a view of another")
    if numel * kind.dtype.itemsize > len(machine.source.data):
        machine.fail(
            f"a storage of {numel * kind.dtype.itemsize} bytes in a file of "
            f"{len(machine.source.data)}"
        )
    return Storage(key, kind.dtype, numel)


def same_storage(machine: Machine, known: dict[str, Storage], storage: Storage) -> Storage:
    """`storage`, or the one already known under its key, which must agree with it."""
    first = known.setdefault(storage.key, storage)
    if first.dtype != storage.dtype or first.numel != storage.numel:
        machine.fail(f"storage {shown(storage.key)} is described in two different ways")
    return first


def read_legacy(
    source: Source,
    data: memoryview,
    names: dict[tuple[str, str], Global],
    *,
    hints: dict[str, str] | None = None,
    where: str = "",
) -> object:
    """Parse a torch legacy stream that fills `data` exactly.

    Returns:
        The object in its fourth pickle, all storages filled.

    Raises:
        CheckpointError: anything malformed, another byte order, or bytes left over.
    """
    prefix = f"{where}, " if where else ""
    pos = 0

    def part(allowed: dict[tuple[str, str], Global], what: str, persistent=None):  # type: ignore[no-untyped-def]
        nonlocal pos
        machine = Machine(
            source,
            data,
            start=pos,
            names=allowed,
            hints=hints,
            persistent=persistent,
            where=prefix + what,
        )
        value = machine.run()
        pos = machine.pos
        return value

    magic = part({}, "magic number")
    if type(magic) is not int or magic != LEGACY_MAGIC:
        source.fail("is not a torch stream (wrong magic number)", where)
    version = part({}, "protocol version")
    if type(version) is not int or version != _LEGACY_PROTOCOL:
        source.fail(
            f"torch stream of protocol {shown(version)}; known is {_LEGACY_PROTOCOL}", where
        )
    info = part({}, "system info")
    if type(info) is not dict or info.get("little_endian") is not True:
        source.fail("torch stream that is not little-endian", where)

    storages: dict[str, Storage] = {}

    def persistent(machine: Machine, pid: object) -> Storage:
        return same_storage(machine, storages, storage_of_pid(machine, pid, legacy=True))

    value = part(names, "object", persistent)
    keys = part({}, "storage keys")
    if type(keys) is not list or len(keys) != len(storages):
        source.fail(
            f"does not list the keys of its {len(storages)} storages", prefix + "storage keys"
        )
    for key in keys:
        storage = storages.get(key) if type(key) is str else None
        place = f"{prefix}storage {shown(key)}"
        if storage is None or storage.data is not None:
            source.fail("is listed twice or never used", place)
        if len(data) - pos < 8:
            source.fail("its length is missing (truncated?)", place)
        count = int.from_bytes(data[pos : pos + 8], "little")
        pos += 8
        if count != storage.numel:
            source.fail(f"has {count} elements, {storage.numel} were announced", place)
        if len(data) - pos < storage.nbytes:
            source.fail(
                f"needs {storage.nbytes} bytes, {len(data) - pos} are left (truncated?)", place
            )
        storage.data = data[pos : pos + storage.nbytes]
        pos += storage.nbytes
    if pos != len(data):
        source.fail(f"{len(data) - pos} bytes after the end of the stream", where)
    return value


def load_from_bytes(machine: Machine, args: tuple[object, ...]) -> Storage:
    """Stand-in for torch.storage._load_from_bytes: a stream that holds one bare storage.

    The original hands the bytes to an unrestricted unpickler.
    """
    if len(args) != 1 or type(args[0]) is not memoryview:
        machine.fail("a storage that is not made from bytes")
    storage = read_legacy(machine.source, args[0], STORAGE_GLOBALS, where=machine.place())
    if type(storage) is not Storage:
        machine.fail("a storage stream that holds something else")
    return storage
