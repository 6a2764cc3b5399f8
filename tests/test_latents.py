"""Latents and noise maps on disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from pyfacelat import latents
from pyfacelat.errors import CheckpointError


@pytest.mark.parametrize("name", ["w.npz", "w.npy"])
def test_round_trip(name: str, tmp_path: Path) -> None:
    ws = torch.randn(3, 18, 512)
    latents.save_latents(tmp_path / name, ws)
    found = latents.load_latents(tmp_path / name)
    assert found.dtype == torch.float32 and torch.equal(found, ws)
    assert os.listdir(tmp_path) == [name]


def test_the_layout_is_the_published_one(tmp_path: Path) -> None:
    """np.load by anyone finds `w` [1, num_ws, w_dim] float32."""
    ws = torch.randn(1, 14, 512, dtype=torch.float64)
    latents.save_latents(tmp_path / "projected_w.npz", ws)
    with np.load(tmp_path / "projected_w.npz", allow_pickle=False) as file:
        assert list(file) == ["w"]
        assert file["w"].dtype == np.float32 and file["w"].shape == (1, 14, 512)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order", ["C", "F"])
def test_what_numpy_writes(dtype: type, order: str, tmp_path: Path) -> None:
    value = np.asarray(np.random.default_rng(0).normal(size=(2, 3, 4)), dtype, order=order)
    np.save(tmp_path / "a.npy", value)
    np.savez(tmp_path / "a.npz", w=value, other=value)
    np.savez_compressed(tmp_path / "b.npz", latent=value)
    for name in ("a.npy", "a.npz", "b.npz"):
        found = latents.load_latents(tmp_path / name)
        assert torch.equal(found, torch.from_numpy(value.astype(np.float32)))


@pytest.mark.parametrize(
    ("shape", "rows"),
    [((512,), 1), ((1, 512), 1), ((18, 512), 1), ((4, 18, 512), 4), ((4, 1, 512), 4)],
)
def test_normalised_shapes(shape: tuple[int, ...], rows: int, tmp_path: Path) -> None:
    value = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.save(tmp_path / "w.npy", value)
    found = latents.load_latents(tmp_path / "w.npy", num_ws=18, w_dim=512)
    assert found.shape == (rows, 18, 512)
    expected = np.broadcast_to(value.reshape(rows, -1, 512), (rows, 18, 512))
    assert torch.equal(found, torch.from_numpy(expected.copy()))


@pytest.mark.parametrize("shape", [(511,), (2, 512), (17, 512), (2, 18, 256), (1, 1, 18, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected \[512\]"):
        latents.normalise_latents(torch.zeros(shape), num_ws=18, w_dim=512)
    np.save(tmp_path / "w.npy", np.zeros(shape, np.float32))
    with pytest.raises(CheckpointError):
        latents.load_latents(tmp_path / "w.npy", num_ws=18, w_dim=512)


def test_noise(tmp_path: Path) -> None:
    noise = {
        "synthesis.b4.conv1.noise_const": torch.randn(4, 4),
        "synthesis.b8.conv0.noise_const": torch.randn(2, 8, 8),
    }
    latents.save_noise(tmp_path / "noise.npz", noise)
    found = latents.load_noise(tmp_path / "noise.npz")
    assert found.keys() == noise.keys()
    assert all(torch.equal(found[k], v) for k, v in noise.items())
    latents.save_noise(tmp_path / "none.npz", {})
    assert latents.load_noise(tmp_path / "none.npz") == {}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_only_finite_values(value: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="finite"):
        latents.save_latents(tmp_path / "w.npz", torch.full((1, 2, 3), value))
    with pytest.raises(ValueError, match="finite"):
        latents.save_noise(tmp_path / "n.npz", {"a": torch.full((2, 3), value)})
    with pytest.raises(ValueError, match="finite"):
        latents.normalise_latents(torch.full((3,), value), num_ws=2, w_dim=3)
    assert os.listdir(tmp_path) == []


def test_refusals_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected shape \[N, num_ws, w_dim\]"):
        latents.save_latents(tmp_path / "w.npz", torch.zeros(18, 512))
    with pytest.raises(ValueError, match="no name"):
        latents.save_noise(tmp_path / "n.npz", {"../a": torch.zeros(4, 4)})
    with pytest.raises(ValueError, match="expected"):
        latents.save_noise(tmp_path / "n.npz", {"a": torch.zeros(4)})


def test_a_missing_file_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        latents.load_latents(tmp_path / "gone.npz")
