"""Face spaces: data, training, blends, morphs, files (F1, F3, F6 to F12)."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pyfacelat.errors import CheckpointError, ConfigError, ImageError, NoFaceError
from pyfacelat.facespace import FaceData, FaceSpace, FitConfig, fit, load_faces, points_vector
from pyfacelat.facespace import train as fitting
from pyfacelat.facespace.charts import scatter, scatter_chart, weight_chart
from pyfacelat.facespace.features import features_of
from pyfacelat.facespace.frames import frames_from_video
from pyfacelat.facespace.train import phases
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.video import write_mp4

from .conftest import NAMES, SIZE, blurred


def test_f1_frames_from_video(tmp_path: Path) -> None:
    clip = [np.full((32, 48, 3), 8 * i, np.uint8) for i in range(30)]
    write_mp4(tmp_path / "clip.mp4", clip)
    files = frames_from_video(tmp_path / "clip.mp4", tmp_path / "out", step=10)
    assert [file.name for file in files] == [f"frame-00{i}0.jpg" for i in range(3)]
    for number, file in zip((0, 10, 20), files, strict=True):
        assert abs(float(np.asarray(Image.open(file)).mean()) - 8 * number) < 4
    some = frames_from_video(
        tmp_path / "clip.mp4", tmp_path / "b", start=5, stop=20, step=7, rotate=90
    )
    assert [file.stem for file in some] == ["frame-0005", "frame-0012", "frame-0019"]
    assert Image.open(some[0]).size == (32, 48)
    with pytest.raises(ConfigError, match="step"):
        frames_from_video(tmp_path / "clip.mp4", tmp_path, step=0)
    with pytest.raises(ImageError, match="no frame"):
        frames_from_video(tmp_path / "clip.mp4", tmp_path, start=99)
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(ImageError, match="not a readable video"):
        frames_from_video(tmp_path / "no.mp4", tmp_path)


def test_f3_face_data(folder: Path, data: FaceData) -> None:
    assert data.names == NAMES
    assert data.images.shape == (4, 3, SIZE, SIZE)
    assert torch.equal(data.z, torch.eye(4)) and not data.train_z
    wide = load_faces(folder, SIZE, z_dims=7)
    assert wide.z.shape == (4, 7) and wide.train_z
    assert (wide.z.norm(dim=1) > 0).all()


def test_f5_faces_without_one_detection_are_dropped(folder: Path) -> None:
    points = torch.rand(68, 2, generator=torch.Generator().manual_seed(0))
    seen = iter([1, 0, 2, 1])

    def detector(image: torch.Tensor) -> torch.Tensor:
        return points.expand(next(seen), -1, -1)

    with pytest.warns(UserWarning, match="faces seen, left out"):
        data = load_faces(folder, SIZE, points_of=detector)
    assert data.names == ["anna", "dora"] and data.kind == "landmarks"
    assert data.images.shape[0] == 2 and data.z.shape == (2, 136)
    assert torch.equal(data.z[0], (points * 1024).flatten())
    with pytest.raises(NoFaceError), pytest.warns(UserWarning):
        load_faces(folder, SIZE, points_of=lambda image: torch.zeros(0, 68, 2))


def test_folders_without_faces(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no pictures"):
        load_faces(tmp_path, SIZE)
    with pytest.raises(ConfigError, match="expected a folder"):
        load_faces(tmp_path / "gone", SIZE)
    with pytest.raises(ConfigError, match="z_dims"):
        load_faces(tmp_path, SIZE, z_dims=0)


def test_f6_phases_and_rates() -> None:
    plan = phases(FitConfig(fine_tune=True, cycle_rate=1))
    assert [(p.name, p.epochs) for p in plan] == [
        ("targets", 200), ("cycle 1", 200), ("cycle 2", 200), ("fine-tune", 100)
    ]  # fmt: skip
    np.testing.assert_allclose([p.rate for p in plan], [1e-2, 1e-2, 1e-3, 1e-4])
    assert [p.pixel_weight for p in plan] == [1e2, 1e2, 1e2, 1e4]
    np.testing.assert_allclose([p.rate for p in phases(FitConfig())], [1e-2, 1e-3, 1e-4])


def test_f6_every_face_is_nearest_to_its_own_vector(space: FaceSpace, data: FaceData) -> None:
    plan = [(p.name, p.rate) for p in phases(FitConfig(fine_tune=True))]
    assert [(part["phase"], part["rate"]) for part in space.history] == plan
    made = torch.from_numpy(space.render(torch.eye(4))).permute(0, 3, 1, 2).float() / 127.5 - 1
    error = (made[:, None] - data.images[None]).square().mean((2, 3, 4))  # [vector,face]
    assert torch.equal(error.argmin(1), torch.arange(4)), error


def test_f7_target_propagation(space: FaceSpace) -> None:
    targets = space.history[0]
    assert targets["image"][-1] < 0.5 * targets["image"][0]
    assert targets["latent"][-1] < 0.5 * max(targets["latent"])
    assert len(targets["image"]) == len(targets["latent"]) == 60
    assert "latent" not in space.history[1]
    last = space.history[-2]["image"]
    assert last[-1] < targets["image"][0]


def test_a_fit_repeats(data: FaceData, generator: Generator) -> None:
    config = FitConfig(epochs=2, cycles=1)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    one, two = (fit(data, generator, blurred, config) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(one.ws(one.z), two.ws(two.z))
    other = fit(data, generator, blurred, FitConfig(epochs=2, cycles=1, seed=1))
    assert not torch.equal(other.ws(one.z), one.ws(one.z))


@pytest.mark.parametrize("stop_at", [3, 4, 9])
def test_an_interrupted_fit_goes_on_to_the_same_bits(
    data: FaceData,
    generator: Generator,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stop_at: int,
) -> None:
    """In the middle of a phase and at the end of one; losses of the epochs before are kept."""
    monkeypatch.setattr(fitting, "SAVE_EVERY", 0.0)
    trained = dataclasses.replace(data, z=torch.eye(len(data)) + 0.1, train_z=True)
    config = FitConfig(epochs=4)
    whole = fit(trained, generator, blurred, config)
    seen = []

    def stop(*told: object) -> None:
        seen.append(told)
        if len(seen) == stop_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(trained, generator, blurred, config, progress=stop, outdir=tmp_path)
    with pytest.raises(CheckpointError, match="belongs to a run with other"):
        fit(data, generator, blurred, config, outdir=tmp_path, resume=True)
    rest = []
    space = fit(
        trained, generator, blurred, config, outdir=tmp_path, resume=True,
        progress=lambda *told: rest.append(told),
    )  # fmt: skip
    assert len(rest) == 12 - stop_at
    assert space.history == whole.history
    for name, value in whole.encoder.state_dict().items():
        assert torch.equal(value, space.encoder.state_dict()[name]), name
    assert not list(tmp_path.iterdir())  # a fit that is done leaves no state
    with pytest.raises(ConfigError, match="resume: expected an outdir"):
        fit(data, generator, None, config, resume=True)


def test_targets_mean_and_trained_vectors(folder: Path, generator: Generator) -> None:
    data = load_faces(folder, SIZE, z_dims=5)
    start = torch.randn(4, generator.num_ws, 16)
    data.targets = start
    told: list[tuple[str, int, int, float]] = []
    space = fit(
        data,
        generator,
        None,
        FitConfig(epochs=1, cycles=1, rate=1e-6),
        mean=torch.full((16,), 3.0),
        spread=2.0,
        progress=lambda *row: told.append(row),
    )
    torch.testing.assert_close(space.targets, start, rtol=0, atol=1e-4)
    assert not torch.equal(space.z, data.z)
    assert [row[:3] for row in told] == [("targets", 1, 1), ("cycle 1", 1, 1)]
    data.targets = start[:2]
    with pytest.raises(ConfigError, match="targets: expected"):
        fit(data, generator, None)


def test_f8_a_blend_moves_from_face_to_face(space: FaceSpace, data: FaceData) -> None:
    ratios = (0.2, 0.5, 1.0, 2.0, 5.0)
    vectors = torch.stack([space.vector({"anna": r, "bert": 1.0}) for r in ratios])
    made = torch.from_numpy(space.render(vectors)).permute(0, 3, 1, 2).float() / 127.5 - 1
    to_anna, to_bert = ((made - data.images[i]).square().mean((1, 2, 3)) for i in range(2))
    nearer = to_bert - to_anna
    assert (nearer.diff() > 0).all(), nearer
    blends = space.random(50, seed=3)
    assert blends.shape == (50, 4) and (blends >= 0).all()
    assert torch.equal(blends, space.random(50, seed=3))
    expected = math.sqrt(2 / math.pi)
    assert abs(float(space.random(2000).mean()) - expected) < 0.05


def test_only_the_direction_counts_unless_strength_is_asked_for(space: FaceSpace) -> None:
    pair = space.vector({"anna": 1, "bert": 1})
    torch.testing.assert_close(space.ws(5 * pair), space.ws(pair), rtol=1e-4, atol=1e-4)
    mean = space.encoder.mean
    whole = space.ws(space.vector({"anna": 1}))
    torch.testing.assert_close(space.ws(space.vector({"anna": 1}), strength=True), whole)
    half = space.ws(space.vector({"anna": 0.5}), strength=True)
    torch.testing.assert_close(half, (whole + mean) / 2, rtol=1e-4, atol=1e-4)
    none = space.ws(torch.zeros(4), strength=True)
    torch.testing.assert_close(none, mean.expand_as(none))
    with pytest.raises(ConfigError, match="zeros have no direction"):
        space.ws(torch.zeros(4))
    with pytest.raises(ConfigError, match="no face 'emil'"):
        space.vector({"emil": 1})
    with pytest.raises(ConfigError, match="vectors: expected"):
        space.ws(torch.ones(3))


@pytest.mark.parametrize("steps", [1, 20])
def test_f9_morph(space: FaceSpace, steps: int) -> None:
    keys = torch.eye(4)[:3]
    path = space.morph(keys, steps=steps)
    assert len(path) == 2 * steps + 1
    for number, key in enumerate(keys):
        assert torch.equal(path[number * steps], space.ws(key)[0])


def test_f10_pose_transfer(folder: Path, generator: Generator) -> None:
    marks = torch.rand(4, 68, 2, generator=torch.Generator().manual_seed(0))
    each = iter(marks)
    data = load_faces(folder, SIZE, points_of=lambda image: next(each)[None])
    space = fit(data, generator, None, FitConfig(epochs=1, cycles=0))
    one, two = (space.render(points_vector(marks[i : i + 1])) for i in range(2))
    assert one.shape == (1, SIZE, SIZE, 3) and (one != two).any()
    with pytest.raises(ConfigError, match="takes points"):
        space.vector({"anna": 1})
    with pytest.raises(ConfigError, match="one-hot"):
        space.ws(points_vector(marks[:1]), strength=True)
    with pytest.raises(ConfigError, match="points: expected"):
        points_vector(torch.zeros(1, 67, 2))


def test_f11_round_trip(space: FaceSpace, generator: Generator, tmp_path: Path) -> None:
    space.save(tmp_path / "s.safetensors")
    again = FaceSpace.load(tmp_path / "s.safetensors", generator)
    assert again.names == space.names and again.encoder.config == space.encoder.config
    assert torch.equal(again.z, space.z) and torch.equal(again.targets, space.targets)
    assert torch.equal(again.ws(again.z), space.ws(space.z))
    small = GeneratorConfig(z_dim=8, w_dim=8, img_resolution=8, num_mapping_layers=1)
    with pytest.raises(CheckpointError, match=r"is for latents \[6, 16\]"):
        FaceSpace.load(tmp_path / "s.safetensors", Generator(small))
    (tmp_path / "bad.safetensors").write_bytes(b"\0" * 64)
    with pytest.raises(CheckpointError):
        FaceSpace.load(tmp_path / "bad.safetensors", generator)


def test_f12_scatter(space: FaceSpace) -> None:
    for latents in (space.z, space.ws(space.z)):
        points = scatter(latents)
        assert points.shape == (4, 2)
        assert torch.equal(points, scatter(latents))
    # Orthonormal axes: lengths never grow, and in the plane itself nothing changes.
    flat = torch.randn(10, 2)
    torch.testing.assert_close(scatter(flat).norm(dim=1), flat.norm(dim=1))
    assert scatter_chart(points, space.names).shape == (360, 360, 3)


def test_weight_chart() -> None:
    chart = weight_chart(["a", "b", "a long name of a face"], [2.0, 1.0, 0.0])
    bars = (chart == (0, 121, 140)).all(2)
    lengths = [int(bars[8 + 18 * row + 4].sum()) for row in range(3)]
    assert lengths[0] == pytest.approx(2 * lengths[1], abs=3) and lengths[2] <= 1
    assert (weight_chart(["a", "b"], [1.0, -1.0]) == (0, 121, 140)).all(2).any()
    with pytest.raises(ConfigError, match="one for each"):
        weight_chart(["a"], [1.0, 2.0])


def test_features_of_vgg_are_thirteen_maps() -> None:
    torch.manual_seed(0)
    trunk = VGG16Features()
    metric = LPIPS(trunk, [torch.ones(c) for c in trunk.channels])
    with torch.no_grad():
        maps = features_of(metric)(torch.rand(1, 3, 16, 16) * 2 - 1)
    assert len(maps) == 13 and maps[0].shape == (1, 64, 256, 256)
    assert all(float(m.min()) >= 0 for m in maps)  # behind their ReLU


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 0}, "epochs"),
        ({"batch": 0}, "batch"),
        ({"rate": -1.0}, "rate"),
        ({"feature_weight": 0.0, "pixel_weight": 0.0}, "nothing is compared"),
    ],
)
def test_settings(settings: dict[str, float], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        FitConfig(**settings)  # type: ignore[arg-type]


def test_faces_of_another_size(folder: Path, generator: Generator) -> None:
    with pytest.raises(ConfigError, match="expected images of 16 px"):
        fit(load_faces(folder, 8), generator, None)
