"""Latents and directions in every layout in which people share them."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyfacelat import latents
from pyfacelat.errors import CheckpointError

WS = torch.randn(1, 18, 512, generator=torch.Generator().manual_seed(0))
W = torch.randn(512, generator=torch.Generator().manual_seed(1))


def saved(folder: Path, name: str, value: Any, **options: Any) -> Path:
    """Write a value as its users do, by the suffix of the name."""
    path = folder / name
    if name.endswith(".npy"):
        np.save(path, value, allow_pickle=True)
    elif name.endswith(".npz"):
        np.savez(path, **value)
    else:
        torch.save(value, path, **options)
    return path


LAYOUTS: dict[str, tuple[str, Any, Any]] = {
    # what it is: (file, content, expected)
    "projector of stylegan2-ada": ("projected_w.npz", {"w": WS.numpy()}, WS),
    "npz of one array": ("a.npz", {"arr_0": WS[0].numpy()}, WS),
    "npz beside noise": ("a.npz", {"w": WS.numpy(), "n": np.zeros((4, 4))}, WS),
    "FFHQ latent directions": ("smile.npy", WS[0].numpy(), WS),
    "w in npy": ("w.npy", W.numpy(), W.expand(1, 18, -1)),
    "row of w": ("w.npy", W[None].numpy(), W.expand(1, 18, -1)),
    "InterFaceGAN wp": ("wp.npy", WS.repeat(5, 1, 1).numpy(), WS.repeat(5, 1, 1)),
    "float64": ("w.npy", W.double().numpy(), W.expand(1, 18, -1)),
    "W_mean": ("W_mean.pt", W, W.expand(1, 18, -1)),
    "e4e latents": ("latents.pt", WS.repeat(3, 1, 1), WS.repeat(3, 1, 1)),
    "PTI pivot": ("0.pt", WS, WS),
    "half precision": ("0.pt", WS.half(), WS.half().float()),
    "parameter": ("0.pt", torch.nn.Parameter(WS), WS),
    "list of pivots": ("all.pt", [WS, WS + 1], torch.cat([WS, WS + 1])),
    "list of w+": ("all.pt", [WS[0], WS[0] + 1], torch.cat([WS, WS + 1])),
    "one name": ("a.pt", {"alice.png": WS}, WS),
    "known name": ("a.pt", {"latent": W, "img": torch.zeros(3, 8, 8)}, W.expand(1, 18, -1)),
    "rosinality projector": (
        "a.pt",
        {"a.png": {"img": torch.zeros(3, 8, 8), "latent": WS[0], "noise": [torch.ones(1, 4, 4)]}},
        WS,
    ),
    "numpy in torch": ("a.pt", {"w": WS.numpy()}, WS),
    "ReStyle": ("latents.npy", {"a.jpg": [WS[0].numpy()]}, WS),
    "lists of numbers": ("latents.npy", {"a.jpg": W.tolist()}, W.expand(1, 18, -1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout: str, tmp_path: Path) -> None:
    name, content, expected = LAYOUTS[layout]
    found = latents.load_latents(saved(tmp_path, name, content), num_ws=18, w_dim=512)
    assert found.dtype == torch.float32 and found.shape == expected.shape
    assert torch.equal(found, expected.detach())


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_torch_containers(zipped: bool, protocol: int, tmp_path: Path) -> None:
    options = {"_use_new_zipfile_serialization": zipped, "pickle_protocol": protocol}
    path = saved(tmp_path, "w.pt", {"a": WS, "b": WS.numpy()}, **options)
    found = latents.load_named_latents(path)
    assert list(found) == ["a", "b"] and torch.equal(found["a"], WS)
    assert torch.equal(found["b"], WS)


def test_names_of_several_pictures(tmp_path: Path) -> None:
    content = {"alice.png": WS, "bob.png": W}
    paths = [
        saved(tmp_path, "a.pt", content),
        saved(tmp_path, "a.npz", {k: v.numpy() for k, v in content.items()}),
        saved(tmp_path, "a.npy", {k: v.numpy() for k, v in content.items()}),
    ]
    for path in paths:
        found = latents.load_named_latents(path, num_ws=18, w_dim=512)
        assert list(found) == ["alice.png", "bob.png"]
        assert {value.shape for value in found.values()} == {WS.shape}
        assert torch.equal(latents.load_latents(path, name="bob.png"), W)
        with pytest.raises(CheckpointError, match=r"say which: alice\.png, bob\.png"):
            latents.load_latents(path)
        with pytest.raises(CheckpointError, match="no array called 'carol'"):
            latents.load_latents(path, name="carol")


@pytest.mark.parametrize(
    ("value", "rows", "intercept"),
    [
        (W, 1, 0.0),
        (W[None], 1, 0.0),
        (WS[0], 18, 0.0),
        (WS, 18, 0.0),
        ({"boundary": W[None], "intercept": torch.tensor([0.5])}, 1, 0.5),
        ({"direction": WS[0], "bias": torch.tensor(-2.0)}, 18, -2.0),
        ({"boundary": W[None], "name": W}, 1, 0.0),
    ],
)
def test_boundaries(value: Any, rows: int, intercept: float, tmp_path: Path) -> None:
    arrays = value if isinstance(value, dict) else {"": value}
    numpy = {name: tensor.numpy() for name, tensor in arrays.items()}
    paths = [saved(tmp_path, "b.pt", value)]
    paths.append(saved(tmp_path, "b.npy", numpy if isinstance(value, dict) else numpy[""]))
    if isinstance(value, dict):
        paths.append(saved(tmp_path, "b.npz", numpy))
    for path in paths:
        found = latents.load_boundary(path, num_ws=18, w_dim=512)
        assert found.normal.shape == (rows, 512) and found.intercept == intercept
        assert torch.equal(found.normal, next(iter(arrays.values())).reshape(rows, 512))


@pytest.mark.parametrize(
    "shape", [(511,), (2, 512), (17, 512), (2, 18, 512), (1, 1, 1, 512), (), (0, 512)]
)
def test_other_directions_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = saved(tmp_path, "b.npy", np.ones(shape, np.float32))
    with pytest.raises(CheckpointError, match=r"a direction of (shape|zeros)"):
        latents.load_boundary(path, num_ws=18, w_dim=512)


def test_a_direction_of_zeros_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="zeros"):
        latents.load_boundary(saved(tmp_path, "b.pt", torch.zeros(512)))
    two = {"boundary": W, "intercept": torch.zeros(2)}
    with pytest.raises(CheckpointError, match="intercept of shape"):
        latents.load_boundary(saved(tmp_path, "b.pt", two))


def test_components(tmp_path: Path) -> None:
    comp, mean, std = torch.randn(80, 1, 512), torch.randn(1, 512), torch.rand(80)
    for name in ("ffhq_pca.pt", "ffhq_pca.npz"):
        value: dict[str, Any] = {"comp": comp, "mean": mean, "std": std}
        if name.endswith("npz"):
            value = {f"act_{k}".replace("std", "stdev"): v.numpy() for k, v in value.items()}
        found = latents.load_components(saved(tmp_path, name, value))
        assert torch.equal(found.directions, comp[:, 0])
        assert torch.equal(found.mean, mean[0]) and torch.equal(found.scales, std)
    for bad, reason in (
        ({"comp": comp, "mean": mean}, "has no std"),
        ({"comp": comp, "mean": mean, "std": std[1:]}, "do not fit"),
        ({"comp": comp, "mean": mean, "std": -std}, "negative"),
        ({"comp": comp[0, 0], "mean": mean, "std": std}, r"expected \[K, 1, w_dim\]"),
    ):
        with pytest.raises(CheckpointError, match=reason):
            latents.load_components(saved(tmp_path, "bad.pt", bad))


class Nasty:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return exec, ("raise SystemExit",)


SHARED: Any = []
for _ in range(60):
    SHARED = [SHARED, SHARED]


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("a.pt", {"w": WS.long()}, "not a floating-point"),
        ("a.pt", {"w": "text"}, "is 'text', not an array"),
        ("a.pt", {1: WS}, "an entry called 1"),
        ("a.pt", [WS, W], "of several shapes"),
        ("a.pt", [], "a list of nothing"),
        ("a.pt", {}, "there are 0"),
        ("a.pt", {"w": torch.full((512,), torch.inf)}, "not finite"),
        ("a.pt", torch.full((512,), 1e300, dtype=torch.float64), "not finite"),
        ("a.pt", {"w": Nasty()}, "nothing was imported or run"),
        ("a.npy", {"w": Nasty()}, "nothing was imported or run"),
        ("a.npy", {"w": {"w": {"w": {"w": {"w": W.numpy()}}}}}, "deeper nesting"),
        ("a.pt", {"w": SHARED}, "a list of something else than numbers"),
        ("a.npy", np.array([{}, {}], object), "only a single dict"),
        ("a.npy", np.array(None, object), "is None, not an array"),
        ("a.npz", {"w": np.array([{}], object)}, "objects|expected one of"),
    ],
)
def test_refusals(name: str, value: Any, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path = saved(tmp_path, name, value)
    before = set(sys.modules)
    with pytest.raises(CheckpointError, match=reason) as caught:
        latents.load_latents(path)
    assert caught.value.file == str(path) and len(str(caught.value)) < 500
    assert set(sys.modules) == before


def nested(leaf: Any, width: int = 1000) -> Any:
    """Three dicts of one dict each, in a thousand places: 10^9 leaves in a small file."""
    for _ in range(3):
        leaf = {str(i): leaf for i in range(width)}
    return leaf


@pytest.mark.parametrize(
    "value",
    [
        nested({}),
        nested([1.0]),
        {str(i): numbers for numbers in ([1.0] * 60_000,) for i in range(1000)},
        {str(i): rows for rows in ([torch.zeros(0)] * 1000,) for i in range(1000)},
        [1.5] * 100_000 + ["x"],
    ],
)
def test_what_is_shared_is_paid_for(value: Any, tmp_path: Path) -> None:
    path = saved(tmp_path, "a.pt", value)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="more values than|more memory|not an array"):
        latents.load_latents(path)
    assert time.process_time() - start < 5
