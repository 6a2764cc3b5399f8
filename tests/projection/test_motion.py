"""Motion of a face apart from its shape: the model, the space, and both ways to a target."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pyfacelat
from pyfacelat import weights, zoo
from pyfacelat.checkpoints import read
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.images import from_uint8
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.projection.config import ProjectionConfig, Stage, make_config
from pyfacelat.projection.motion import MotionModel, MotionSpace
from pyfacelat.projection.plan import transfers
from pyfacelat.projection.space import LatentSpace, LatentStatistics

ASSETS = Path(pyfacelat.__file__).parent / "assets"
D, MOVES, SHAPES = 20, 4, 3


def world(seed: int = 0) -> tuple[MotionModel, Tensor, Tensor, Tensor]:
    """A world that is linear: motions and shapes act on landmarks, shapes alone on identity."""
    rng = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(D, D, generator=rng, dtype=torch.double))[0]
    motion, shape = axes[:, :MOVES], axes[:, MOVES : MOVES + SHAPES]
    points = torch.randn(136, MOVES + SHAPES, generator=rng, dtype=torch.double) * 0.02
    embed = torch.randn(8, SHAPES, generator=rng, dtype=torch.double)
    answer = points @ torch.cat([motion, shape], 1).T
    model = MotionModel(torch.eye(D, dtype=torch.double), answer, embed @ shape.T)
    return model, motion, shape, answer


def same_span(a: Tensor, b: Tensor) -> float:
    """Smallest cosine of the principal angles between two spans."""
    return float(torch.linalg.svdvals(a.T @ b).min())


def test_identity_tells_motion_from_shape() -> None:
    model, motion, shape, _ = world()
    assert same_span(model.directions(MOVES, keep=1000.0), motion) > 0.99
    everything = model.directions(MOVES + SHAPES)
    assert same_span(everything, torch.cat([motion, shape], 1)) > 0.999
    for keep in (0.0, 1.0):
        found = model.directions(5, keep=keep)
        torch.testing.assert_close(found.T @ found, torch.eye(5, dtype=torch.double))


def test_coefficients_and_stillness_undo_the_model() -> None:
    model, motion, shape, answer = world()
    rng = torch.Generator().manual_seed(1)
    go = torch.randn(3, MOVES, generator=rng, dtype=torch.double)
    moved = (go @ motion.T @ answer.T).reshape(-1, 68, 2)
    found = model.coefficients(moved, motion, torch.ones(68))
    torch.testing.assert_close(found, go, rtol=0.02, atol=0.02)
    # A landmark of no weight says nothing.
    wrong = moved.clone()
    wrong[:, 5] += 10.0
    some = torch.ones(68)
    some[5] = 0
    torch.testing.assert_close(model.coefficients(wrong, motion, some), go, rtol=0.03, atol=0.03)
    own = torch.randn(3, SHAPES, generator=rng, dtype=torch.double)
    apart = (go @ motion.T + own @ shape.T)[:, None].expand(-1, 6, -1) * 0.5
    expected = (0.5 * own @ shape.T @ answer.T).reshape(-1, 68, 2)
    torch.testing.assert_close(model.stillness(apart, motion), expected)


def test_limits() -> None:
    model = world()[0]
    for rank in (0, D + 1):
        with pytest.raises(ValueError, match=f"rank: expected 1 to {D}, got {rank}"):
            model.directions(rank)
    blind = dataclasses.replace(model, identity=None)
    assert blind.directions(3).shape == (D, 3)
    with pytest.raises(ValueError, match="keep: expected 0"):
        blind.directions(3, keep=1.0)


def test_file(tmp_path: Path) -> None:
    model = world()[0]
    for written in (model, dataclasses.replace(model, identity=None)):
        written.save(tmp_path / "m.safetensors", {"networks": "x"})
        again = MotionModel.load(read(tmp_path / "m.safetensors"))
        torch.testing.assert_close(again.points, model.points.float().double())
        assert (again.identity is None) == (written.identity is None)
    with pytest.raises(CheckpointError, match="expected a motion-model"):
        MotionModel.load(read(ASSETS / "fan.safetensors"))
    short = dataclasses.replace(model, points=model.points[:100])
    short.save(tmp_path / "short.safetensors", {})
    with pytest.raises(CheckpointError, match="points"):
        MotionModel.load(read(tmp_path / "short.safetensors"))


def test_space_goes_along_the_directions_only() -> None:
    rng = torch.Generator().manual_seed(2)
    basis = torch.linalg.qr(torch.randn(D, D, generator=rng))[0]
    scale = torch.rand(D, generator=rng) + 0.5
    statistics = LatentStatistics(torch.randn(D, generator=rng), 1.0, basis, scale)
    whole = LatentSpace(statistics, "w+", "whitened", 6)
    pivot = torch.randn(2, 6, D, generator=rng)
    directions = torch.linalg.qr(torch.randn(D, 4, generator=rng))[0]
    space = MotionSpace(whole, pivot, directions)
    theta = torch.randn(2, 6, 4, generator=rng)
    gone = space.outward(theta) - pivot
    torch.testing.assert_close(gone @ directions @ directions.T, gone)
    torch.testing.assert_close(space.inward(gone), theta)
    torch.testing.assert_close(space.to_ws(theta), whole.to_ws(pivot + gone))
    torch.testing.assert_close(space.from_ws(space.to_ws(theta)), theta, atol=1e-4, rtol=1e-4)
    raw = LatentSpace(statistics, "w+", "raw", 6)
    with pytest.raises(ValueError, match="whitened"):
        MotionSpace(raw, pivot, directions)


@pytest.mark.parametrize("preset", ["fast", "balanced", "best"])
def test_both_ways_have_the_same_number_of_steps(preset: str) -> None:
    for config in (
        make_config(preset),
        make_config(preset, steps=31),
        make_config(preset, steps=2),
    ):
        over, optimised = config.planned(transfer=True), config.planned(transfer=False)
        assert [s.subject for s in over] == ["look", "target"]
        assert [s.reach for s in optimised] == ["all", "motion"]
        assert sum(s.steps for s in over) == sum(s.steps for s in optimised) == config.steps
        assert ProjectionConfig.from_json(config.to_json()) == config
    with pytest.raises(ConfigError, match="steps: expected an integer >= 2, got 1"):
        make_config(preset, steps=1)


def test_when_the_motion_is_taken_over() -> None:
    config = make_config("balanced")
    assert transfers(config, image=True, identity=True)
    assert not transfers(config, image=False, identity=True)
    assert not transfers(config, image=True, identity=False)
    for change in (
        {"shape": "take"}, {"pose": "keep"}, {"group_weights": {"jaw": 0.0}},
        {"loss_weights": {"landmark": 3.0}},
    ):  # fmt: skip
        assert not transfers(make_config("balanced", **change), image=True, identity=True)
    assert transfers(
        make_config("balanced", loss_weights={"pixel": 1.0}), image=True, identity=True
    )
    assert not transfers(make_config("reference"), image=True, identity=True)


def test_configurations_that_make_no_sense() -> None:
    config = make_config("balanced")
    with pytest.raises(ConfigError, match="motion_rank: a stage of motion needs directions"):
        dataclasses.replace(config, motion_rank=0)
    with pytest.raises(ConfigError, match='motion_rank: needs coordinates "whitened"'):
        dataclasses.replace(config, coordinates="raw")
    with pytest.raises(ConfigError, match="shape: expected one of take, keep, got 'bend'"):
        make_config("balanced", shape="bend")
    with pytest.raises(ConfigError, match="moves all rows"):
        Stage("s", 5, {"landmark": 1.0}, reach="motion", delta_opening=(0.1, 0.2, 0.3))


def picture(name: str) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(ASSETS / f"{name}.png").convert("RGB").resize((128, 128), 4))


def psnr(a: np.ndarray[Any, Any], b: np.ndarray[Any, Any]) -> float:
    error = ((a.astype(float) - b.astype(float)) ** 2).mean()
    return float(10 * np.log10(255**2 / error))


def test_an_image_gives_its_motion_and_not_its_face() -> None:
    """The ideal is the look's face with the other's pose and expression, drawn by the renderer."""
    seen: list[str] = []
    result = pyfacelat.project(
        ASSETS / "look.png", ASSETS / "landmarks.png", preset="fast", align=False,
        callback=lambda info: seen.append(info.stage),
    )  # fmt: skip
    ideal = picture("ideal")
    assert psnr(result.images[0], ideal) > psnr(picture("look"), ideal) + 4
    assert psnr(result.images[0], ideal) > 21
    assert set(seen) == {"invert", "invert target"}
    assert result.losses["total"].shape[0] == result.config.steps == 80
    assert result.landmark_error < 0.03
    # The film shows the look being found and then moving, never the other face.
    assert len(result.history) == 40 + 20
    torch.testing.assert_close(result.history[-1], result.ws[0].expand_as(result.history[-1]))


def test_points_move_the_face_within_its_looks() -> None:
    pose = picture("landmarks")
    reader = Landmarker(zoo.load_landmarker("sample"))
    points = reader.points(from_uint8(torch.from_numpy(pose.copy()))[None])[0][0] * 128
    result = pyfacelat.project(picture("look"), points, preset="fast", align=False)
    assert result.landmark_error < 0.03
    ideal = picture("ideal")
    assert psnr(result.images[0], ideal) > psnr(picture("look"), ideal) + 2
    assert [stage.name for stage in result.config.stages] == ["invert", "move"]


@pytest.mark.parametrize("stop_at", [2, 6])
def test_stopped_early_is_still_the_looks_face(stop_at: int) -> None:
    """Step 2 is in the look's inversion, step 6 in the target's; neither gives the target."""
    look, pose = picture("look"), picture("landmarks")
    config = make_config("fast", steps=8)
    result = pyfacelat.project(
        look, pose, preset=config, align=False,
        callback=lambda info: info.step < stop_at,
    )  # fmt: skip
    assert psnr(result.images[0], pose) < psnr(result.images[0], picture("ideal"))


def test_interrupted_in_the_targets_inversion_resumes_to_the_same_bits(tmp_path: Path) -> None:
    look, pose = picture("look"), picture("landmarks")
    keywords: dict[str, Any] = {"preset": "fast", "steps": 44, "align": False}
    whole = pyfacelat.project(look, pose, **keywords)

    def stop(info: pyfacelat.StepInfo) -> None:
        if info.stage == "invert target":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pyfacelat.project(look, pose, outdir=tmp_path, callback=stop, **keywords)
    again = pyfacelat.project(look, pose, outdir=tmp_path, resume=True, **keywords)
    assert torch.equal(again.ws, whole.ws)
    assert torch.equal(again.losses["total"], whole.losses["total"])


def test_another_generators_motion_is_learnt_once(
    nets: dict[str, Any], look: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYFACELAT_HOME", str(tmp_path))
    config = dataclasses.replace(make_config("fast", steps=4), motion_samples=24)
    first = pyfacelat.project(look, torch.rand(68, 2) * 32, preset=config, **nets)
    (file,) = (tmp_path / "motion").iterdir()
    assert weights.weights_dirs()[0].parent == tmp_path
    learnt = MotionModel.load(read(file))
    assert learnt.points.shape == (136, 16) and learnt.identity is None
    before = file.stat().st_mtime_ns
    pyfacelat.project(look, torch.rand(68, 2) * 32, preset=config, **nets)
    assert file.stat().st_mtime_ns == before
    assert first.ws.isfinite().all()
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(CheckpointError):
        pyfacelat.project(look, torch.rand(68, 2) * 32, preset=config, **nets)
