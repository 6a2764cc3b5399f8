"""Pickles of the TensorFlow era, judged by a second writing of what their networks compute."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyfacelat import checkpoints, zoo
from pyfacelat.errors import CheckpointError
from tests.nets import plain_stylegan2

from . import tf_writer as tf

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "as-published": {
        "mapping_fmaps": 11,
        "truncation_psi": 0.5,
        "randomize_noise": False,
        "fmap_min": 1,
        "fmap_decay": 1.0,
        "structure": "auto",
        "dlatent_avg_beta": 0.995,
    },
    "labels": {"label_size": 4, "label_fmaps": 6, "mapping_fmaps": 9},
    "no-noise": {"use_noise": False},
    "resnet": {"architecture": "resnet"},
    "orig": {"architecture": "orig"},
    "clamped": {"num_fp16_res": 4, "conv_clamp": 1.5},
    "four": {"resolution": 4},
    "gray": {"num_channels": 1, "resample_kernel": [1, 2, 1], "w_avg_beta": None},
    "fast": {"mapping_lrmul": 0.5},
}


def triple(g: dict[str, Any], parts: dict[str, Any], **options: Any) -> bytes:
    """(G, D, Gs) with a discriminator, and a G that must not be taken for Gs."""
    d = {**tf.SMALL, "resolution": max(8, g["resolution"])}
    d = {k: d[k] for k in ("resolution", "fmap_base", "fmap_max", "num_channels", "label_size")}
    other = tf.generator_variables(g, seed=50)
    return tf.dump([(g, other), (d, tf.discriminator_variables(d)), (g, parts)], **options)


@pytest.mark.parametrize("variant", VARIANTS)
def test_outputs_are_those_of_the_original(variant: str, tmp_path: Path) -> None:
    options = {**tf.SMALL, **VARIANTS[variant]}
    parts = tf.generator_variables(options)
    path = tmp_path / "stylegan2.pkl"
    path.write_bytes(triple(options, parts))
    net = zoo.load_generator(path, dtype=torch.float64)
    assert net.img_resolution == options["resolution"] and net.c_dim == options["label_size"]
    assert net.config.channel_base == 2 * options["fmap_base"]
    assert net.config.conv_clamp == options.get("conv_clamp")
    random = torch.Generator().manual_seed(1)
    z = torch.randn(2, net.z_dim, dtype=torch.float64, generator=random)
    c = torch.rand(2, net.c_dim, dtype=torch.float64, generator=random) if net.c_dim else None
    w = tf.mapping(options, parts, z, c)
    torch.testing.assert_close(net.mapping(z, c)[:, 0], w, rtol=1e-10, atol=1e-10)
    np.testing.assert_array_equal(net.mapping.w_avg.float().numpy(), parts[""]["dlatent_avg"])
    ws = w[:, None] + torch.randn(2, net.num_ws, 11, dtype=torch.float64, generator=random)
    expected = tf.synthesize(options, parts, ws)
    tolerance = 1e-6 * float(expected.std())
    torch.testing.assert_close(net.synthesis(ws), expected, rtol=1e-5, atol=tolerance)


@pytest.mark.parametrize(
    ("protocol", "numpy_one"),
    [(2, False), (2, True), (3, False), (3, True), (4, False), (5, False)],
)
def test_every_protocol(protocol: int, numpy_one: bool, tmp_path: Path) -> None:
    before = set(sys.modules)
    parts = tf.generator_variables(tf.SMALL)
    path = tmp_path / "g.pkl"
    path.write_bytes(triple(tf.SMALL, parts, protocol=protocol, numpy_one=numpy_one))
    found = checkpoints.read(path)
    assert found.metadata["entry"] == "Gs" and "TensorFlow" in found.metadata["producer"]
    weight = torch.from_numpy(parts["synthesis"]["8x8/Conv0_up/weight"])
    turned = weight.flip(0, 1).permute(3, 2, 0, 1)
    assert torch.equal(found.tensors["synthesis.b8.conv0.weight"], turned)
    assert found.tensors["synthesis.b8.conv0.weight"].is_contiguous()
    assert not [name for name in set(sys.modules) - before if name.startswith("dnnlib")]


@pytest.mark.parametrize("architecture", ["resnet", "skip", "orig"])
def test_discriminators(architecture: str, tmp_path: Path) -> None:
    options = {**tf.SMALL, "architecture": architecture}
    options = {k: v for k, v in options.items() if "latent" not in k and "mapping" not in k}
    parts = tf.discriminator_variables(options)
    if architecture == "skip":
        parts[""]["4x4/FromRGB/weight"] = np.ones((1, 1, 3, 12), np.float32)
        parts[""]["4x4/FromRGB/bias"] = np.ones(12, np.float32)
    path = tmp_path / "d.pkl"
    path.write_bytes(tf.dump([(options, parts)] * 3))
    judge = zoo.load_discriminator(path, dtype=torch.float64)
    image = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    state = {name: value.double() for name, value in judge.state_dict().items()}
    expected = plain_stylegan2.discriminate(judge.config, state, image)
    torch.testing.assert_close(judge(image), expected, rtol=1e-9, atol=1e-9)
    for ours, theirs in (("b16.conv1", "16x16/Conv1_down"), ("b4.conv", "4x4/Conv")):
        weight = torch.from_numpy(parts[""][f"{theirs}/weight"]).double()
        assert torch.equal(state[f"{ours}.weight"], weight.permute(3, 2, 0, 1))
    dense = torch.from_numpy(parts[""]["4x4/Dense0/weight"]).double()
    assert torch.equal(state["b4.fc.weight"], dense.t())


def test_a_single_network_is_accepted(tmp_path: Path) -> None:
    path = tmp_path / "Gs.pkl"
    path.write_bytes(tf.dump([(tf.SMALL, tf.generator_variables(tf.SMALL))]))
    assert checkpoints.read(path).config["z_dim"] == 10
    with pytest.raises(CheckpointError, match="has no network|has no D"):
        checkpoints.read(path, part="discriminator")


def test_networks_of_the_older_configurations(tmp_path: Path) -> None:
    """One toRGB for each level of detail: the last one counts once the network has grown."""
    options = {**tf.SMALL, "architecture": "orig"}
    parts = tf.generator_variables(options)
    synthesis = parts["synthesis"]
    for name in [n for n in synthesis if "/ToRGB/" in n]:
        leaf = name.rsplit("/", 1)[1]
        synthesis[f"ToRGB_lod0/{leaf}"] = synthesis.pop(name)
        synthesis[f"ToRGB_lod1/{leaf}"] = synthesis[f"ToRGB_lod0/{leaf}"] + 1
    synthesis["lod"] = np.float32(0)
    given = {k: v for k, v in options.items() if k != "architecture"}
    path = tmp_path / "g.pkl"
    path.write_bytes(tf.dump([(given, parts)]))
    net = zoo.load_generator(path, dtype=torch.float64)
    assert net.config.architecture == "orig"
    ws = torch.randn(1, net.num_ws, 11, dtype=torch.float64)
    expected = tf.synthesize(options, parts, ws)
    torch.testing.assert_close(net.synthesis(ws), expected, rtol=1e-5, atol=1e-5)
    synthesis["lod"] = np.array(1.5, np.float32)
    path.write_bytes(tf.dump([(given, parts)]))
    with pytest.raises(CheckpointError, match=r"1\.5; the network has not grown"):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"normalize_latents": False}, "static_kwargs.normalize_latents: is False; only True"),
        ({"fmap_decay": 0.5}, "only 1.0 is supported"),
        ({"blur_filter": [1, 2, 1]}, "blur_filter: is a list"),
        ({"resolution": 12}, "power of two"),
        ({"resolution": 32}, "is missing"),
        ({"fmap_base": 32}, "the config implies"),
        ({"latent_size": 11}, "the config implies"),
        ({"secret": 1}, "unknown option"),
        ({"conv_clamp": "256"}, "a number from"),
        ({"use_noise": False}, "does not imply"),
        ({"label_size": 3}, "conditional StyleGAN2 from before ADA"),
        ({"architecture": "resnet"}, "is missing"),
    ],
)
def test_options_are_checked(options: dict[str, Any], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "g.pkl"
    path.write_bytes(tf.dump([({**tf.SMALL, **options}, tf.generator_variables(tf.SMALL))]))
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(path)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("4x4/Conv/weight", None, "synthesis/4x4/Conv/weight: is missing"),
        ("4x4/Conv/weight", np.zeros((3, 3, 12, 11), np.float32), "has shape"),
        ("4x4/Conv/weight", np.zeros((3, 3, 12, 12), np.int32), "not a floating-point"),
        ("4x4/Conv/bias", np.full(12, np.nan, np.float32), "12 of 12 values are not finite"),
        ("4x4/Conv/noise_strength", float("inf"), "not finite"),
        ("stray", np.zeros(1, np.float32), "does not imply"),
        ("stray", "text", "network/stray|is 'text'"),
        ("4x4/Conv/mod_bias", [1.0] * 12, "is a list"),
    ],
)
def test_variables_are_checked(name: str, value: Any, reason: str, tmp_path: Path) -> None:
    parts = tf.generator_variables(tf.SMALL)
    parts["synthesis"][name] = value
    if value is None:
        del parts["synthesis"][name]
    path = tmp_path / "g.pkl"
    path.write_bytes(tf.dump([(tf.SMALL, parts)]))
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(path)


@pytest.mark.parametrize("version", [3, 2, "4", None])
def test_older_networks_are_named(version: Any, tmp_path: Path) -> None:
    path = tmp_path / "stylegan1.pkl"
    parts = tf.generator_variables(tf.SMALL)
    path.write_bytes(tf.dump([(tf.SMALL, parts)], version=version))
    with pytest.raises(CheckpointError, match="Progressive GAN, a disc"):
        checkpoints.read(path)


def test_labels_joined_before_normalisation_are_refused(tmp_path: Path) -> None:
    options = {**tf.SMALL, "label_size": 3}
    parts = tf.generator_variables({**options, "label_size": 0, "latent_size": 20})
    parts["mapping"]["LabelConcat/weight"] = np.zeros((3, 10), np.float32)
    path = tmp_path / "g.pkl"
    path.write_bytes(tf.dump([(options, parts)]))
    with pytest.raises(CheckpointError, match="it has mapping/LabelConcat; it joins the label"):
        checkpoints.read(path)
