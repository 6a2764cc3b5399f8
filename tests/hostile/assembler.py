"""Pickle opcodes as functions, for writing streams that no pickler would write."""

from __future__ import annotations

import struct

P2, P3, P4 = b"\x80\x02", b"\x80\x03", b"\x80\x04"
STOP, MARK, NONE, TRUE = b".", b"(", b"N", b"\x88"
REDUCE, BUILD, NEWOBJ, PERSID = b"R", b"b", b"\x81", b"Q"
TUPLE, TUPLE1, TUPLE2, TUPLE3, EMPTY_TUPLE = b"t", b"\x85", b"\x86", b"\x87", b")"
EMPTY_DICT, EMPTY_LIST, EMPTY_SET = b"}", b"]", b"\x8f"
SETITEM, SETITEMS, APPEND, APPENDS, ADDITEMS = b"s", b"u", b"a", b"e", b"\x90"
POP, DUP = b"0", b"2"


def ref(module: str, name: str) -> bytes:
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def stack_ref(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def raw(value: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(value)) + value


def number(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    data = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def put(index: int) -> bytes:
    return b"r" + struct.pack("<I", index)


def get(index: int) -> bytes:
    return b"j" + struct.pack("<I", index)


def many(*values: bytes) -> bytes:
    """A tuple of any length."""
    return MARK + b"".join(values) + TUPLE


def mapping(**items: bytes) -> bytes:
    body = b"".join(text(key) + value for key, value in items.items())
    return EMPTY_DICT + MARK + body + SETITEMS


def call(function: bytes, *args: bytes) -> bytes:
    return function + many(*args) + REDUCE


ORDERED = call(ref("collections", "OrderedDict"))


def stream(
    obj: bytes,
    data: bytes,
    *,
    numel: int,
    magic: int = 0x1950A86A20F9469CFC6C,
    version: int = 1001,
    little: bytes = TRUE,
    keys: bytes | None = None,
    count: int | None = None,
) -> bytes:
    """A torch legacy stream around the pickled object `obj` (without PROTO and STOP)."""
    info = mapping(protocol_version=number(version), little_endian=little, type_sizes=EMPTY_DICT)
    listed = keys if keys is not None else EMPTY_LIST + text("0") + APPEND
    parts = [number(magic), number(version), info, obj, listed]
    pickles = b"".join(P2 + part + STOP for part in parts)
    return pickles + struct.pack("<q", numel if count is None else count) + data


def storage_pid(
    numel: int, kind: str = "FloatStorage", key: str = "0", *, extra: bytes = NONE
) -> bytes:
    body = many(text("storage"), ref("torch", kind), text(key), text("cpu"), number(numel), extra)
    return body + PERSID


def storage(numel: int = 4, data: bytes | None = None) -> bytes:
    """A storage as NVIDIA's pickles hold it."""
    content = stream(
        storage_pid(numel), data if data is not None else bytes(4 * numel), numel=numel
    )
    return call(ref("torch.storage", "_load_from_bytes"), raw(content))


def tensor(
    held: bytes, offset: bytes = number(0), size: bytes = b"", stride: bytes = b"", *more: bytes
) -> bytes:
    size = size or many(number(4))
    stride = stride or many(number(1))
    tail = more or (b"\x89", ORDERED)
    return call(ref("torch._utils", "_rebuild_tensor_v2"), held, offset, size, stride, *tail)


def module(state: bytes, *, version: int = 6, name: str = "Generator", source: str = "") -> bytes:
    meta = mapping(
        type=text("class"),
        version=number(version),
        module_src=text(source),
        class_name=text(name),
        state=state,
    )
    return call(ref("torch_utils.persistence", "_reconstruct_persistent_obj"), meta)


def state(
    parameters: bytes = EMPTY_DICT,
    buffers: bytes = EMPTY_DICT,
    modules: bytes = EMPTY_DICT,
    **more: bytes,
) -> bytes:
    return mapping(_parameters=parameters, _buffers=buffers, _modules=modules, **more)


def file_with(value: bytes, proto: bytes = P3) -> bytes:
    """A file whose G_ema is `value`."""
    return proto + mapping(G_ema=value) + STOP
