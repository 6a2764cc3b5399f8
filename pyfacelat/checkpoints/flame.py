"""Files of the FLAME head model as plain arrays, without chumpy, scipy or pickle.

FLAME's generic_model.pkl (Li et al. 2017, "Learning a model of facial shape and expression from 4D
scans") is a pickle of Python 2: a dict of numpy arrays, of chumpy objects around such arrays, and
one scipy sparse matrix. Its landmark embedding is a .npy file around a pickled dict. Both go
through the opcode machine; an object of chumpy is its attribute dict, from which the array is
computed if it is stored, selected, reshaped or transposed.
"""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .arrays import pickled_object
from .opcodes import Machine
from .records import COMMON_GLOBALS, ArrayRecord, Global, InertDict, ObjectRecord
from .source import Source, shown
from .storages import STORAGE_GLOBALS, TENSOR_GLOBALS, TensorRecord, load_from_bytes

__all__ = ["Flame", "read_flame", "read_landmark_embedding"]

Array = npt.NDArray[Any]

_MAX_DENSE = 1 << 20
_MAX_DEPTH = 8
_NPY = re.compile(rb"\{'descr': '\|O', 'fortran_order': (?:False|True), 'shape': \(\), \} *\n")
_ROOT = -1
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{0,63}", re.ASCII)
_PLAIN = (str, int, float, bool, type(None))
# Classes of chumpy that hold an array -> the attribute that is it, or from which it is picked.
_INSIDE = {
    "chumpy Ch": "x",
    "chumpy Select": "a",
    "chumpy Reshape": "a",
    "chumpy transpose": "a",
}


@dataclasses.dataclass(frozen=True)
class Flame:
    """A FLAME model (or another of its family, such as SMPL): V vertices, J joints, F triangles.

    Attributes:
        v_template: mean head, [V, 3], metres.
        shapedirs: directions of identity, then of expression, [V, 3, B].
        posedirs: corrections by pose, [V, 3, 9 * (J - 1)].
        J_regressor: joints from vertices, [J, V], dense.
        weights: of linear blend skinning, [V, J].
        parents: joint each joint hangs on, -1 for the root, [J] int64.
        faces: indices of vertices, [F, 3] int64.
        others: what else the file holds: arrays, texts and numbers. Expressions that only chumpy
            can compute, and containers, are left out.

    Arrays have the file's dtype (float64 in the published files) unless stated.
    """

    v_template: Array
    shapedirs: Array
    posedirs: Array
    J_regressor: Array
    weights: Array
    parents: Array
    faces: Array
    others: dict[str, Array | str | int | float | bool | None]


def read_flame(path: str | os.PathLike[str]) -> Flame:
    """Read generic_model.pkl, or a pickle of the same content without chumpy.

    Raises:
        CheckpointError: the file is malformed or hostile, an entry is missing, of a wrong shape or
            dtype, or not finite, or refers to a vertex or joint that is not there.
        FileNotFoundError: there is no such file.
    """
    source = Source.open(path)
    machine = Machine(source, source.data, names=_GLOBALS)
    values = _entries(source, machine.run_alone())
    arrays = {name: _required(source, values, name) for name in _NAMES}
    rest = {name: value if type(value) in _PLAIN else _array(source, value, name)
            for name, value in values.items()
            if name not in _NAMES and (type(value) in _PLAIN or _is_stored(value))}  # fmt: skip
    vertices, joints = arrays["v_template"].shape[0], arrays["kintree_table"].shape[-1]
    shapes: dict[str, tuple[int | None, ...]] = {
        "v_template": (vertices, 3),
        "shapedirs": (vertices, 3, None),
        "posedirs": (vertices, 3, 9 * (joints - 1)),
        "J_regressor": (joints, vertices),
        "weights": (vertices, joints),
        "kintree_table": (2, joints),
        "f": (None, 3),
    }
    for name, expected in shapes.items():
        found = arrays[name].shape
        fits = len(found) == len(expected) and all(
            want in (None, have) for want, have in zip(expected, found, strict=True)
        )
        if not fits:
            wanted = ", ".join("any" if side is None else str(side) for side in expected)
            source.fail(f"has shape {list(found)}, expected [{wanted}]", name)
    faces, tree = (_integers(source, arrays[name], name) for name in ("f", "kintree_table"))
    if faces.size and not (0 <= faces.min() and faces.max() < vertices):
        source.fail(f"refers to vertices outside of 0 to {vertices - 1}", "f")
    parents = tree[0].copy()
    parents[:1] = _ROOT  # 4294967295 or -1 in files
    if any(not 0 <= parent < joint for joint, parent in enumerate(parents.tolist()) if joint):
        source.fail("a joint does not hang on an earlier one", "kintree_table")
    for name, array in arrays.items():
        if name not in ("f", "kintree_table"):
            _check_float(source, array, name)
    return Flame(
        **{name: arrays[name] for name in _FLOATS}, parents=parents, faces=faces, others=rest
    )


_FLOATS = ("v_template", "shapedirs", "posedirs", "J_regressor", "weights")
_NAMES = (*_FLOATS, "kintree_table", "f")

# Name in a landmark embedding -> its last axes.
_EMBEDDING = {
    "static_lmk_faces_idx": (),
    "static_lmk_bary_coords": (3,),
    "dynamic_lmk_faces_idx": (),
    "dynamic_lmk_bary_coords": (3,),
    "full_lmk_faces_idx": (),
    "full_lmk_bary_coords": (3,),
}


def read_landmark_embedding(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read landmark_embedding.npy of DECA: where landmarks lie on FLAME's triangles.

    Returns:
        For the static, dynamic and full sets, `*_lmk_faces_idx` [...] int64, triangles, and
        `*_lmk_bary_coords` [..., 3], barycentric coordinates; sets that the file lacks are left
        out.

    Raises:
        CheckpointError: the file is malformed or hostile, or an entry does not fit.
        FileNotFoundError: there is no such file.
    """
    source = Source.open(path)
    start = bytes(source.data[:256])
    size = int.from_bytes(start[8:10], "little") if start[:8] == b"\x93NUMPY\x01\x00" else 0
    if not _NPY.fullmatch(start[10 : 10 + size]):
        source.fail("is not a .npy file with one pickled object")
    values = _entries(source, pickled_object(source, source.data, 10 + size, _GLOBALS))
    out: dict[str, Array] = {}
    for name, axes in _EMBEDDING.items():
        if name not in values:
            continue
        array = _required(source, values, name)
        out[name] = _integers(source, array, name) if not axes else array
        if axes:
            _check_float(source, array, name)
            indices = out.get(name.replace("bary_coords", "faces_idx"))
            if indices is None or array.shape != (*indices.shape, 3):
                source.fail(f"has shape {list(array.shape)}, which does not fit its indices", name)
    unknown = [name for name in values if name not in _EMBEDDING]
    if unknown or not out:
        source.fail(
            f"is no landmark embedding of FLAME; it holds {shown(unknown[0]) if unknown else '{}'}"
        )
    return out


# From records to arrays


def _entries(source: Source, top: object) -> dict[str, Any]:
    """The top dict's entries, named by text."""
    if type(top) not in (dict, InertDict):
        source.fail(f"holds {shown(top)}, not a dict of arrays")
    out: dict[str, Any] = {}
    for name, value in top.items():  # type: ignore[attr-defined]
        if type(name) is not str:
            source.fail(f"an entry called {shown(name)}")
        out[name] = value
    return out


def _required(source: Source, values: Mapping[str, Any], name: str) -> Array:
    if name not in values:
        source.fail("is missing", name)
    return _array(source, values[name], name)


def _is_stored(value: object) -> bool:
    """Whether an array is in the file, rather than a rule by which chumpy computes it."""
    for _ in range(_MAX_DEPTH):
        if type(value) is not ObjectRecord or value.state is None:
            return type(value) in (ArrayRecord, TensorRecord)
        if value.origin.startswith("scipy"):
            return True
        value = value.state.get(_INSIDE.get(value.origin, ""))
    return False


def _array(source: Source, value: object, place: str, depth: int = 0) -> Array:
    """What a numpy array, torch tensor, chumpy object or scipy sparse matrix stands for."""
    if depth > _MAX_DEPTH:
        source.fail("chumpy objects in chumpy objects, too deeply", place)
    if type(value) is ArrayRecord and value.shape is not None and value.dtype != "O8":
        source.spend_copied(len(value.data), place)
        flat = np.frombuffer(value.data, np.dtype("<" + value.dtype))
        return np.array(flat.reshape(value.shape, order="F" if value.fortran else "C"), order="C")
    if type(value) is TensorRecord:
        tensor: Array = value.materialise(source, place).numpy()
        return tensor
    if type(value) is not ObjectRecord or value.state is None:
        source.fail(f"is {shown(value)}, not an array", place)
    state, kind = value.state, value.origin

    def part(name: str) -> Array:
        return _array(source, state.get(name), f"{place}.{name}", depth + 1)

    if kind.startswith("scipy"):
        return _dense(source, kind, state, part, place)
    if kind not in _INSIDE:
        source.fail(f"is a {kind}, which is computed from other arrays, not stored", place)
    inner = part(_INSIDE[kind])
    if kind == "chumpy Ch":
        return inner
    source.spend_copied(inner.nbytes, place)
    try:
        if kind == "chumpy Select":
            indices = _integers(source, part("idxs"), f"{place}.idxs")
            source.spend_copied(indices.size * inner.itemsize, place)
            picked: Array = inner.reshape(-1)[indices]
            shape = state.get("preferred_shape")
            return picked if shape is None else picked.reshape(_axes(source, shape, place))
        if kind == "chumpy Reshape":
            shaped: Array = inner.reshape(_axes(source, state.get("newshape"), place))
            return shaped
        axes = state.get("axes")
        order = None if axes is None else _axes(source, axes, place)
        return np.ascontiguousarray(inner.transpose(order))
    except (IndexError, ValueError) as error:
        source.fail(f"is a {kind} that does not fit its array: {shown(str(error))}", place)


def _axes(source: Source, value: object, place: str) -> tuple[int, ...]:
    """A shape or an order of axes, from a tuple, a list or one number."""
    items: Any = value if type(value) in (tuple, list) else (value,)
    if len(items) > 8 or any(type(item) is not int or abs(item) >= 1 << 40 for item in items):
        source.fail("a shape that is no tuple of integers", place)
    return tuple(items)


def _dense(
    source: Source,
    kind: str,
    state: Mapping[Any, Any],
    part: Callable[[str], Array],
    place: str,
) -> Array:
    """A compressed sparse matrix (scipy's csc or csr) in full."""
    shape = _axes(source, state.get("_shape", state.get("shape")), place)
    if len(shape) != 2 or min(shape) < 0 or shape[0] * shape[1] > _MAX_DENSE:
        source.fail(f"a sparse matrix of shape {list(shape)}", place)
    by_column = kind == "scipy csc_matrix"
    lines, length = (shape[1], shape[0]) if by_column else shape
    data = part("data")
    indices, starts = (_integers(source, part(n), f"{place}.{n}") for n in ("indices", "indptr"))
    counts = np.diff(starts) if starts.ndim == 1 else starts[:0]
    fits = (
        data.ndim == 1
        and indices.shape == data.shape
        and starts.shape == (lines + 1,)
        and starts[0] == 0
        and starts[-1] == len(data)
        and bool((counts >= 0).all())
        and (not len(data) or 0 <= indices.min() <= indices.max() < length)
    )
    if not fits:
        source.fail("a sparse matrix whose indices do not fit its shape", place)
    source.spend_copied(lines * length * data.itemsize, place)
    out = np.zeros((lines, length), data.dtype)
    # Entries that are there twice add up.
    np.add.at(out, (np.repeat(np.arange(lines), counts), indices), data)
    return np.ascontiguousarray(out.T) if by_column else out


def _integers(source: Source, array: Array, place: str) -> Array:
    """An array as int64; float arrays of whole numbers count."""
    if array.dtype.kind not in "iuf":
        source.fail(f"has dtype {array.dtype}, expected integers", place)
    if array.dtype == np.int64:
        return array
    source.spend_copied(8 * array.size, place)
    # NaN and infinity fail the first comparison.
    if array.dtype.kind == "f" and not bool(
        ((np.abs(array) < 2.0**53) & (array == np.floor(array))).all()
    ):
        source.fail("holds numbers that are no integers", place)
    return array.astype(np.int64)


def _check_float(source: Source, array: Array, place: str) -> None:
    if array.dtype.kind != "f":
        source.fail(f"has dtype {array.dtype}, expected a floating-point one", place)
    if not bool(np.isfinite(array).all()):
        source.fail("holds values that are not finite", place)


# What the pickles may refer to


def _object(origin: str) -> Global:
    def new(machine: Machine, args: tuple[Any, ...]) -> ObjectRecord:
        if args:
            machine.fail(f"a {origin} created with arguments")
        return ObjectRecord(origin)

    return Global(origin, new=new)


class _Names(dict[tuple[str, str], Global]):
    """Exact names, and any class of chumpy as an object that is its attributes and no more."""

    def get(self, key: tuple[str, str], default: Any = None) -> Any:
        found = super().get(key)
        if found is None and key[0].split(".")[0] == "chumpy" and _IDENTIFIER.fullmatch(key[1]):
            found = _object(f"chumpy {key[1]}")
        return default if found is None else found


_GLOBALS = _Names(
    {
        **COMMON_GLOBALS,
        **STORAGE_GLOBALS,
        **TENSOR_GLOBALS,
        ("torch.storage", "_load_from_bytes"): Global(
            "torch.storage._load_from_bytes", call=load_from_bytes
        ),
        **{
            (f"scipy.sparse.{prefix}{kind}", f"{kind}_matrix"): _object(f"scipy {kind}_matrix")
            for kind in ("csc", "csr")
            for prefix in ("", "_")
        },
    }
)
