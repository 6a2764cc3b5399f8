"""Rosinality's layout in both directions, judged by a second writing of what it computes."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from pyfacelat import checkpoints, zoo
from pyfacelat.checkpoints.rosinality import _widths, write_rosinality
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.stylegan2_config import GeneratorConfig
from tests.nets import plain_rosinality as plain

from .conftest import small_generator

WIDE = {4: 16, 8: 16, 16: 6}


def double(state: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() for name, value in state.items()}


def save(path: Path, content: Any, zipped: bool = True) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    return path


def training_checkpoint(state: dict[str, Any], d: dict[str, Any], size: int) -> dict[str, Any]:
    weights = [torch.nn.Parameter(value.clone()) for value in d.values()]
    optimiser = torch.optim.Adam(weights, lr=0.002, betas=(0.0, 0.99))
    for weight in weights:
        weight.grad = torch.ones_like(weight)
    optimiser.step()
    return {
        "g": {name: value + 1 for name, value in state.items()},
        "d": d,
        "g_ema": state,
        "g_optim": optimiser.state_dict(),
        "d_optim": optimiser.state_dict(),
        "args": argparse.Namespace(path="data", size=size, iter=800_000, lr=0.002, ckpt=None),
        "ada_aug_p": 0.25,
    }


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("size", "options"),
    [
        (4, {}),
        (8, {"layers": 1, "dim": 5}),
        (32, {"widths": plain.channels(32, cap=8)}),
        (16, {"widths": {4: 7, 8: 3, 16: 9}, "taps": (1, 2, 1), "colours": 1}),
        (128, {"widths": plain.channels(128, 1, cap=16), "layers": 8}),
    ],
)
def test_outputs_are_those_of_the_original(
    size: int, options: dict[str, Any], zipped: bool, tmp_path: Path
) -> None:
    state = plain.generator_state(size, **options)
    dim = options.get("dim", 8)
    average = torch.randn(dim)
    content = {"g_ema": state, "latent_avg": average}
    net = zoo.load_generator(save(tmp_path / "g.pt", content, zipped), dtype=torch.float64)
    assert net.img_resolution == size and net.config.num_mapping_layers == options.get("layers", 3)
    assert torch.equal(net.mapping.w_avg, average.double())
    z = torch.randn(2, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    w = plain.mapping(double(state), z)
    torch.testing.assert_close(net.mapping(z)[:, 0], w, rtol=1e-12, atol=1e-12)
    ws = w[:, None] + torch.randn(2, net.num_ws, dim, dtype=torch.float64)
    expected = plain.synthesize(double(state), ws)
    # Demodulation adds its 1e-8 at another place, and filters are float32 in both.
    torch.testing.assert_close(net.synthesis(ws), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("multiplier", "base"), [(1, 16384), (2, 32768)])
@pytest.mark.parametrize("size", [64, 256, 1024])
def test_published_widths_are_recognised(size: int, multiplier: int, base: int) -> None:
    found = _widths(plain.channels(size, multiplier))
    assert (found["channel_max"], found["channels"]) == (512, None)
    config = GeneratorConfig(img_resolution=size, **found)
    expected = GeneratorConfig(img_resolution=size, channel_base=base)
    for res in expected.resolutions:
        assert config.channels_at(res) == expected.channels_at(res)
    if size > 64:
        assert found["channel_base"] == base


def test_other_widths_are_listed_one_by_one(tmp_path: Path) -> None:
    state = plain.generator_state(16, widths={4: 4, 8: 8, 16: 2})
    config = checkpoints.read(save(tmp_path / "g.pt", {"g_ema": state})).config
    assert config["channels"] == {4: 4, 8: 8, 16: 2}


def test_training_checkpoints(tmp_path: Path) -> None:
    state, d = plain.generator_state(16, widths=WIDE), plain.discriminator_state(16, WIDE)
    path = save(tmp_path / "550000.pt", training_checkpoint(state, d, 16))
    found = checkpoints.read(path)
    assert found.kind == "stylegan2-generator" and found.config["w_avg_beta"] is None
    assert found.metadata["entry"] == "g_ema"
    assert torch.equal(found.tensors["synthesis.b4.const"], state["input.input"][0])
    judge = zoo.load_discriminator(path, dtype=torch.float64)
    image = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    expected = plain.discriminate(double(d), image)
    torch.testing.assert_close(judge(image), expected, rtol=1e-6, atol=1e-6)

    with pytest.raises(CheckpointError, match=r"args\.size: is 32, tensors say 16"):
        checkpoints.read(save(path, training_checkpoint(state, d, 32)))
    with pytest.raises(CheckpointError, match="has no d, the discriminator; its entries"):
        checkpoints.read(save(path, {"g_ema": state}), part="discriminator")
    with pytest.raises(CheckpointError, match="has no g_ema, the generator"):
        checkpoints.read(save(path, {"g": state, "d": d}))


def test_bare_state_dicts(tmp_path: Path) -> None:
    state = plain.generator_state(8)
    found = checkpoints.read(save(tmp_path / "g.pt", state))
    assert found.config["img_resolution"] == 8 and "entry" not in found.metadata


def test_files_without_noise_or_filters(tmp_path: Path) -> None:
    state = plain.generator_state(8, noises=False)
    found = [checkpoints.read(save(tmp_path / "g.pt", {"g_ema": state})) for _ in range(2)]
    name = "synthesis.b8.conv0.noise_const"
    assert "drawn with seed 0" in found[0].metadata["noise"]
    assert found[0].tensors[name].shape == (8, 8)
    assert torch.equal(found[0].tensors[name], found[1].tensors[name])
    bare = {k: v for k, v in plain.generator_state(8).items() if not k.endswith("kernel")}
    found = [checkpoints.read(save(tmp_path / "g.pt", {"g_ema": bare}))]
    assert found[0].config["resample_filter"] == [1, 3, 3, 1]
    assert "filters" in found[0].metadata
    zoo.load_generator(tmp_path / "g.pt")


def test_small_files_cannot_ask_for_much_noise(tmp_path: Path) -> None:
    widths = {2**i: 1 for i in range(2, 12)}
    state = plain.generator_state(2048, dim=2, layers=1, widths=widths, noises=False)
    path = save(tmp_path / "g.pt", {"g_ema": state})
    assert path.stat().st_size < 200_000
    with pytest.raises(CheckpointError, match="drawn up to 1024 pixels, this one has 2048"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"convs.1.noise.weight": None}, r"g_ema\.convs\.1\.noise\.weight: is missing"),
        ({"noises.noise_1": None}, r"noises\.noise_1: is missing"),
        ({"to_rgbs.0.upsample.kernel": None}, "other filters are there"),
        ({"to_rgbs.0.upsample.kernel": plain.kernel((1, 1))}, "not the filter of the others"),
        ({"convs.0.conv.blur.kernel": torch.zeros(4, 4)}, "not the filter|not separable"),
        ({"convs.0.conv.blur.kernel": torch.zeros(4, 3)}, "a filter of shape"),
        ({"stray": torch.zeros(1)}, "does not imply"),
        ({"style.1.weight": torch.zeros(8)}, "expected 2 axes"),
        ({"input.input": torch.zeros(1, 9, 4, 4)}, "the config implies"),
        ({"conv1.conv.weight": None}, "every StyleGAN2 of this layout"),
        ({"conv1.activate.bias": torch.full((8,), torch.nan)}, "not finite"),
        ({"conv1.activate.bias": torch.zeros(8, dtype=torch.int64)}, "not a floating-point"),
        ({"extra": "text"}, "not a tensor"),
    ],
)
def test_refusals(change: dict[str, Any], reason: str, tmp_path: Path) -> None:
    state = {**plain.generator_state(8), **change}
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(save(tmp_path / "g.pt", {"g_ema": state}))


@pytest.mark.parametrize("average", [torch.zeros(9), torch.zeros(2, 8), "text"])
def test_a_wrong_average_is_refused(average: Any, tmp_path: Path) -> None:
    content = {"g_ema": plain.generator_state(4), "latent_avg": average}
    with pytest.raises(CheckpointError, match="latent_avg"):
        checkpoints.read(save(tmp_path / "g.pt", content))


@pytest.mark.parametrize(
    "changes", [{}, {"mapping_lr_multiplier": 0.5}, {"resample_filter": (1.0, 2.0, 1.0)}]
)
def test_written_files_compute_the_same(changes: dict[str, Any], tmp_path: Path) -> None:
    net = small_generator(**{"z_dim": 11, **changes})
    tensors, config = net.state_dict(), dataclasses.asdict(net.config)
    path = tmp_path / "g.pt"
    checkpoint = checkpoints.Checkpoint("stylegan2-generator", config, tensors, {}, "x")
    assert write_rosinality(path, checkpoint) == []
    content = torch.load(path, weights_only=True)
    state = double(content["g_ema"])
    assert state.keys() == plain.generator_state(16).keys()
    assert torch.equal(content["latent_avg"], net.mapping.w_avg)
    net = net.double()
    z = torch.randn(2, 11, dtype=torch.float64)
    w = net.mapping(z)[:, 0]
    torch.testing.assert_close(plain.mapping(state, z), w, rtol=1e-6, atol=1e-6)
    ws = torch.randn(2, net.num_ws, 11, dtype=torch.float64)
    expected = net.synthesis(ws)
    tolerance = 1e-5 * float(expected.detach().std())
    torch.testing.assert_close(plain.synthesize(state, ws), expected, rtol=1e-5, atol=tolerance)
    if "mapping_lr_multiplier" not in changes:
        again = checkpoints.read(path)
        assert all(torch.equal(again.tensors[k], v) for k, v in tensors.items())


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"c_dim": 2}, "c_dim: 2; rosinality's layout has 0"),
        ({"architecture": "resnet"}, "architecture"),
        ({"use_noise": False}, "use_noise"),
        ({"activation": "relu"}, "activation"),
        ({"mapping_layer_features": 5}, "mapping_layer_features"),
    ],
)
def test_what_the_layout_cannot_hold(changes: dict[str, Any], reason: str, tmp_path: Path) -> None:
    net = small_generator(**changes)
    config = dataclasses.asdict(net.config)
    checkpoint = checkpoints.Checkpoint("stylegan2-generator", config, net.state_dict(), {}, "x")
    with pytest.raises(CheckpointError, match=reason):
        write_rosinality(tmp_path / "g.pt", checkpoint)
    assert list(tmp_path.iterdir()) == []


def test_what_is_lost_is_said(tmp_path: Path) -> None:
    net = small_generator(conv_clamp=256.0, w_avg_beta=None)
    config = dataclasses.asdict(net.config)
    checkpoint = checkpoints.Checkpoint("stylegan2-generator", config, net.state_dict(), {}, "x")
    notes = write_rosinality(tmp_path / "g.pt", checkpoint)
    assert len(notes) == 2 and "clamp of activations at 256" in notes[0]
