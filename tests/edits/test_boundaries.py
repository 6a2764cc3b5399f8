"""Boundaries (P8, P9, P10)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from pyfacelat.edits.boundaries import Boundary, condition, fit_boundary, select, whitened
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.latents import load_boundary
from pyfacelat.projection.space import LatentSpace, LatentStatistics


def unit(*shape: int, seed: int = 0) -> torch.Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return x / x.norm()


def plane(normal: torch.Tensor, offset: float = 0.0, space: Any = "w") -> Boundary:
    return Boundary(normal, normal, offset, space)


def test_p8_w_distances_are_those_asked_for() -> None:
    boundary = plane(unit(16), 0.4)
    w = torch.randn(3, 16)
    wanted = torch.linspace(-3, 3, 10)
    edited = boundary.at(w, wanted)
    assert edited.shape == (3, 10, 16)
    found = boundary.distance(edited)
    torch.testing.assert_close(found, wanted.expand(3, -1), rtol=0, atol=1e-5)
    # Only along the normal.
    rest = edited - w[:, None] - (found - boundary.distance(w)[:, None])[..., None] * unit(16)
    assert float(rest.abs().max()) < 1e-5
    # A shared file has no offset: the distance is w . n, as InterFaceGAN's edit subtracts it.
    torch.testing.assert_close(plane(unit(16)).distance(w), w @ unit(16))


def test_p8_wp_offsets_are_absolute_on_all_rows() -> None:
    boundary = plane(unit(16), 0.4)
    ws = torch.randn(2, 10, 16)
    edited = boundary.edit_ws(ws, torch.linspace(-3, 3, 7))
    assert edited.shape == (2, 7, 10, 16)
    assert torch.equal(edited[:, 3], ws)  # the middle of an odd count
    torch.testing.assert_close(edited[:, 0], ws - 3 * unit(16))
    some = boundary.edit_ws(ws, [1.0], rows=[2, 3])
    torch.testing.assert_close(some[:, 0, 2:4], ws[:, 2:4] + unit(16))
    assert torch.equal(some[:, 0, 4:], ws[:, 4:]) and torch.equal(some[:, 0, :2], ws[:, :2])


def test_p8_one_w_for_all_rows_is_relative_unless_told() -> None:
    boundary = plane(unit(16), 0.4)
    ws = torch.randn(2, 1, 16).expand(-1, 10, -1)
    relative = boundary.edit_ws(ws, [-3.0, 3.0])
    assert torch.equal(relative, relative[:, :, :1].expand_as(relative))
    torch.testing.assert_close(
        boundary.distance(relative[:, :, 0]), torch.tensor([-3.0, 3.0]).expand(2, -1)
    )
    absolute = boundary.edit_ws(ws, [-3.0, 3.0], relative=False)
    torch.testing.assert_close(absolute[:, 1], ws + 3 * unit(16))
    with pytest.raises(ConfigError, match="different distances"):
        boundary.edit_ws(torch.randn(1, 10, 16), [1.0], relative=True)


def test_a_boundary_in_w_plus() -> None:
    boundary = plane(unit(10, 16), -0.2, "w+")
    ws = torch.randn(3, 10, 16)
    edited = boundary.edit_ws(ws, [-2.0, 2.0])
    torch.testing.assert_close(
        boundary.distance(edited), torch.tensor([-2.0, 2.0]).expand(3, -1), rtol=0, atol=1e-5
    )
    moved = boundary.edit_ws(ws, [0.0, 1.0], relative=False)
    assert torch.equal(moved[:, 0], ws)
    torch.testing.assert_close(moved[:, 1], ws + unit(10, 16))
    with pytest.raises(ConfigError, match="moves all rows"):
        boundary.edit_ws(ws, [1.0], rows="fine")


@pytest.mark.parametrize("space", ["z", "w"])
def test_p9_a_planted_direction_is_found(space: Any) -> None:
    direction = unit(64)
    codes = torch.randn(20_000, 64, generator=torch.Generator().manual_seed(1))
    boundary = fit_boundary(codes, codes @ direction, space=space, share=0.02)
    assert boundary.normal.shape == (64,)
    assert abs(float(boundary.normal.norm()) - 1) < 1e-6
    cosine = float(boundary.normal @ direction)
    assert cosine > 0.95, cosine
    accuracy = boundary.about["accuracy"]
    assert accuracy["train"] == 1 and accuracy["validation"] > 0.97
    assert accuracy["remaining"] > 0.85
    assert abs(boundary.offset) < 0.3


def test_p9_noisy_scores_an_offset_and_invalid_ones() -> None:
    direction = unit(16)
    source = torch.Generator().manual_seed(1)
    codes = 3 * torch.randn(4000, 16, generator=source) + 2 * direction
    scores = codes @ direction + 0.5 * torch.randn(4000, generator=source)
    broken = torch.rand(4000, generator=source) < 0.1
    scores[broken] = -99.0
    scores[:5] = float("nan")
    boundary = fit_boundary(codes, scores, space="w", share=200, invalid_value=-99.0)
    assert float(boundary.normal @ direction) > 0.95
    assert boundary.about["selected"] == 400
    assert abs(boundary.offset + 2) < 0.5  # the plane goes through the middle of the codes


def test_p9_in_w_plus() -> None:
    direction = unit(4, 8)
    codes = torch.randn(4000, 4, 8, generator=torch.Generator().manual_seed(1))
    scores = (codes * direction).sum((1, 2))
    boundary = fit_boundary(codes, scores, space="w+", share=0.1)
    assert float((boundary.normal * direction).sum()) > 0.95


def test_which_samples_count() -> None:
    scores = torch.tensor([3.0, -1.0, float("nan"), 7.0, 0.0, -9.0, 5.0, 1.0])
    positive, negative = select(scores, 2, invalid_value=-9.0)
    assert sorted(positive.tolist()) == [3, 6] and sorted(negative.tolist()) == [1, 4]
    positive, negative = select(scores, 0.5)
    assert len(positive) == len(negative) == 3
    for share in (0.1, 4):
        with pytest.raises(ConfigError, match="share"):
            select(scores, share)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_p10_conditions(count: int) -> None:
    boundary = plane(unit(32), 0.1)
    others = [plane(unit(32, seed=k + 1), 0.2 * k) for k in range(count)]
    found = condition(boundary, others)
    assert abs(float(found.normal.norm()) - 1) < 1e-6
    for other in others:
        assert abs(float(found.normal @ other.normal)) < 1e-5
    # The closed form of one condition, and the solution for any number.
    normals = torch.stack([other.normal for other in others]).double()
    rest = unit(32).double() - normals.T @ torch.linalg.solve(
        normals @ normals.T, normals @ unit(32).double()
    )
    torch.testing.assert_close(found.normal.double(), rest / rest.norm(), rtol=0, atol=1e-6)
    moved = found.shift(torch.randn(1, 32), [-2.0, 2.0])
    for other in others:
        low, high = other.distance(moved)[0].tolist()
        assert abs(high - low) < 1e-5


def test_conditions_that_leave_nothing() -> None:
    a, b = plane(unit(4)), plane(unit(4, seed=1))
    with pytest.raises(ConfigError, match="nothing remains"):
        condition(a, [b, a])
    assert abs(float(condition(a, [b, b]).normal @ b.normal)) < 1e-5
    with pytest.raises(ConfigError, match="expected boundaries in w"):
        condition(a, [plane(unit(4), space="z")])


def crooked_space(width: int = 12) -> tuple[LatentSpace, torch.Tensor]:
    """Whitened coordinates of an uneven cloud, and samples v."""
    source = torch.Generator().manual_seed(4)
    basis = torch.linalg.qr(torch.randn(width, width, generator=source)).Q
    mean = torch.randn(width, generator=source)
    statistics = LatentStatistics(mean, 1.0, basis, torch.linspace(0.2, 4, width))
    return LatentSpace(statistics, "w+", "whitened", 6), torch.randn(6000, width, generator=source)


def test_whitened_boundaries_work_on_w() -> None:
    space, v = crooked_space()
    w = space.to_ws(v[:, None])[:, 0]
    directions = unit(12), unit(12, seed=1)
    in_v = [fit_boundary(v, v @ d, space="w", share=0.1) for d in directions]
    found = [whitened(b, space, w) for b in in_v]
    for b, raw in zip(found, in_v, strict=True):
        torch.testing.assert_close(b.distance(w), raw.distance(v), rtol=0, atol=1e-4)
        assert abs(float(b.normal @ b.step) - 1) < 1e-5
        moved = space.from_ws(b.at(w[:2], [2.0]))[:, 0]
        torch.testing.assert_close(moved, raw.at(v[:2], [2.0])[:, 0], rtol=0, atol=1e-4)
    free = condition(found[0], [found[1]])
    expected = whitened(condition(in_v[0], [in_v[1]]), space, w)
    torch.testing.assert_close(free.step, expected.step, rtol=0, atol=1e-4)
    torch.testing.assert_close(free.normal, expected.normal, rtol=0, atol=1e-4)
    assert abs(float(found[1].normal @ free.step)) < 1e-5
    with pytest.raises(ConfigError, match="all whitened or none"):
        condition(in_v[0], [found[1]])


@pytest.mark.parametrize("space", ["z", "w", "w+"])
def test_files(space: Any, tmp_path: Path) -> None:
    shape = (6, 12) if space == "w+" else (12,)
    boundary = Boundary(unit(*shape) * 0.5, unit(*shape) * 2, -0.75, space, {"attribute": "smile"})
    boundary.save(tmp_path / "b.npz")
    found = Boundary.load(tmp_path / "b.npz")
    assert torch.equal(found.normal, boundary.normal) and torch.equal(found.step, boundary.step)
    assert (found.offset, found.space, found.about) == (-0.75, space, {"attribute": "smile"})
    assert load_boundary(tmp_path / "b.npz").intercept == -0.75  # others' readers find the plane
    boundary.save(tmp_path / "b.npy")
    assert np.load(tmp_path / "b.npy").shape == ((6, 12) if space == "w+" else (1, 12))


def test_shared_files(tmp_path: Path) -> None:
    """A bare vector: (1, 512) unit normals, and (1, 18, 512) of length sqrt(18)."""
    np.save(tmp_path / "age.npy", 3 * unit(1, 16).numpy())
    found = Boundary.load(tmp_path / "age.npy")
    torch.testing.assert_close(found.normal, unit(1, 16)[0])
    assert found.space == "w" and found.offset == 0
    assert Boundary.load(tmp_path / "age.npy", space="z").space == "z"
    np.savez(tmp_path / "age.npz", boundary=3 * unit(1, 16).numpy(), intercept=np.float32(6))
    assert Boundary.load(tmp_path / "age.npz").offset == pytest.approx(2)
    rows = F.normalize(torch.randn(1, 10, 16), dim=2)
    np.save(tmp_path / "pose.npy", rows.numpy())
    found = Boundary.load(tmp_path / "pose.npy")
    ws = torch.randn(2, 10, 16)
    torch.testing.assert_close(
        found.edit_ws(ws, [1.5], relative=False)[:, 0], ws + 1.5 * rows, rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"normal": np.ones(4), "step": np.ones(4)}, "is no boundary"),
        ({"a": np.zeros((1, 4))}, "zeros"),
    ],
)
def test_files_that_are_none(arrays: dict[str, Any], words: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(CheckpointError, match=words):
        Boundary.load(tmp_path / "b.npz")


def test_a_file_whose_vectors_disagree(tmp_path: Path) -> None:
    Boundary(unit(4), unit(4) * 3, 0.0, "w").save(tmp_path / "b.npz")
    with pytest.raises(CheckpointError, match="expected 1"):
        Boundary.load(tmp_path / "b.npz")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"codes": torch.zeros(10, 4, 4)}, "codes"),
        ({"scores": torch.zeros(9)}, "one score each"),
        ({"split": 1.0}, "split"),
        ({"codes": torch.ones(10, 4)}, "same place"),
    ],
)
def test_fit_refusals(arguments: dict[str, Any], words: str) -> None:
    given = {"codes": torch.randn(10, 4), "scores": torch.arange(10.0), "share": 0.5}
    with pytest.raises(ConfigError, match=words):
        fit_boundary(**{**given, **arguments}, space="w")


def test_edit_refusals() -> None:
    with pytest.raises(ConfigError, match="it is in Z"):
        plane(unit(4), space="z").edit_ws(torch.zeros(1, 2, 4), [1.0])
    with pytest.raises(ConfigError, match="width 4"):
        plane(unit(4)).edit_ws(torch.zeros(1, 2, 5), [1.0])
    with pytest.raises(ConfigError, match="space"):
        plane(unit(4), space="v")
    with pytest.raises(ConfigError, match="normal: expected"):
        plane(unit(4), space="w+")
