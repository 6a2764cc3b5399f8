"""Directions: shared ones, GANSpace and SeFa (E1, E2, E3, I14)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pyfacelat.edits.directions import (
    GANSpace,
    ganspace,
    modulations,
    move,
    save_direction,
    sefa,
)
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.latents import load_boundary
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig


def latents(count: int = 2, rows: int = 18, width: int = 32) -> torch.Tensor:
    return torch.randn(count, rows, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("shape", [(32,), (1, 32), (18, 32)])
def test_e1_interfacegan_add(shape: tuple[int, ...]) -> None:
    ws, direction = latents(), torch.randn(shape)
    assert torch.equal(move(ws, direction, 0), ws)
    torch.testing.assert_close(move(ws, direction, 2.5), ws + 2.5 * direction)
    kept = ws.clone()
    some = move(ws, direction, -1.0, "fine")
    assert torch.equal(ws, kept) and torch.equal(some[:, :8], ws[:, :8])
    torch.testing.assert_close(some[:, 8:], (ws - direction)[:, 8:])


def test_i14_smile_direction_is_added() -> None:
    """The published notebook moves rows 0-4 towards the direction; an edit adds it."""
    ws, d = latents(), F.normalize(torch.randn(1, 32), dim=1)
    out = move(ws, d, 0.75, slice(0, 5))
    torch.testing.assert_close(out[:, :5], ws[:, :5] + 0.75 * d)
    assert torch.equal(out[:, 5:], ws[:, 5:])


@pytest.mark.parametrize("shape", [(31,), (2, 32), (1, 18, 32), ()])
def test_directions_that_do_not_fit(shape: tuple[int, ...]) -> None:
    with pytest.raises(ConfigError, match="direction: expected"):
        move(latents(), torch.zeros(shape), 1.0)


def test_e2_ganspace_edit_reaches_the_coordinate() -> None:
    x = torch.randn(4000, 32) @ torch.diag(torch.linspace(3, 0.1, 32))
    found = ganspace(x + 5, count=10)
    for index, strength in ((0, 2.0), (7, -1.5)):
        ws = latents() * 2
        edited = found.edit(ws, index, strength, slice(0, 9))
        torch.testing.assert_close(
            found.coordinate(edited, index), torch.full((2,), strength), rtol=0, atol=1e-4
        )
        # Every chosen row moves by what row 0 needs; the rest stays.
        delta = (edited - ws)[:, 0]
        torch.testing.assert_close((edited - ws)[:, 8], delta, rtol=0, atol=1e-5)
        assert torch.equal(edited[:, 9:], ws[:, 9:])
        late = found.edit(ws, index, strength, slice(9, 18))
        torch.testing.assert_close((late - ws)[:, 9], delta, rtol=0, atol=1e-5)
        assert torch.equal(late[:, :9], ws[:, :9])


def test_ganspace_finds_the_components() -> None:
    x = torch.randn(8000, 12) * torch.linspace(3, 0.25, 12)
    found = ganspace(x, count=4)
    assert found.components.shape == (4, 12)
    torch.testing.assert_close(found.components @ found.components.T, torch.eye(4))
    assert (found.components.diagonal() > 0.98).all()  # the axes, with a positive sign
    torch.testing.assert_close(found.std, torch.linspace(3, 0.25, 12)[:4], rtol=0.05, atol=0)
    projected = (x - found.mean) @ found.components.T
    torch.testing.assert_close(projected.std(0), found.std, rtol=1e-3, atol=0)


def test_ganspace_files(tmp_path: Path) -> None:
    found = ganspace(torch.randn(200, 12), count=4)
    found.save(tmp_path / "pca.npz")
    with np.load(tmp_path / "pca.npz") as file:
        shapes = {name: file[name].shape for name in file}
    assert shapes == {"comp": (4, 1, 12), "mean": (1, 12), "std": (4,)}
    again = GANSpace.load(tmp_path / "pca.npz")
    assert torch.equal(again.components, found.components) and torch.equal(again.std, found.std)
    np.savez(tmp_path / "bad.npz", comp=np.ones((4, 12)), mean=np.ones(12), std=np.ones(3))
    with pytest.raises(CheckpointError, match="do not fit"):
        GANSpace.load(tmp_path / "bad.npz")
    np.savez(tmp_path / "bad.npz", comp=np.ones((4, 12)))
    with pytest.raises(CheckpointError, match="has no mean"):
        GANSpace.load(tmp_path / "bad.npz")
    with pytest.raises(ConfigError, match="index: expected 0 to 3"):
        found.coordinate(torch.zeros(1, 2, 12), 4)
    with pytest.raises(ConfigError, match="all equal"):
        ganspace(torch.ones(10, 4))


def test_e3_sefa_finds_a_planted_direction() -> None:
    planted = F.normalize(torch.randn(24), dim=0)
    # Styles that all look along the planted direction, loudly or softly, plus some that do not.
    along = planted + 0.15 * torch.randn(60, 24)
    weights = [along[:40] * torch.rand(40, 1) * 100, torch.cat([along[40:], torch.randn(20, 24)])]
    directions, values = sefa(weights, 3)
    torch.testing.assert_close(directions @ directions.T, torch.eye(3), rtol=0, atol=1e-5)
    assert abs(float(directions[0] @ planted)) > 0.98
    assert (values.diff() <= 0).all()
    unit = F.normalize(torch.cat(weights).double(), dim=1)
    torch.testing.assert_close(
        (unit @ directions[0].double()).square().sum().float(), values[0], rtol=1e-4, atol=0
    )


def test_modulations_are_in_the_order_of_rows() -> None:
    config = GeneratorConfig(
        z_dim=8, w_dim=8, img_resolution=32, num_mapping_layers=1, channel_base=256, channel_max=16
    )
    generator = Generator(config).freeze()
    weights = modulations(generator.synthesis)
    assert len(weights) == generator.num_ws - 1  # the last row feeds toRGB alone
    ws = generator.mapping(torch.randn(1, 8))
    base = generator.synthesis(ws)
    last = generator.get_submodule("synthesis.b32.conv1.affine.weight".removesuffix(".weight"))
    assert weights[-1] is last.weight and weights[0].shape == (16, 8)
    changed = ws.clone()
    changed[:, len(weights) - 1] += 1
    assert not torch.equal(generator.synthesis(changed), base)
    with pytest.raises(ConfigError, match="b4.conv1"):
        modulations(generator.mapping)


@pytest.mark.parametrize("shape", [(32,), (1, 32), (18, 32)])
def test_direction_files(shape: tuple[int, ...], tmp_path: Path) -> None:
    value = torch.randn(shape)
    save_direction(tmp_path / "d.npy", value)
    assert torch.equal(load_boundary(tmp_path / "d.npy").normal, value.reshape(-1, 32))
    with pytest.raises(ConfigError, match="finite"):
        save_direction(tmp_path / "e.npy", value / 0)
