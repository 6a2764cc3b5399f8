"""`animate` on small random networks: both modes, their files, and how they go on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pyfacelat
from pyfacelat.animation import AnimationConfig, AnimationStep, make_animation
from pyfacelat.animation.studio import interpolate, keyframes
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.images import to_uint8
from pyfacelat.latents import load_latents
from pyfacelat.projection import ProjectionConfig
from pyfacelat.projection.config import TEMPORAL
from pyfacelat.video import read_frames

SHORT = {"steps": 6, "frame_steps": 4}
MODES = ("joint", "sequential")


def animate(look: Tensor, driving: Any, nets: dict[str, Any], **settings: Any) -> Any:
    return pyfacelat.animate(look, driving, **{**nets, **SHORT, **settings})


def test_l8_five_images_from_three_frames(
    nets: dict[str, Any], look: Tensor, clip: Tensor, tmp_path: Path
) -> None:
    """L8: frames and those half way between, each with its latents; one set of noise maps."""
    result = animate(look, clip[:3], nets, mode="sequential", preset="reference", midpoints=True)
    result.save(tmp_path, frames=True)
    names = sorted(path.name for path in (tmp_path / "frames").glob("*.png"))
    assert names == ["proj_0_1.png", "proj_1_0.png", "proj_1_1.png", "proj_2_0.png", "proj_2_1.png"]
    ws = {n: load_latents(tmp_path / "frames" / n.replace("png", "npz")) for n in names}
    middle = (ws["proj_0_1.png"] + ws["proj_1_1.png"]) / 2
    assert torch.equal(ws["proj_1_0.png"], middle)
    noise = {k: v[0] for k, v in result.noise.items()}
    saved = np.load(tmp_path / "noise.npz")
    assert all((saved[name] == maps.numpy()).all() for name, maps in noise.items())
    own = dict(nets["network"].named_buffers())
    assert not any(torch.equal(maps, own[name]) for name, maps in noise.items())
    for name in names:  # all five with the noise of the first frame
        image = nets["network"].synthesis(ws[name], noise=result.noise)
        picture = np.asarray(Image.open(tmp_path / "frames" / name))
        assert (to_uint8(image)[0].numpy() == picture).all()


def test_l8_smoothness_ties_frames_together(
    nets: dict[str, Any], look: Tensor, clip: Tensor
) -> None:
    """L8: mean |w_i - w_{i-1}| falls as the weight rises from 0 to 1."""
    moved = []
    for weight in (0.0, 0.05, 1.0):
        weights = {"smoothness": weight, "fidelity": 0.0}
        settings: dict[str, Any] = {"preset": "reference", "frame_steps": 12}
        ws = animate(look, clip[:3], nets, mode="sequential", loss_weights=weights, **settings).ws
        moved.append(float((ws[1:] - ws[:-1]).norm(dim=(1, 2)).mean()))
    assert moved[0] > moved[1] > moved[2]


def test_l8_published_settings() -> None:
    """L8: weights, steps, W+, and what is frozen after the first frame."""
    config = make_animation("sequential", "reference")
    (first,), (frame,) = config.first_stages, config.frame_stages
    assert not config.look_stages
    assert make_animation("sequential", "reference", space="w+").projection.space == "w+"
    assert first.steps == frame.steps == 1000
    shared = {"perceptual": 1.0, "landmark": 0.1, "fidelity": 0.05}
    assert dict(first.weights) == {**shared, "noise": 1e5}
    assert dict(frame.weights) == {**shared, "smoothness": 0.05}
    assert first.optimise_noise and not frame.optimise_noise
    assert first.learning_rate == frame.learning_rate == 0.1
    assert not first.keep_best and not frame.keep_best
    batched = make_animation("joint", "reference")
    (look,), (joint,) = batched.look_stages, batched.frame_stages
    assert (look.steps, joint.steps) == (1000, 100)
    assert dict(look.weights) == {"perceptual": 2.0, "noise": 1e5}
    assert dict(joint.weights) == {"perceptual": 2.0, "landmark": 0.1, "smoothness": 0.005}


@pytest.mark.parametrize("preset", ["reference", "balanced"])
def test_l9_one_batch_equals_a_loop(
    nets: dict[str, Any], look: Tensor, clip: Tensor, preset: str
) -> None:
    """L9: without terms between frames, each is what it is alone."""
    # In float64: random networks amplify float32's rounding, which depends on the batch size.
    off = {"smoothness": 0.0, "acceleration": 0.0, "jitter": 0.0}
    settings = {"preset": preset, "keyframe_every": 1, "dtype": "float64", "loss_weights": off}
    settings |= {"steps": 10, "frame_steps": 10}
    together = animate(look, clip[:3], nets, **settings)
    alone = [animate(look, frame[None], nets, **settings) for frame in clip[:3]]
    assert (together.ws - torch.cat([one.ws for one in alone])).abs().max() < 1e-3
    assert 0 < together.frames_per_second < 3 / together.timings["frames"]


@pytest.mark.parametrize("mode", MODES)
def test_frames_follow_the_track(
    nets: dict[str, Any], look: Tensor, clip: Tensor, mode: str
) -> None:
    """More steps come closer to the landmark maps of each frame."""
    off = dict.fromkeys(("colour", "pull", "spread", *TEMPORAL), 0.0)
    settings: dict[str, Any] = {"mode": mode, "loss_weights": {"landmark": 20.0, **off}}
    few = animate(look, clip, nets, **settings).losses["frames"]["landmark"]
    many = animate(look, clip, nets, **{**settings, "steps": 40, "frame_steps": 40}).losses
    assert float(many["frames"]["landmark"][-1].mean()) < float(few[-1].mean())


def test_joint_is_steadier_than_frames_apart(
    nets: dict[str, Any], look: Tensor, clip: Tensor
) -> None:
    """The second difference of the latents falls under its term."""

    def bends(weight: float) -> float:
        weights = {"acceleration": weight, "jitter": 0.0}
        result = animate(look, clip, nets, loss_weights=weights, frame_steps=20, keyframe_every=1)
        return float((result.ws[2:] - 2 * result.ws[1:-1] + result.ws[:-2]).square().mean())

    assert bends(100.0) < 0.8 * bends(0.0)


def test_joint_in_parts_begins_where_the_whole_does(
    nets: dict[str, Any], look: Tensor, clip: Tensor
) -> None:
    """Batches of two frames: the same loss at step 0 as in one batch, neighbours included."""
    settings: dict[str, Any] = {"dtype": "float64", "frame_steps": 1, "keyframe_every": 2}
    settings["loss_weights"] = {"jitter": 0.0, "smoothness": 0.5}
    # With a rate of 0 in the first step the parts cannot move apart.
    whole = animate(look, clip, nets, **settings)
    parts = animate(look, clip, nets, batch=2, **settings)
    for term in ("acceleration", "landmark"):
        a, b = (r.losses["frames"][term].sum() for r in (whole, parts))
        # A bend at the seam is counted by both parts.
        assert float(b) >= float(a) - 1e-9 if term == "acceleration" else torch.isclose(a, b)
    assert torch.allclose(whole.ws, parts.ws, atol=1e-6)


@pytest.mark.parametrize("mode", MODES)
def test_interrupted_and_resumed_gives_the_same_bits(
    nets: dict[str, Any], look: Tensor, clip: Tensor, mode: str, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"mode": mode, "preset": "balanced", "steps": 50, "frame_steps": 20}
    undisturbed = animate(look, clip[:3], nets, **settings)
    calls = []

    def interrupt(step: AnimationStep) -> None:
        calls.append(step.step)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        animate(look, clip[:3], nets, **settings, outdir=tmp_path, callback=interrupt)
    assert (tmp_path / "state.safetensors").is_file()
    with pytest.raises(CheckpointError, match="other inputs"):
        animate(look, clip[1:4], nets, **settings, outdir=tmp_path, resume=True)
    after: list[int] = []
    resumed = animate(
        look, clip[:3], nets, **settings, outdir=tmp_path, resume=True,
        callback=lambda step: after.append(step.step),
    )  # fmt: skip
    assert min(after) > calls[-1]  # nothing is done twice
    assert torch.equal(resumed.ws, undisturbed.ws)
    assert (resumed.images == undisturbed.images).all()
    for phase, curves in undisturbed.losses.items():
        for term, values in curves.items():
            assert torch.equal(values, resumed.losses[phase][term])
    assert not (tmp_path / "state.safetensors").exists()


def test_a_callback_sees_frames_and_stops(nets: dict[str, Any], look: Tensor, clip: Tensor) -> None:
    seen = []

    def stop(step: AnimationStep) -> bool:
        seen.append(step)
        return step.frames != (1,)

    result = animate(look, clip, nets, mode="sequential", callback=stop)
    assert [step.frames for step in seen] == [(), (0,), (1,)]
    assert seen[-1].count == 5 and seen[-1].steps == 6 + 4 * 4
    assert seen[-1].image().shape == (1, 32, 32, 3)
    assert len(result) == len(result.images) == len(result.target_landmarks) == 2
    assert not result.complete


def test_all_files_are_written(
    nets: dict[str, Any], look: Tensor, clip: Tensor, tmp_path: Path
) -> None:
    result = animate(look, clip, nets, outdir=tmp_path, fps=12.0)
    assert {path.name for path in tmp_path.iterdir()} == {
        "projected_w.npz", "noise.npz", "target_look.png", "strip.png", "result.json",
        "report.html", "animation.mp4", "side_by_side.mp4",
    }  # fmt: skip
    ws = load_latents(tmp_path / "projected_w.npz")
    assert torch.equal(ws, result.ws)
    generator = nets["network"]
    for index in range(5):
        image = generator.synthesis(ws[index : index + 1], noise=result.noise)
        assert (to_uint8(image)[0].numpy() == result.images[index]).all()
    shapes = [
        [frame.shape for frame in read_frames(tmp_path / name)]
        for name in ("animation.mp4", "side_by_side.mp4")
    ]
    assert shapes == [[(32, 32, 3)] * 5, [(256, 512, 3)] * 5]
    summary = json.loads((tmp_path / "result.json").read_text())
    assert summary["frames"] == len(summary["landmark_error"]) == 5
    assert summary["fps"] == 12
    assert {"jitter", "lag", "flicker", "driving_flicker"} <= set(summary["metrics"])
    assert AnimationConfig.from_json(json.dumps(summary["config"])) == result.config
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2 + 1 + 3  # frames, errors, losses of 3 phases
    assert "http" not in page and "<script" not in page
    assert "jitter" in page and "outer_lip" in page


def test_a_configuration_decides(nets: dict[str, Any], look: Tensor, clip: Tensor) -> None:
    config = make_animation("sequential", steps=6, frame_steps=4, seed=5)
    assert AnimationConfig.from_json(config.to_json()) == config
    a = pyfacelat.animate(look, clip[:2], **nets, preset=config)
    b = animate(look, clip[:2], nets, mode="sequential", seed=5)
    assert torch.equal(a.ws, b.ws)


@pytest.mark.parametrize(
    "settings, words",
    [
        ({"mode": "parallel"}, "mode: expected one of joint, sequential, got 'parallel'"),
        ({"keyframe_every": 0}, "keyframe_every: expected an integer >= 1, got 0"),
        ({"batch": True}, "batch: expected an integer"),
        ({"track_sigma": -1.0}, "track_sigma: expected frames, >= 0"),
        ({"steps": 1}, "^steps: expected an integer >= 2"),
        ({"frame_steps": 0}, "^frame_steps: expected an integer >= 1"),
        ({"loss_weights": {"smoothnes": 1.0}}, "did you mean 'smoothness'"),
        ({"resume": True}, "resume: expected an outdir"),
        ({"preset": "unheard"}, "preset: expected one of"),
    ],
)
def test_settings_are_checked(
    nets: dict[str, Any], look: Tensor, clip: Tensor, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        animate(look, clip, nets, **settings)


def test_a_preset_without_landmarks_follows_nothing() -> None:
    config = dataclasses.replace(make_animation().projection)
    blind = dataclasses.replace(config, stages=config.stages[:1])
    with pytest.raises(ConfigError, match="follows no track"):
        make_animation(preset=blind)
    with pytest.raises(ConfigError, match="not an animation"):
        AnimationConfig.from_json(ProjectionConfig.to_json(config))


def test_temporal_terms_are_for_clips(nets: dict[str, Any], look: Tensor) -> None:
    with pytest.raises(ConfigError, match="smoothness: is for the frames of a clip"):
        pyfacelat.project(look, **nets, loss_weights={"smoothness": 1.0})


def test_the_spline() -> None:
    """Exact for straight lines, through every keyframe, and with steady slopes between them."""
    assert keyframes(1, 6) == [0]
    assert keyframes(2, 6) == [0, 1]
    assert keyframes(13, 6) == [0, 6, 12]
    assert keyframes(10, 6) == [0, 4, 9]  # as even as whole frames can be
    line = torch.tensor([[0.0, 1.0], [4.0, -3.0], [9.0, -8.0]], dtype=torch.float64)
    found = interpolate([0, 4, 9], line, 10)
    expected = torch.arange(10, dtype=torch.float64)[:, None] * torch.tensor([1.0, -1.0])
    assert torch.allclose(found, expected + torch.tensor([0.0, 1.0]))
    times = [0, 5, 10, 15, 20]
    wave = torch.sin(torch.tensor(times, dtype=torch.float64) / 5)[:, None]
    curve = interpolate(times, wave, 21)
    assert torch.allclose(curve[times], wave)
    bends = curve[2:] - 2 * curve[1:-1] + curve[:-2]
    assert float(bends.diff(dim=0).abs().max()) < 0.02  # continuous: no kink at a keyframe
    assert torch.equal(interpolate([0], line[:1], 3), line[:1].expand(3, 2))
