"""The tables of names and shapes agree with the networks."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from pyfacelat.checkpoints import KINDS, expected_tensors, names
from pyfacelat.nets.arcface import ArcFace, ArcFaceConfig
from pyfacelat.nets.discriminator import Discriminator
from pyfacelat.nets.e4e import E4E, E4EConfig
from pyfacelat.nets.facespace import FaceSpaceConfig, FaceSpaceEncoder
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.identity import IdentityConfig, IdentityNet
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.resnet import ResNet, ResNetConfig
from pyfacelat.nets.s3fd import S3FD, S3FDConfig
from pyfacelat.nets.sample_encoder import SampleEncoder, SampleEncoderConfig
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.nets.stylegan2_config import DiscriminatorConfig, GeneratorConfig
from pyfacelat.nets.vgg import VGG16Features, VGG19Features

from .conftest import SMALL

GENERATORS: list[dict[str, Any]] = [
    {"architecture": architecture, "resample_filter": taps, **more}
    for architecture in ("skip", "resnet", "orig")
    for taps in ((1, 3, 3, 1), (1, 2, 1), (1, 2, 3, 4, 3, 2, 1))
    for more in (
        {},
        {"c_dim": 3, "embed_features": 7, "mapping_layer_features": 9},
        {"use_noise": False, "w_avg_beta": None, "num_mapping_layers": 1},
        {"channels": {4: 5, 8: 6, 16: 7}, "img_channels": 1},
    )
]


def shapes(net: Any) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in net.state_dict().items()}


def agree(kind: str, net: Any, config: Any) -> None:
    assert expected_tensors(kind, dataclasses.asdict(config)) == shapes(net)


@pytest.mark.parametrize("changes", GENERATORS)
def test_generator(changes: dict[str, Any]) -> None:
    config = GeneratorConfig(**{**SMALL, "z_dim": 8, "w_dim": 8, **changes})
    agree("stylegan2-generator", Generator(config), config)


@pytest.mark.parametrize("architecture", ["skip", "resnet", "orig"])
@pytest.mark.parametrize(
    "more",
    [
        {},
        {"c_dim": 3, "cmap_dim": 5},
        {"c_dim": 2, "num_mapping_layers": 3, "embed_features": 4, "mapping_layer_features": 6},
        {"mbstd_num_channels": 0, "resample_filter": (1, 2, 1), "img_channels": 1},
        {"mbstd_num_channels": 2, "channels": {4: 8, 8: 6, 16: 7}},
    ],
)
def test_discriminator(architecture: str, more: dict[str, Any]) -> None:
    config = DiscriminatorConfig(**{**SMALL, "architecture": architecture, **more})
    agree("stylegan2-discriminator", Discriminator(config), config)


@pytest.mark.parametrize(
    "changes",
    [
        {"num_stacks": 1, "width": 16, "depth": 2},
        {"num_stacks": 3, "width": 24, "depth": 1, "num_landmarks": 5},
        {"num_stacks": 2, "width": 32, "depth": 3, "input_size": 64, "stem": "half"},
    ],
)
def test_fan(changes: dict[str, Any]) -> None:
    config = FANConfig(**changes)
    agree("fan", FAN(config), config)


@pytest.mark.parametrize(
    "changes",
    [{}, {"num_landmarks": 0, "widths": (4, 5, 6, 7, 8)}, {"stride": 2, "window_width": 5}],
)
def test_encoder(changes: dict[str, Any]) -> None:
    config = SampleEncoderConfig(z_dim=6, hidden=12, **changes)
    agree("sample-encoder", SampleEncoder(config), config)


@pytest.mark.parametrize("changes", [{}, {"window_width": 0, "stride": 1, "hidden": 9}])
def test_identity(changes: dict[str, Any]) -> None:
    config = IdentityConfig(embedding_dim=7, **changes)
    agree("sample-identity", IdentityNet(config), config)


@pytest.mark.parametrize("variant", ["ir", "ir-se", "iresnet"])
def test_arcface(variant: str) -> None:
    config = ArcFaceConfig(
        variant=variant, blocks=(1, 3), widths=(4, 6), reduction=2, input_size=20, embed_dim=5
    )
    agree("arcface", ArcFace(config), config)


@pytest.mark.parametrize("changes", [{}, {"variant": "ir", "relative": False, "num_ws": 3}])
def test_e4e(changes: dict[str, Any]) -> None:
    small: dict[str, Any] = {"blocks": (1, 1, 2, 1), "widths": (2, 3, 4, 5), "reduction": 2}
    config = E4EConfig(**{**small, "num_ws": 9, "w_dim": 6, "input_size": 64, **changes})
    agree("e4e", E4E(config), config)


def test_s3fd() -> None:
    config = S3FDConfig(width=3)
    agree("s3fd", S3FD(config), config)


@pytest.mark.parametrize("changes", [{}, {"blocks": (1, 2, 1, 3), "width": 2}])
def test_resnet(changes: dict[str, Any]) -> None:
    with torch.device("meta"):
        agree("resnet", ResNet(ResNetConfig(**changes)), ResNetConfig(**changes))


def test_image_to_latent() -> None:
    small: dict[str, Any] = {"blocks": (1, 1, 2, 1), "width": 2, "input_size": 64, "num_ws": 3}
    config = ImageToLatentConfig(**small, reduced=5, hidden=4, w_dim=6)
    agree("image-to-latent", ImageToLatent(config), config)


@pytest.mark.parametrize("kind", ["one-hot", "landmarks"])
def test_facespace(kind: str) -> None:
    config = FaceSpaceConfig.published(faces=3, inputs=7, num_ws=2, w_dim=5, kind=kind)
    agree("face-space", FaceSpaceEncoder(config), config)


def test_vgg16_and_lpips() -> None:
    with torch.device("meta"):
        assert expected_tensors("vgg19", {}) == shapes(VGG19Features())
    trunk = VGG16Features()
    assert expected_tensors("vgg16", {}) == shapes(trunk)
    lins = expected_tensors("lpips-lins", {})
    assert [shape[1] for shape in lins.values()] == list(trunk.channels)


def test_every_kind_has_a_table() -> None:
    assert names._TABLES.keys() == set(KINDS)
