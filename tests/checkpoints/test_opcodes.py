"""The opcode machine reads what pickle reads, and the lessons of earlier readers hold."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

from pyfacelat.checkpoints import opcodes, records, source
from pyfacelat.errors import CheckpointError

VALUES: list[Any] = [
    None,
    True,
    [False, 0, 1, 255, 256, 65535, 65536, -1, -(2**31), 2**31, 2**63, -(2**63), 2**100],
    [0.0, -0.0, 1.5, 1e300, float("inf"), 5e-324],
    ["", "a", "ä€😀", "x" * 300, "y" * 70_000],
    [b"", b"abc", bytes(range(256)), b"z" * 70_000],
    {"a": {"b": [1, (2, (3, (4, 5, 6, 7)))]}, 5: (), "e": {}, "l": []},
    [set(), {"a"}, {1, 2, 3}],
    OrderedDict(a=1, b=OrderedDict()),
    [np.float64(1.5), np.float32(0.1), np.int64(-5), np.bool_(True), np.uint8(200), np.float16(2)],
    list(range(3000)),
    {f"k{i}": i for i in range(3000)},
]


def run(data: bytes) -> Any:
    origin = source.Source("x.pkl", data)
    return opcodes.Machine(origin, origin.data, names=records.COMMON_GLOBALS).run()


def thawed(value: Any) -> Any:
    """Views as bytes, inert dicts as dicts."""
    if isinstance(value, memoryview):
        return bytes(value)
    if isinstance(value, dict):
        return {key: thawed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(thawed(item) for item in value)
    return value


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("index", range(len(VALUES)))
def test_equal_to_pickle(index: int, protocol: int) -> None:
    value = VALUES[index]
    for pickler in (pickle.dumps, pickle._dumps):  # type: ignore[attr-defined]
        assert thawed(run(pickler(value, protocol))) == value


def test_shared_values_stay_shared() -> None:
    shared = [1]
    out = run(pickle.dumps([shared, shared, (shared,)], 4))
    assert out[0] is out[1] is out[2][0]


def test_arrays_stay_bytes() -> None:
    value = np.arange(6, dtype=np.float32).reshape(2, 3)
    for protocol in (2, 3, 4):
        out = run(pickle.dumps(value, protocol))
        assert type(out) is records.ArrayRecord
        assert out.shape == (2, 3) and out.dtype == "f4" and bytes(out.data) == value.tobytes()


def test_bytes_are_views_of_the_file() -> None:
    """Nothing is copied that need not be."""
    origin = source.Source("x", pickle.dumps(b"q" * 1000, 4))
    out = opcodes.Machine(origin, origin.data, names={}).run()
    assert type(out) is memoryview and out.obj is origin.data.obj and out.readonly


def test_refusals_name_file_place_and_reason() -> None:
    with pytest.raises(CheckpointError) as caught:
        run(b"\x80\x03}X\x01\x00\x00\x00acos\nsystem\n.")
    error = caught.value
    assert error.file == "x.pkl"
    assert error.place == "byte 9 (GLOBAL)"
    assert "'system' in module 'os'" in error.reason
    assert str(error) == f"x.pkl: {error.place}: {error.reason}"


def test_shown_is_short_and_printable() -> None:
    shared: Any = []
    for _ in range(100):
        shared = [shared, shared]
    for value in ("a\n\x1b[31m" * 1000, 10**5000, shared, {1: shared}, b"x" * 10**6, None, 1.5):
        text = source.shown(value)
        assert len(text) < 400 and text.isprintable()


def test_reading_does_not_allocate_its_limit(tmp_path: Any) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    assert bytes(source.Source.open(path, max_bytes=1 << 62).data) == b"abc"
    with pytest.raises(CheckpointError, match="more than the limit of 2"):
        source.Source.open(path, max_bytes=2)


def test_names_are_exact_pairs() -> None:
    """Dotted names must not walk attributes, and prefixes must not match."""
    for module, name in [
        ("collections", "OrderedDict.fromkeys"),
        ("collections.OrderedDict", "fromkeys"),
        ("Collections", "OrderedDict"),
        ("collections ", "OrderedDict"),
        ("numpy", "dtype.type"),
        ("", "collections.OrderedDict"),
    ]:
        for data in (
            b"\x80\x02c" + module.encode() + b"\n" + name.encode() + b"\n.",
            b"\x80\x04\x8c" + bytes([len(module)]) + module.encode()
            + b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93.",
        ):  # fmt: skip
            with pytest.raises(CheckpointError, match="no known kind"):
                run(data)
