"""Names and files become networks: frozen, in float32, from checked bytes."""

from __future__ import annotations

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pyfacelat import checkpoints, weights, zoo
from pyfacelat.checkpoints import expected_tensors, write_safetensors
from pyfacelat.errors import CheckpointError, DeviceError, FacelatError, MissingWeightsError
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.identity import IdentityConfig, IdentityNet
from pyfacelat.nets.sample_encoder import SampleEncoder, SampleEncoderConfig

from .checkpoints.conftest import plain, randomised, small_discriminator, small_generator


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Empty folders in place of everything that is searched."""
    monkeypatch.setenv("PYFACELAT_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setattr(weights, "_ASSETS", tmp_path / "assets")
    for name in ("home/weights", "hub/checkpoints", "assets"):
        (tmp_path / name).mkdir(parents=True)
    return tmp_path


def write(path: Path, kind: str, net: Any, extra: Any = None, **options: Any) -> Path:
    tensors = {**net.state_dict(), **(extra or {})}
    write_safetensors(path, kind, dataclasses.asdict(net.config), tensors, **options)
    return path


def assert_frozen(net: torch.nn.Module) -> None:
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_generator_with_statistics(home: Path) -> None:
    net = small_generator()
    stats = {"mean": torch.randn(11), "cov_basis": torch.randn(11, 11), "cov_scale": torch.rand(11)}
    extra = {f"w_stats.{name}": value for name, value in stats.items()}
    write(home / "assets/generator.safetensors", "stylegan2-generator", net, extra)
    state = torch.random.get_rng_state()
    loaded = zoo.load_generator("sample")
    assert torch.equal(torch.random.get_rng_state(), state)
    assert_frozen(loaded)
    assert loaded.config == net.config
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in net.state_dict().items())
    assert loaded.w_stats.keys() == stats.keys()
    assert all(torch.equal(loaded.w_stats[k], v) for k, v in stats.items())
    wide = zoo.load_generator("sample", dtype=torch.float64)
    assert {v.dtype for v in wide.state_dict().values()} == {torch.float64}
    assert wide.w_stats["mean"].dtype == torch.float64
    ws = torch.randn(1, loaded.num_ws, 11)
    torch.testing.assert_close(
        wide.synthesis(ws.double()).float(), loaded.synthesis(ws), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize(
    "extra",
    [
        {"w_stats.mean": torch.zeros(12)},
        {"w_stats.other": torch.zeros(11)},
        {"w_stats.mean": torch.zeros(11, dtype=torch.int64)},
        {"stray": torch.zeros(1)},
    ],
)
def test_generator_with_stray_tensors(extra: dict[str, torch.Tensor], tmp_path: Path) -> None:
    path = write(tmp_path / "g.safetensors", "stylegan2-generator", small_generator(), extra)
    with pytest.raises(CheckpointError, match=next(iter(extra))):
        zoo.load_generator(path)


def test_explicit_channels_survive_json(tmp_path: Path) -> None:
    net = small_generator(channels={4: 5, 8: 6, 16: 7})
    loaded = zoo.load_generator(write(tmp_path / "g", "stylegan2-generator", net))
    assert loaded.config == net.config


def test_half_files_run_in_float32(tmp_path: Path) -> None:
    net = small_generator()
    path = write(tmp_path / "g", "stylegan2-generator", net, dtype=torch.float16)
    loaded = zoo.load_generator(str(path))
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}


def test_discriminator(tmp_path: Path) -> None:
    net = small_discriminator(c_dim=2)
    loaded = zoo.load_discriminator(write(tmp_path / "d", "stylegan2-discriminator", net))
    assert_frozen(loaded)
    assert loaded.config == net.config
    assert all(torch.equal(loaded.state_dict()[k], v) for k, v in net.state_dict().items())


def test_landmarker(home: Path) -> None:
    net = randomised(FAN(FANConfig(num_stacks=2, width=16, depth=2, input_size=64, stem="half")))
    path = write(home / "assets/fan.safetensors", "fan", net)
    for given in ("sample", path):
        loaded = zoo.load_landmarker(given)
        assert_frozen(loaded)
        assert loaded.config == net.config
        assert all(torch.equal(loaded.state_dict()[k], v) for k, v in net.state_dict().items())


def test_identity_net(home: Path) -> None:
    torch.manual_seed(0)
    net = IdentityNet(IdentityConfig(embedding_dim=5, widths=(4, 4, 4, 4, 4), hidden=8)).eval()
    path = write(home / "assets/identity.safetensors", "sample-identity", net)
    x = torch.rand(2, 3, 32, 32) * 2 - 1
    for loaded in (zoo.load_identity(), zoo.load_identity(path)):
        assert_frozen(loaded)
        with torch.no_grad():
            assert torch.equal(loaded(x), net(x))


def test_weights_of_a_sample_metric_come_from_its_file(home: Path) -> None:
    torch.manual_seed(0)
    net = SampleEncoder(SampleEncoderConfig(z_dim=6, hidden=8, widths=(4, 5, 6, 7, 8))).eval()
    net.lin2.copy_(torch.arange(6.0))
    write(home / "assets/encoder.safetensors", "sample-encoder", net)
    metric = zoo.load_perceptual("sample")
    assert metric.get_buffer("lin2").tolist() == list(range(6))
    net.lin2[3] = -1
    path = write(home / "assets/negative.safetensors", "sample-encoder", net)
    with pytest.raises(CheckpointError, match=r"lins\[2\]: expected finite numbers >= 0"):
        zoo.load_perceptual(path)


def test_encoder_and_sample_metric(home: Path) -> None:
    torch.manual_seed(0)
    net = SampleEncoder(SampleEncoderConfig(z_dim=6, hidden=8, widths=(4, 5, 6, 7, 8))).eval()
    write(home / "assets/encoder.safetensors", "sample-encoder", net)
    x = torch.rand(3, 3, 32, 32) * 2 - 1
    encoder = zoo.load_encoder()
    assert_frozen(encoder)
    with torch.no_grad():
        assert torch.equal(encoder.latent(x), net.latent(x))

    metric = zoo.load_perceptual("sample")
    assert_frozen(metric)
    y = torch.rand(3, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        found = metric(x, y)
        expected = torch.zeros(3)
        for a, b in zip(net.features(x), net.features(y), strict=True):
            unit_a, unit_b = (
                f / f.square().sum(1, keepdim=True).sqrt().clamp(1e-9) for f in (a, b)
            )
            expected += (unit_a - unit_b).square().sum(1).mean((1, 2)) / 5
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert float(metric(x, x).abs().max()) == 0


def test_lpips_from_the_package_and_a_vgg16_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(0)
    state = {
        name: torch.randn(shape, generator=random) * (0.05 if len(shape) > 1 else 0.01)
        for name, shape in expected_tensors("vgg16", {}).items()
    }
    path = home / "hub/checkpoints/vgg16-397923af.pth"
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="SHA-256 begins with .* expected 397923af"):
        zoo.load_perceptual()
    row = weights._DOWNLOADS["vgg16"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setitem(weights._DOWNLOADS, "vgg16", (row[0], digest[:8], *row[2:]))
    before = set(sys.modules)
    metric = zoo.load_perceptual("lpips-vgg16")
    assert not {"lpips", "torchvision"} & (set(sys.modules) - before)
    assert_frozen(metric)
    assert torch.equal(metric.trunk.features[0].weight, state["features.0.weight"])
    x = torch.rand(1, 3, 32, 32)
    assert float(metric(x, 1 - x)) > 0


def test_files_with_a_hash_in_their_name(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """face_alignment never compares the hash in the name; this does, wherever the file lies."""
    net = FAN(FANConfig(num_stacks=1, width=16, depth=1))
    path = home / "home/weights/2DFAN4-11f355bf06.pth.tar"
    torch.save(net.state_dict(), path)
    for given in ("2dfan4", path):
        with pytest.raises(CheckpointError, match="11f355bf06"):
            zoo.load_landmarker(given)
    (home / "other.pth").write_bytes(path.read_bytes())
    assert zoo.load_landmarker(home / "other.pth").config.num_stacks == 1
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    row = weights._DOWNLOADS["2dfan4"]
    monkeypatch.setitem(weights._DOWNLOADS, "2dfan4", (row[0], digest[:10], *row[2:]))
    assert zoo.load_landmarker("2dfan4").config.num_stacks == 1


def test_known_weights(home: Path) -> None:
    before = set(sys.modules)
    rows = {row.name: row for row in zoo.known_weights()}
    assert "lpips" not in set(sys.modules) - before
    assert {"2dfan4", "vgg16", "lpips-lins", "sample-generator"} <= rows.keys()
    lins = rows["lpips-lins"]
    assert lins.found is not None
    assert hashlib.sha256(lins.found.read_bytes()).hexdigest() == lins.sha256
    for name in ("2dfan4", "s3fd", "vgg16", "vgg19", "resnet50"):
        row = rows[name]
        assert row.found is None and row.sha256 in row.file and row.size > 10_000_000
        assert row.searched[0].parent == home / "home/weights"
        assert row.searched[1].parent == home / "hub/checkpoints"
        assert row.file in row.how and "http" not in row.how


@pytest.mark.parametrize(
    ("load", "name", "file"),
    [
        (zoo.load_landmarker, "2dfan4", "2DFAN4-11f355bf06.pth.tar"),
        (zoo.load_detector, "s3fd", "s3fd-619a316812.pth"),
        (zoo.load_features, "vgg19", "vgg19-dcbb9e9d.pth"),
        (zoo.load_features, "resnet50", "resnet50-0676ba61.pth"),
        (zoo.load_perceptual, "lpips-vgg16", "vgg16-397923af.pth"),
        (zoo.load_generator, "sample", "generator.safetensors"),
        (zoo.load_encoder, "sample", "encoder.safetensors"),
    ],
)
def test_missing_weights_say_where_they_go(load: Any, name: str, file: str, home: Path) -> None:
    with pytest.raises(MissingWeightsError) as caught:
        load(name)
    text = str(caught.value)
    assert file in text and str(home) in text and "http" not in text
    assert isinstance(caught.value, FileNotFoundError)


def test_a_name_may_come_as_a_path(home: Path) -> None:
    with pytest.raises(MissingWeightsError, match="vgg16-397923af"):
        zoo.load_perceptual(Path("lpips-vgg16"))


def test_unknown_names_list_the_known_and_the_closest() -> None:
    with pytest.raises(MissingWeightsError, match="did you mean 'sample'.*Known names: sample"):
        zoo.load_generator("sampel")
    with pytest.raises(MissingWeightsError, match="did you mean '2dfan4'.*2dfan4, sample"):
        zoo.load_landmarker("2DFAN-4")
    with pytest.raises(MissingWeightsError, match="there is no file gone.pkl"):
        zoo.load_generator("gone.pkl")
    with pytest.raises(MissingWeightsError, match="lpips-vgg16, sample"):
        zoo.load_perceptual("x")


def test_a_file_of_another_kind(tmp_path: Path) -> None:
    path = write(tmp_path / "g.safetensors", "stylegan2-generator", small_generator())
    loaders: list[Any] = [
        zoo.load_discriminator, zoo.load_landmarker, zoo.load_encoder, zoo.load_perceptual,
        zoo.load_identity,
    ]  # fmt: skip
    for load in loaders:
        with pytest.raises(CheckpointError, match="holds a stylegan2-generator, expected a"):
            load(path)


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "xyz", "meta"])
def test_devices_are_checked_before_any_work(device: str) -> None:
    with pytest.raises(DeviceError, match="device"):
        zoo.load_generator("no such network", device=device)


def test_every_error_is_ours(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(b"hello")
    with pytest.raises(FacelatError):
        zoo.load_generator(tmp_path / "x.pkl")


def test_convert_is_here_too() -> None:
    assert zoo.convert is checkpoints.convert
    assert plain(small_generator().config)["img_resolution"] == 16
