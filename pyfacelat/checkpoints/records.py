"""What a pickle stream may turn into: plain Python values and the inert records defined here.

A record only holds data. Nothing in it is callable from a file except through the constructors
that a reader lists by exact (module, name) pair; see `opcodes.Machine`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .opcodes import Machine

__all__ = [
    "COMMON_GLOBALS",
    "ArrayRecord",
    "DtypeRecord",
    "Global",
    "InertDict",
    "ModuleRecord",
    "NamespaceRecord",
    "NetworkRecord",
    "ObjectRecord",
    "OPTION_GLOBALS",
    "StorageType",
]


class Global:
    """A name that a stream may refer to, and what a call of it means here.

    Attributes:
        name: dotted, for messages.
        call: (machine, args) -> value for REDUCE; None when it cannot be called.
        new: (machine, args) -> value for NEWOBJ; None when it cannot be instantiated.
    """

    __slots__ = ("call", "name", "new")

    def __init__(
        self,
        name: str,
        *,
        call: Callable[[Machine, tuple[Any, ...]], object] | None = None,
        new: Callable[[Machine, tuple[Any, ...]], object] | None = None,
    ) -> None:
        self.name = name
        self.call = call
        self.new = new


class StorageType(Global):
    """A torch storage class, by name. `dtype` is a torch.dtype; None means untyped bytes."""

    __slots__ = ("dtype",)

    def __init__(self, name: str, dtype: Any) -> None:
        super().__init__(name)
        self.dtype = dtype


class InertDict(dict[Any, Any]):
    """A dict that stands for OrderedDict or EasyDict; `origin` says which."""

    __slots__ = ("origin",)

    def __init__(self, origin: str) -> None:
        super().__init__()
        self.origin = origin

    def build(self, machine: Machine, state: object) -> None:
        """Accept what torch attaches to a state dict, and drop it."""
        # torch attaches `_metadata` (module versions) to a state dict; nothing here needs it.
        known = type(state) is dict and len(state) == 1 and "_metadata" in state
        if self.origin != "OrderedDict" or not known:
            machine.fail(f"sets attributes of an {self.origin}")


class ModuleRecord:
    """A torch module as NVIDIA's networks pickle it: class name and attribute dict, no code."""

    __slots__ = ("class_name", "state")

    def __init__(self, class_name: str, state: dict[str, Any]) -> None:
        self.class_name = class_name
        self.state = state


class NamespaceRecord:
    """An `argparse.Namespace`, the command line that training scripts store: its attributes."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: dict[str, Any] = {}

    def build(self, machine: Machine, state: object) -> None:
        """Take the attributes, once."""
        if self.state or type(state) is not dict:
            machine.fail("sets the attributes of a Namespace twice, or not from a dict")
        self.state = state


class NetworkRecord:
    """A TensorFlow-era `dnnlib.tflib.network.Network`: its state dict, no code."""

    __slots__ = ("state",)

    def __init__(self) -> None:
        self.state: dict[str, Any] | None = None

    def build(self, machine: Machine, state: object) -> None:
        """Take the state, once."""
        if self.state is not None or type(state) not in (dict, InertDict):
            machine.fail("sets the state of a Network twice, or not from a dict")
        self.state = state  # type: ignore[assignment]


# numpy type strings -> struct codes; nothing else may occur.
_STRUCT_CODES = {
    "b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q",
    "u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d",
}  # fmt: skip


_OBJECT = "O8"


class DtypeRecord:
    """A numpy dtype: a little-endian number type ("f4", "i8", ...), or objects ("O8")."""

    __slots__ = ("code",)

    def __init__(self, code: str) -> None:
        self.code = code

    @property
    def itemsize(self) -> int:
        """Bytes of one value."""
        return int(self.code[1:])

    def build(self, machine: Machine, state: object) -> None:
        """Check the byte order; (version, order, subdtype, names, fields, size, ...)."""
        ok = (
            type(state) is tuple
            and len(state) >= 8
            and type(state[0]) is int
            and all(field is None for field in state[2:5])
        )
        if not ok:
            machine.fail("a numpy dtype that is not a plain number type")
        if state[1] not in ("<", "|", "="):  # type: ignore[index]
            machine.fail("a numpy dtype that is not little-endian")


class ArrayRecord:
    """A numpy array: shape, type and raw bytes, not turned into an array until it is needed.

    One of objects has `items`, inert values as everything here, instead of data.
    """

    __slots__ = ("data", "dtype", "fortran", "items", "shape")

    def __init__(self) -> None:
        self.items: list[object] = []
        self.shape: tuple[int, ...] | None = None
        self.dtype = ""
        self.fortran = False
        self.data = memoryview(b"")

    def build(self, machine: Machine, state: object) -> None:
        """Take (version, shape, dtype, fortran order, data), once, checked against each other."""
        if self.shape is not None or type(state) is not tuple or len(state) != 5:
            machine.fail("a malformed numpy array")
        version, shape, dtype, fortran, data = state
        if type(version) is not int or type(dtype) is not DtypeRecord or type(fortran) is not bool:
            machine.fail("a malformed numpy array")
        if type(shape) is not tuple or len(shape) > 8:
            machine.fail("a numpy array with a malformed shape")
        count = 1
        for side in shape:
            if type(side) is not int or not 0 <= side < 1 << 40:
                machine.fail("a numpy array with a malformed shape")
            count *= side
        if dtype.code == _OBJECT:
            if type(data) is not list or len(data) != count:
                machine.fail("a malformed numpy array of objects")
            self.shape, self.dtype, self.items = shape, dtype.code, data
            return
        data = _python2_bytes(machine, data)
        if type(data) is not memoryview:
            machine.fail("a malformed numpy array")
        if count * dtype.itemsize != len(data):
            machine.fail(
                f"a numpy array of {count} {dtype.code} values with {len(data)} bytes of data"
            )
        self.shape, self.dtype, self.fortran, self.data = shape, dtype.code, fortran, data


def _python2_bytes(machine: Machine, data: Any) -> Any:
    """Bytes that Python 2 wrote and that happen to be ASCII, which makes them text."""
    if type(data) is not str:
        return data
    machine.source.spend_copied(len(data), machine.place())
    return memoryview(data.encode("latin1"))


class ObjectRecord:
    """An object of a class that a reader lists by name: its attribute dict, no code."""

    __slots__ = ("origin", "state")

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.state: dict[Any, Any] | None = None

    def build(self, machine: Machine, state: object) -> None:
        """Take the attributes, once."""
        if self.state is not None or type(state) not in (dict, InertDict):
            machine.fail(f"sets the attributes of a {self.origin} twice, or not from a dict")
        self.state = state  # type: ignore[assignment]


# Values that BUILD may touch, by exact type.
BUILDABLE = (InertDict, NamespaceRecord, NetworkRecord, ObjectRecord, DtypeRecord, ArrayRecord)


def _ordered_dict(machine: Machine, args: tuple[Any, ...]) -> InertDict:
    out = InertDict("OrderedDict")
    if not args:
        return out
    # Python 2 wrote OrderedDict([[key, value], ...]).
    if len(args) != 1 or type(args[0]) is not list:
        machine.fail("OrderedDict called with something else than a list of pairs")
    machine.spend(len(args[0]))
    for pair in args[0]:
        if type(pair) not in (list, tuple) or len(pair) != 2:
            machine.fail("OrderedDict called with something else than a list of pairs")
        out[machine.key(pair[0])] = pair[1]
    return out


def _set(machine: Machine, args: tuple[Any, ...]) -> set[Any]:
    if not args:
        return set()
    if len(args) != 1 or type(args[0]) is not list:
        machine.fail("set called with something else than a list")
    machine.spend(len(args[0]))
    return {machine.key(item) for item in args[0]}


def _encode(machine: Machine, args: tuple[Any, ...]) -> memoryview:
    """Protocol 2 stores bytes as text: one character per byte."""
    if len(args) != 2 or type(args[0]) is not str or args[1] not in ("latin1", "latin-1"):
        machine.fail("_codecs.encode called with something else than (text, 'latin1')")
    machine.source.spend_copied(len(args[0]), machine.place())
    try:
        return memoryview(args[0].encode("latin1"))
    except UnicodeEncodeError:
        machine.fail("bytes stored as text with characters that are not bytes")


def _empty_bytes(machine: Machine, args: tuple[Any, ...]) -> memoryview:
    if args:
        machine.fail("bytes called with arguments")
    return memoryview(b"")


def _dtype(machine: Machine, args: tuple[Any, ...]) -> DtypeRecord:
    code = args[0] if args else None
    if type(code) is memoryview and len(code) <= 8:
        code = bytes(code).decode("latin1")
    if len(args) not in (1, 3) or type(code) is not str or code not in (*_STRUCT_CODES, _OBJECT):
        machine.fail("a numpy dtype that is not a plain number type")
    return DtypeRecord(code)


def _scalar(machine: Machine, args: tuple[Any, ...]) -> object:
    data = _python2_bytes(machine, args[1]) if len(args) == 2 else None
    dtype = args[0] if args else None
    if (
        not isinstance(data, memoryview)
        or type(dtype) is not DtypeRecord
        or dtype.code == _OBJECT
        or len(data) != dtype.itemsize
    ):
        machine.fail("a malformed numpy scalar")
    return struct.unpack("<" + _STRUCT_CODES[dtype.code], data)[0]


_NDARRAY = Global("numpy.ndarray")


def _array(machine: Machine, args: tuple[Any, ...]) -> ArrayRecord:
    if len(args) != 3 or args[0] is not _NDARRAY:
        machine.fail("numpy's _reconstruct called for something else than a plain array")
    return ArrayRecord()


def _from_buffer(machine: Machine, args: tuple[Any, ...]) -> ArrayRecord:
    """Numpy's form of protocol 5: (data, dtype, shape, order)."""
    if len(args) != 4 or type(args[3]) is not str or args[3] not in ("C", "F"):
        machine.fail("numpy's _frombuffer called with something else than data, dtype and shape")
    out = ArrayRecord()
    out.build(machine, (1, args[2], args[1], args[3] == "F", args[0]))
    return out


def _nothing_but_dict(origin: str) -> Callable[[Machine, tuple[Any, ...]], InertDict]:
    def new(machine: Machine, args: tuple[Any, ...]) -> InertDict:
        if args:
            machine.fail(f"{origin} created with arguments")
        return InertDict(origin)

    return new


def _network(machine: Machine, args: tuple[Any, ...]) -> NetworkRecord:
    if args:
        machine.fail("a Network created with arguments")
    return NetworkRecord()


def _namespace(machine: Machine, args: tuple[Any, ...]) -> NamespaceRecord:
    if args:
        machine.fail("a Namespace created with arguments")
    return NamespaceRecord()


def _common_globals() -> dict[tuple[str, str], Global]:
    ordered = Global("collections.OrderedDict", call=_ordered_dict)
    a_set = Global("builtins.set", call=_set)
    a_bytes = Global("builtins.bytes", call=_empty_bytes)
    scalar = Global("numpy.core.multiarray.scalar", call=_scalar)
    array = Global("numpy.core.multiarray._reconstruct", call=_array)
    buffer = Global("numpy.core.numeric._frombuffer", call=_from_buffer)
    return {
        ("collections", "OrderedDict"): ordered,
        ("__builtin__", "set"): a_set,
        ("builtins", "set"): a_set,
        ("__builtin__", "bytes"): a_bytes,
        ("builtins", "bytes"): a_bytes,
        ("_codecs", "encode"): Global("_codecs.encode", call=_encode),
        ("numpy", "dtype"): Global("numpy.dtype", call=_dtype),
        ("numpy", "ndarray"): _NDARRAY,
        # numpy 2 renamed the module.
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy._core.multiarray", "scalar"): scalar,
        ("numpy.core.multiarray", "_reconstruct"): array,
        ("numpy._core.multiarray", "_reconstruct"): array,
        ("numpy.core.numeric", "_frombuffer"): buffer,
        ("numpy._core.numeric", "_frombuffer"): buffer,
        ("argparse", "Namespace"): Global("argparse.Namespace", new=_namespace),
        ("dnnlib.util", "EasyDict"): Global(
            "dnnlib.util.EasyDict", new=_nothing_but_dict("EasyDict")
        ),
        ("dnnlib.tflib.network", "Network"): Global("dnnlib.tflib.network.Network", new=_network),
    }


COMMON_GLOBALS: Mapping[tuple[str, str], Global] = _common_globals()


def _words(separator: str) -> Callable[[Machine, tuple[Any, ...]], str]:
    """What a path or a device is made from, as one text."""

    def call(machine: Machine, args: tuple[Any, ...]) -> str:
        if len(args) > 64 or any(type(arg) not in (str, int) for arg in args):
            machine.fail("a path or device made from something else than words")
        text = separator.join(str(arg) for arg in args)
        machine.source.spend_copied(len(text), machine.place())
        return text

    return call


# What the options of a training run may hold besides plain values; nobody needs more than its text.
OPTION_GLOBALS: Mapping[tuple[str, str], Global] = {
    ("torch", "device"): Global("torch.device", call=_words(":")),
    **{
        (module, name): Global(f"pathlib.{name}", call=_words("/"))
        for module in ("pathlib", "pathlib._local")
        for name in ("PosixPath", "WindowsPath")
    },
}
