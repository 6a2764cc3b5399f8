"""`project` as a user calls it, on small random networks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import pyfacelat
from pyfacelat._extension import use_backend
from pyfacelat.errors import (
    ConfigError,
    DeviceError,
    ImageError,
    LandmarkError,
    NonFiniteError,
    OutdirBusyError,
)
from pyfacelat.faces.groups import GROUPS
from pyfacelat.images import to_uint8
from pyfacelat.projection import ProjectionConfig, StepInfo, make_config

from .conftest import SIZE, make_generator

REFERENCE: dict[str, Any] = {"preset": "reference", "space": "w"}


def test_l1_loss_falls_below_a_third(nets: dict[str, Any], look: Tensor) -> None:
    """L1: the target is an image of the generator's own."""
    result = pyfacelat.project(look, **nets, **REFERENCE, steps=100)
    total = result.losses["total"][:, 0]
    assert total[-1] < 0.3 * total[0]


@pytest.mark.parametrize("term, other", [("landmark", "perceptual"), ("perceptual", "landmark")])
def test_l1_each_term_falls_alone(
    nets: dict[str, Any], look: Tensor, pose: Tensor, term: str, other: str
) -> None:
    result = pyfacelat.project(look, pose, **nets, **REFERENCE, steps=60, loss_weights={other: 0.0})
    values = result.losses[term][:, 0]
    assert values[-1] < 0.8 * values[0]
    assert other not in result.losses


def test_l1_same_seed_same_bits_and_global_rng_untouched(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    torch.manual_seed(7)
    np.random.seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = pyfacelat.project(look, pose, **nets, **REFERENCE, steps=8)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    again = pyfacelat.project(look, pose, **nets, **REFERENCE, steps=8)
    other = pyfacelat.project(look, pose, **nets, **REFERENCE, steps=8, seed=304)
    assert torch.equal(first.ws, again.ws)
    assert not torch.equal(first.ws, other.ws)


def test_l2_w_has_equal_rows_and_w_plus_does_not(nets: dict[str, Any], look: Tensor) -> None:
    """L2."""
    w = pyfacelat.project(look, **nets, preset="reference", space="w", steps=10).ws
    w_plus = pyfacelat.project(look, **nets, preset="reference", space="w+", steps=10).ws
    assert torch.equal(w, w[:, :1].expand_as(w))
    assert not torch.allclose(w_plus, w_plus[:, :1].expand_as(w_plus))


@pytest.mark.parametrize("preset", ["reference", "balanced"])
def test_batch_equals_singles(
    nets: dict[str, Any], look: Tensor, pose: Tensor, preset: str
) -> None:
    # In float64: random networks amplify float32's rounding, which depends on the batch size.
    settings = {**nets, "preset": preset, "steps": 50, "dtype": "float64"}
    together = pyfacelat.project(torch.stack([look, pose]), pose, **settings)
    alone = [pyfacelat.project(image, pose, **settings) for image in (look, pose)]
    for index, single in enumerate(alone):
        assert (together.ws[index] - single.ws[0]).abs().max() < 1e-5


@pytest.mark.parametrize("preset", ["reference", "balanced"])
def test_l7_saved_latents_and_noise_render_the_saved_image(
    nets: dict[str, Any], look: Tensor, pose: Tensor, preset: str, tmp_path: Path
) -> None:
    """L7, the re-rendering."""
    pyfacelat.project(look, pose, **nets, preset=preset, steps=6, outdir=tmp_path)
    w = np.load(tmp_path / "projected_w.npz", allow_pickle=False)["w"]
    noise = np.load(tmp_path / "noise.npz", allow_pickle=False)
    generator = nets["network"]
    assert w.shape == (1, generator.num_ws, generator.w_dim)
    assert w.dtype == np.float32
    maps = {name: torch.from_numpy(noise[name]) for name in noise.files}
    assert set(maps) == set(generator.noise_names())
    image = generator.synthesis(torch.from_numpy(w), noise=maps)
    assert (to_uint8(image)[0].numpy() == np.asarray(Image.open(tmp_path / "proj.png"))).all()


def test_l7_all_files_are_written(nets: dict[str, Any], look: Tensor, tmp_path: Path) -> None:
    result = pyfacelat.project(look, **nets, steps=4, outdir=tmp_path)
    result.save(tmp_path, video=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        "projected_w.npz", "noise.npz", "proj.png", "target_look.png", "target_landmarks.png",
        "strip.png", "losses.png", "result.json", "report.html", "proj.mp4",
    }  # fmt: skip
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["steps"] == 4
    assert set(summary["landmark_error_by_group"]) == set(GROUPS)
    assert ProjectionConfig.from_json(json.dumps(summary["config"])) == result.config
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 3
    assert "http" not in page.replace("http-equiv", "")


def test_l7_video_has_a_frame_per_step_and_the_final_one(
    nets: dict[str, Any], look: Tensor, tmp_path: Path
) -> None:
    av = pytest.importorskip("av")
    pyfacelat.project(look, **nets, steps=5).save(tmp_path, video=True)
    with av.open(str(tmp_path / "proj.mp4")) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert container.streams.video[0].average_rate == 30
    assert len(frames) == 6
    assert frames[0].shape == (256, 1024, 3)


def test_batch_goes_to_numbered_folders(
    nets: dict[str, Any], look: Tensor, pose: Tensor, tmp_path: Path
) -> None:
    pyfacelat.project([look, pose], **nets, steps=2, outdir=tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000", "001"]
    assert (tmp_path / "001" / "proj.png").is_file()


def test_losses_are_recorded_per_term_step_and_image(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    result = pyfacelat.project([look, pose], pose, **nets, steps=10)
    assert set(result.losses) == {
        "perceptual",
        "pixel",
        "prior",
        "spread",
        "landmark",
        "pull",
        "total",
    }
    assert all(values.shape == (10, 2) for values in result.losses.values())
    invert = result.config.stages[0].steps
    assert torch.isnan(result.losses["landmark"][:invert]).all()
    assert torch.isfinite(result.losses["landmark"][invert:]).all()
    assert torch.isfinite(result.losses["total"]).all()


def test_l12_points_as_target(nets: dict[str, Any], look: Tensor) -> None:
    """L12, the part that lives here: points in pixels of the look image."""
    points = torch.rand(68, 2) * SIZE
    result = pyfacelat.project(look, points, **nets, steps=2)
    torch.testing.assert_close(result.target_landmarks[0], points)
    assert result.landmark_image is None
    assert result.strip().size[0] > 4 * 256


def test_callback_sees_progress_and_stops(nets: dict[str, Any], look: Tensor) -> None:
    seen: list[StepInfo] = []

    def callback(info: StepInfo) -> bool:
        seen.append(info)
        assert info.image().shape == (1, SIZE, SIZE, 3)
        return len(seen) < 2

    result = pyfacelat.project(look, **nets, **REFERENCE, steps=100, callback=callback)
    assert [info.step for info in seen] == [20, 40]
    assert seen[0].steps == 100
    assert set(seen[0].losses) == {"perceptual", "landmark", "noise", "total"}
    assert len(result.losses["total"]) == 40


def test_optimised_noise_is_standard_and_part_of_the_result(
    nets: dict[str, Any], look: Tensor
) -> None:
    result = pyfacelat.project(look, **nets, **REFERENCE, steps=30)
    for name, maps in result.noise.items():
        assert maps.mean().abs() < 1e-6
        assert abs(float(maps.square().mean()) - 1) < 1e-5
        assert not torch.equal(maps[0], dict(nets["network"].named_buffers())[name])


def test_network_without_noise(nets: dict[str, Any], look: Tensor) -> None:
    nets["network"] = make_generator(use_noise=False)
    result = pyfacelat.project(look, **nets, **REFERENCE, steps=3)
    assert result.noise == {}
    assert "noise" not in result.losses
    assert torch.isfinite(result.losses["total"]).all()


def test_generator_is_not_changed(nets: dict[str, Any], look: Tensor) -> None:
    before = {name: value.clone() for name, value in nets["network"].state_dict().items()}
    pyfacelat.project(look, **nets, **REFERENCE, steps=3)
    assert all(torch.equal(before[k], v) for k, v in nets["network"].state_dict().items())


def test_keep_best_never_ends_worse_than_the_best_settled_step(
    nets: dict[str, Any], look: Tensor
) -> None:
    result = pyfacelat.project(
        look, **nets, preset=_one_stage(learning_rate=1.0), steps=20, loss_weights={"pixel": 1.0}
    )
    image = torch.from_numpy(result.images[0]).permute(2, 0, 1)[None] / 127.5 - 1
    small = nn.functional.interpolate(image - look, size=16, mode="area")
    final = float(small.square().mean())
    assert final <= float(result.losses["pixel"][15:].min()) * 1.02 + 1e-4


def _one_stage(**changes: Any) -> ProjectionConfig:
    config = make_config("balanced")
    stage = dataclasses.replace(config.stages[0], weights={"pixel": 1.0}, **changes)
    return dataclasses.replace(config, stages=(stage,))


def test_projector_is_built_once_and_serves_many(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    projector = pyfacelat.Projector(**nets, steps=6)
    first, second = projector.project(look, pose), projector.project(pose)
    assert torch.equal(first.ws, pyfacelat.project(look, pose, **nets, steps=6).ws)
    assert torch.equal(second.ws, pyfacelat.project(pose, **nets, steps=6).ws)


def test_start_from_given_latents(nets: dict[str, Any], look: Tensor, tmp_path: Path) -> None:
    ws = torch.randn(nets["network"].num_ws, 16, generator=torch.Generator().manual_seed(1))
    np.save(tmp_path / "start.npy", ws.numpy())
    for init in (ws, tmp_path / "start.npy", str(tmp_path / "start.npy")):
        result = pyfacelat.project(look, **nets, **REFERENCE | {"space": "w+"}, steps=1, init=init)
        torch.testing.assert_close(result.ws[0], ws, rtol=0, atol=1e-5)


def test_compiled_ops_and_references_give_the_same_result(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    settings = {**nets, "steps": 10, "dtype": "float64"}
    compiled = pyfacelat.project(look, pose, **settings)
    with use_backend("reference"):
        plain = pyfacelat.project(look, pose, **settings)
    assert {used for op, used in plain.backends.items() if op != "landmark_term"} == {"reference"}
    torch.testing.assert_close(compiled.ws, plain.ws, rtol=0, atol=1e-5)


def test_pictures_of_a_result(nets: dict[str, Any], look: Tensor, pose: Tensor) -> None:
    result = pyfacelat.project([look, pose], pose, **nets, steps=2)
    assert result.pil(1).size == (SIZE, SIZE)
    assert result.plot().size[0] > 400
    assert result._repr_html_().count("data:image/png;base64,") == 2
    assert len(result) == 2 and result.landmark_error.shape == (2,)


class TestWrongInputs:
    """Each raises the right error, and before any network runs."""

    @pytest.mark.parametrize(
        "change, error, words",
        [
            ({"preset": "balance"}, ConfigError, "did you mean 'balanced'"),
            ({"space": "z"}, ConfigError, "space: expected one of w, w+"),
            ({"steps": 0}, ConfigError, "steps: expected an integer >= 2, got 0"),
            ({"steps": True}, ConfigError, "steps"),
            ({"seed": -1}, ConfigError, "seed"),
            ({"seed": 1.5}, ConfigError, "seed"),
            ({"device": "cuda:99"}, DeviceError, "cuda:99"),
            ({"device": "tpu"}, DeviceError, "device"),
            ({"dtype": "float16"}, ConfigError, "dtype: expected one of"),
            ({"align": "yes"}, ConfigError, "align"),
            ({"face": "smallest"}, ConfigError, "face"),
            ({"graph": True}, ConfigError, "graph"),
            ({"loss_weights": {"lpips": 1.0}}, ConfigError, "expected one of perceptual"),
            ({"loss_weights": {"pixel": float("nan")}}, ConfigError, "pixel"),
            ({"loss_weights": {"pixel": -1.0}}, ConfigError, "pixel"),
            ({"group_weights": {"left_eyes": 1.0}}, LandmarkError, "did you mean 'left_eye'"),
            ({"group_weights": [1.0] * 8}, LandmarkError, "expected 9 weights"),
            ({"group_weights": [0.0] * 9}, LandmarkError, "only zeros"),
            ({"init": torch.zeros(3, 5)}, ConfigError, "init: latents: expected"),
            ({"init": "encoder"}, ConfigError, "needs one for this network"),
            ({"resume": True}, ConfigError, "outdir"),
        ],
    )
    def test_setting(
        self,
        nets: dict[str, Any],
        look: Tensor,
        change: dict[str, Any],
        error: type[Exception],
        words: str,
    ) -> None:
        with pytest.raises(error, match=words.replace("+", r"\+")):
            pyfacelat.project(look, **{**nets, "steps": 4, **change})

    @pytest.mark.parametrize(
        "bad, words",
        [
            (torch.zeros(3, 8, 8, dtype=torch.uint8), "look: tensor: expected float"),
            (torch.zeros(1, 8, 8), "expected shape"),
            (torch.full((3, 8, 8), 200.0), r"expected values in \[-1, 1\]"),
            (torch.full((3, 8, 8), float("nan")), "finite"),
            (np.zeros((8, 8, 3), np.float32), "expected uint8"),
            (np.zeros((8, 8, 5), np.uint8), "expected uint8"),
            ([], "empty list"),
            ("no-such-file.png", "no-such-file.png"),
            (17, "look"),
        ],
    )
    def test_look(self, nets: dict[str, Any], bad: Any, words: str) -> None:
        with pytest.raises(ImageError, match=words):
            pyfacelat.project(bad, **nets)

    @pytest.mark.parametrize(
        "bad, words",
        [
            (torch.zeros(67, 2), r"expected points \[68,2\]"),
            (torch.zeros(98, 2), r"expected points \[68,2\]"),
            (torch.full((68, 2), float("nan")), "finite"),
            (torch.rand(68, 2), "multiply relative points by its side"),
            (torch.full((68, 2), 500.0), "expected pixels of an image of side 32"),
            (torch.zeros(3, 68, 2), "expected 1 or 1 sets"),
        ],
    )
    def test_landmarks(self, nets: dict[str, Any], look: Tensor, bad: Tensor, words: str) -> None:
        with pytest.raises(LandmarkError, match=words):
            pyfacelat.project(look, bad, **nets)

    def test_conditional_network(self, nets: dict[str, Any], look: Tensor) -> None:
        nets["network"] = make_generator(c_dim=4)
        with pytest.raises(ConfigError, match="c_dim=4"):
            pyfacelat.project(look, **nets)


def test_non_finite_loss_names_step_and_term_and_keeps_the_last_finite_state(
    nets: dict[str, Any], look: Tensor, tmp_path: Path
) -> None:
    class Breaking(nn.Module):
        calls = 0

        def embed(self, images: Tensor) -> Tensor:
            return images

        def distance(self, a: Tensor, b: Tensor) -> Tensor:
            Breaking.calls += 1
            value = (a - b).square().mean((1, 2, 3))
            return value * (float("nan") if Breaking.calls > 27 else 1.0)

    nets["perceptual"] = Breaking()
    with pytest.raises(NonFiniteError, match="step 27: perceptual of image 0 became nan"):
        pyfacelat.project(look, **nets, **REFERENCE, steps=60, outdir=tmp_path)
    w = np.load(tmp_path / "projected_w.npz", allow_pickle=False)["w"]
    assert np.isfinite(w).all()


def test_outdir_in_use(nets: dict[str, Any], look: Tensor, tmp_path: Path) -> None:
    def callback(info: StepInfo) -> None:
        with pytest.raises(OutdirBusyError, match="another run"):
            pyfacelat.project(look, **nets, steps=2, outdir=tmp_path)

    pyfacelat.project(look, **nets, steps=4, outdir=tmp_path, callback=callback)


@pytest.mark.parametrize("preset", ["reference", "balanced"])
@pytest.mark.parametrize("stop_at", [20, 60])
def test_interrupted_and_resumed_gives_the_same_bits(
    nets: dict[str, Any], look: Tensor, pose: Tensor, tmp_path: Path, preset: str, stop_at: int
) -> None:
    whole = pyfacelat.project(look, pose, **nets, preset=preset, steps=90)

    def interrupt(info: StepInfo) -> None:
        if info.step >= stop_at:
            raise KeyboardInterrupt

    settings = {**nets, "preset": preset, "steps": 90, "outdir": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        pyfacelat.project(look, pose, **settings, callback=interrupt)
    assert (tmp_path / "state.safetensors").is_file()
    resumed = pyfacelat.project(look, pose, **settings, resume=True)
    assert torch.equal(resumed.ws, whole.ws)
    assert torch.equal(resumed.history, whole.history)
    for name, values in whole.losses.items():
        torch.testing.assert_close(resumed.losses[name], values, rtol=0, atol=0, equal_nan=True)


def test_state_of_another_run_is_refused(
    nets: dict[str, Any], look: Tensor, pose: Tensor, tmp_path: Path
) -> None:
    def interrupt(info: StepInfo) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pyfacelat.project(look, **nets, steps=90, outdir=tmp_path, callback=interrupt)
    with pytest.raises(pyfacelat.CheckpointError, match="other inputs"):
        pyfacelat.project(pose, **nets, steps=90, outdir=tmp_path, resume=True)
