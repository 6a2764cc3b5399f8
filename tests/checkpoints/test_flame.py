"""FLAME and DECA files, written as Python 2, chumpy, scipy and torch write them."""

from __future__ import annotations

import io
import pickle
import struct
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.models.resnet import Bottleneck, ResNet

from pyfacelat import checkpoints
from pyfacelat.checkpoints.deca import read_deca
from pyfacelat.checkpoints.flame import read_flame, read_landmark_embedding
from pyfacelat.errors import CheckpointError

V, J, B, F = 23, 5, 7, 11


class Ch:
    """Stands for chumpy's class: what it pickles is its attributes without caches."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__ |= {"_dirty_vars": {"x"}, "_itr": None, **attributes}


class Select(Ch):
    pass


class transpose(Ch):  # noqa: N801 (chumpy's name)
    pass


class Reshape(Ch):
    pass


class Sum(Ch):
    pass


@pytest.fixture(autouse=True)
def chumpy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Modules under chumpy's names, for the pickler; the reader must not see them."""
    for package in ("chumpy", "scipy", "scipy.sparse"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for module, classes in {
        "chumpy.ch": (Ch, Sum),
        "chumpy.reordering": (Select, transpose, Reshape),
        "scipy.sparse.csc": (csc_matrix,),
        "scipy.sparse._csr": (csr_matrix,),
    }.items():
        made = types.ModuleType(module)
        for cls in classes:
            monkeypatch.setattr(cls, "__module__", module)
            setattr(made, cls.__name__, cls)
        monkeypatch.setitem(sys.modules, module, made)


class csc_matrix:  # noqa: N801 (scipy's name)
    """Stands for scipy's class with its attributes."""

    def __init__(self, dense: np.ndarray[Any, Any], by_column: bool = True) -> None:
        lines = dense.T if by_column else dense
        found = [np.nonzero(line)[0] for line in lines]
        self._shape = dense.shape
        self.maxprint = 50
        self.indptr = np.cumsum([0, *map(len, found)]).astype(np.int32)
        self.indices = np.concatenate(found).astype(np.int32)
        self.data = np.concatenate([line[i] for line, i in zip(lines, found, strict=True)])
        self.format = "csc" if by_column else "csr"


class csr_matrix(csc_matrix):  # noqa: N801
    def __init__(self, dense: np.ndarray[Any, Any]) -> None:
        super().__init__(dense, by_column=False)


class Python2(pickle._Pickler):  # type: ignore[name-defined, misc]
    """Protocol 2 as Python 2 wrote it: text and bytes are both "str", and arrays hold such."""

    dispatch = dict(pickle._Pickler.dispatch)  # type: ignore[attr-defined]

    def _str(self, data: bytes) -> None:
        short = len(data) < 256
        self.write(b"U" + bytes([len(data)]) if short else b"T" + struct.pack("<i", len(data)))
        self.write(data)

    def save_bytes(self, value: bytes) -> None:
        self._str(value)
        self.memoize(value)

    def save_str(self, value: str) -> None:
        self._str(value.encode("ascii"))
        self.memoize(value)

    dispatch[bytes] = save_bytes
    dispatch[str] = save_str


def dump(value: Any, path: Path, python: int = 2) -> Path:
    if python == 3:
        path.write_bytes(pickle.dumps(value, protocol=4))
        return path
    out = io.BytesIO()
    Python2(out, 2).dump(value)
    # numpy's modules had other names, and no opcode counts the length of a name.
    path.write_bytes(out.getvalue().replace(b"numpy._core", b"numpy.core"))
    return path


def model(**changes: Any) -> dict[str, Any]:
    random = np.random.default_rng(0)
    regressor = random.random((J, V)) * (random.random((J, V)) < 0.3)
    tree = np.array([[2**32 - 1, 0, 1, 1, 1], [0, 1, 2, 3, 4]], np.uint32)
    out = {
        "v_template": random.normal(size=(V, 3)),
        "shapedirs": Ch(x=random.normal(size=(V, 3, B))),
        "posedirs": np.asfortranarray(random.normal(size=(V, 3, 9 * (J - 1)))),
        "J_regressor": csc_matrix(regressor),
        "weights": Ch(x=Ch(x=random.random((V, J)))),
        "kintree_table": tree,
        "f": random.integers(0, V, (F, 3)).astype(np.uint32),
        "J": np.zeros((J, 3)),  # all bytes of it are ASCII
        "bs_style": "lbs",
        "bs_type": "lrotmin",
        "rule": Sum(a=Ch(x=np.zeros(3)), b=Ch(x=np.ones(3))),
        "list": [1, 2],
    }
    return {k: v for k, v in (out | changes).items() if v is not None}


def dense(matrix: Any) -> np.ndarray[Any, Any]:
    out = np.zeros(matrix._shape)
    view = out.T if matrix.format == "csc" else out
    for line in range(len(view)):
        for at in range(matrix.indptr[line], matrix.indptr[line + 1]):
            view[line, matrix.indices[at]] = matrix.data[at]
    return out


@pytest.mark.parametrize("python", [2, 3])
def test_model(python: int, tmp_path: Path) -> None:
    written = model()
    before = set(sys.modules)
    found = read_flame(dump(written, tmp_path / "generic_model.pkl", python))
    assert not {name for name in set(sys.modules) - before if name.startswith("scipy")}
    for name, truth in {
        "v_template": written["v_template"],
        "shapedirs": written["shapedirs"].x,
        "posedirs": written["posedirs"],
        "J_regressor": dense(written["J_regressor"]),
        "weights": written["weights"].x.x,
        "faces": written["f"],
        "parents": [-1, 0, 1, 1, 1],
    }.items():
        array = getattr(found, name)
        assert isinstance(array, np.ndarray) and array.flags.c_contiguous
        np.testing.assert_array_equal(array, truth)
    assert found.v_template.dtype == np.float64 and found.faces.dtype == np.int64
    assert found.others.keys() == {"J", "bs_style", "bs_type"}
    assert found.others["bs_style"] == "lbs" and found.others["J"].shape == (J, 3)


def test_objects_of_chumpy_and_scipy(tmp_path: Path) -> None:
    written = model()
    template, weights = written["v_template"], written["weights"].x.x
    directions = written["shapedirs"].x
    order = np.random.default_rng(1).permutation(template.size)
    changed = model(
        v_template=Select(a=Ch(x=template.ravel()[order]), idxs=np.argsort(order),
                          preferred_shape=(V, 3)),
        weights=transpose(a=Ch(x=weights.T.copy()), axes=None),
        shapedirs=Reshape(a=transpose(a=directions.transpose(2, 0, 1).copy(), axes=(1, 2, 0)),
                          newshape=(V, -1, B)),
        J_regressor=csr_matrix(dense(written["J_regressor"])),
    )  # fmt: skip
    found = read_flame(dump(changed, tmp_path / "x.pkl"))
    np.testing.assert_array_equal(found.v_template, template)
    np.testing.assert_array_equal(found.weights, weights)
    np.testing.assert_array_equal(found.shapedirs, directions)
    np.testing.assert_array_equal(found.J_regressor, dense(written["J_regressor"]))


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "x.pkl"
    bad = model()["v_template"]
    bad[1, 1] = np.nan
    sparse = csc_matrix(np.eye(J, V))
    sparse.indices = sparse.indices + V
    wide = csc_matrix(np.eye(J, V))
    wide._shape = (1 << 20, 1 << 20)
    loop = Ch(x=None)
    loop.x = loop  # type: ignore[attr-defined]
    for changes, match in (
        ({"weights": None}, "weights: is missing"),
        ({"weights": "x"}, "weights: is 'x', not an array"),
        ({"posedirs": np.zeros((V, 3, 9))}, r"posedirs: has shape \[23, 3, 9\], expected"),
        ({"f": np.full((F, 3), V)}, "f: refers to vertices outside of 0 to 22"),
        ({"f": np.full((F, 3), 0.5)}, "f: holds numbers that are no integers"),
        ({"v_template": bad}, "v_template: holds values that are not finite"),
        ({"v_template": np.zeros((V, 3), np.int64)}, "has dtype int64, expected a floating"),
        ({"kintree_table": np.full((2, J), 4)}, "does not hang on an earlier"),
        ({"J_regressor": sparse}, "indices do not fit its shape"),
        ({"J_regressor": wide}, "a sparse matrix of shape"),
        ({"weights": Sum(a=1)}, "weights: is a chumpy Sum, which is computed"),
        ({"weights": loop}, "too deeply"),
        ({"weights": Select(a=np.zeros(3), idxs=np.array([5]))}, "does not fit its array"),
        ({"weights": Reshape(a=np.zeros(3), newshape=(2, 2))}, "does not fit its array"),
        ({"weights": [1]}, "weights: is a list, not an array"),
    ):
        with pytest.raises(CheckpointError, match=match):
            read_flame(dump(model(**changes), path))
    path.write_bytes(dump(model(), path).read_bytes() + b"x")
    with pytest.raises(CheckpointError, match="1 bytes after the end"):
        read_flame(path)
    with pytest.raises(CheckpointError, match="read_flame"):
        checkpoints.read(dump(model(), path))


@pytest.mark.parametrize("tensors", [True, False])
def test_landmark_embedding(tensors: bool, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    written: dict[str, Any] = {}
    for name, shape in {"static": (51,), "dynamic": (79, 17), "full": (1, 68)}.items():
        written[f"{name}_lmk_faces_idx"] = random.integers(0, F, shape)
        written[f"{name}_lmk_bary_coords"] = random.random((*shape, 3))
    value = dict(written)
    if tensors:  # as DECA's file, half of which are torch tensors
        for name in ("dynamic_lmk_faces_idx", "dynamic_lmk_bary_coords"):
            value[name] = torch.from_numpy(value[name])
    path = tmp_path / "landmark_embedding.npy"
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    found = read_landmark_embedding(path)
    assert found.keys() == written.keys()
    for name, truth in written.items():
        np.testing.assert_array_equal(found[name], truth)

    value["full_lmk_bary_coords"] = random.random((1, 67, 3))
    np.save(path, np.array(value, dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="does not fit its indices"):
        read_landmark_embedding(path)
    np.save(path, np.zeros(3))
    with pytest.raises(CheckpointError, match="one pickled object"):
        read_landmark_embedding(path)


def deca() -> dict[str, dict[str, torch.Tensor]]:
    """The three state dicts, a number of its own in every tensor."""
    with torch.device("meta"):
        resnet = ResNet(Bottleneck, [3, 4, 6, 3])
        del resnet.fc
        convs: list[nn.Module] = [nn.BatchNorm2d(128)]
        for fan_in, fan_out in ((128, 128), (128, 64), (64, 64), (64, 32), (32, 16)):
            convs += [nn.Upsample(scale_factor=2), nn.Conv2d(fan_in, fan_out, 3, padding=1)]
            convs += [nn.BatchNorm2d(fan_out), nn.LeakyReLU(0.2)]
        convs += [nn.Conv2d(16, 1, 3, padding=1), nn.Tanh()]

        def encoder(size: int) -> nn.ModuleDict:
            layers = nn.Sequential(nn.Linear(2048, 1024), nn.ReLU(), nn.Linear(1024, size))
            return nn.ModuleDict({"encoder": resnet, "layers": layers})

        decoder = nn.ModuleDict(
            {"l1": nn.Sequential(nn.Linear(181, 8192)), "conv_blocks": nn.Sequential(*convs)}
        )
        nets = {"E_flame": encoder(236), "E_detail": encoder(128), "D_detail": decoder}
    random = torch.Generator().manual_seed(0)
    # Half precision keeps the file at 100 MB.
    return {
        entry: {
            name: torch.full(value.shape, float(torch.rand((), generator=random)))
            .to(torch.int64 if name.endswith("tracked") else torch.float16)
            for name, value in net.state_dict().items()
        }
        for entry, net in nets.items()
    }  # fmt: skip


def test_deca(tmp_path: Path) -> None:
    path = tmp_path / "deca_model.tar"
    value = deca()
    torch.save(value, path)
    found = read_deca(path)
    assert found.keys() == value.keys()
    for entry, state in value.items():
        assert found[entry].keys() == state.keys()
        assert all(torch.equal(found[entry][name], v) for name, v in state.items())
    torch.save({"E_flame": {}}, path)
    with pytest.raises(CheckpointError, match=r"E_flame\.layers\.2\.weight: is missing"):
        read_deca(path)
    torch.save({"g_ema": {}}, path)
    with pytest.raises(CheckpointError, match="no checkpoint of DECA"):
        read_deca(path)
    few = {"layers.2.weight": torch.zeros(5, 1024)}
    torch.save({"E_flame": {"encoder.fc.weight": torch.ones(1), **few}}, path)
    with pytest.raises(CheckpointError, match=r"E_flame\.encoder\.conv1\.weight: is missing"):
        read_deca(path)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    """Any byte may be wrong: the answer is a model or a CheckpointError, never anything else."""
    path = tmp_path / "x.pkl"
    good = dump(model(), path).read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for _ in range(600):
        data = bytearray(good)
        for at in random.integers(0, len(data), random.integers(1, 4)):
            data[at] = random.integers(256)
        path.write_bytes(data[: len(data) - random.integers(0, 2) * random.integers(0, 500)])
        try:
            read_flame(path)
        except CheckpointError:
            refused += 1
    assert 100 < refused < 600
