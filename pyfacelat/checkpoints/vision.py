"""Tensors of networks that look at photographs, in the names of their published files."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .layout import Config, Layout, Records, Shapes, batch_norm, conv, dense
from .source import Source

__all__ = [
    "LPIPS_VGG_CHANNELS",
    "image_to_latent",
    "image_to_latent_tensors",
    "lins",
    "lins_tensors",
    "resnet",
    "resnet_tensors",
    "s3fd",
    "s3fd_tensors",
    "vgg",
    "vgg16_tensors",
    "vgg19_tensors",
]

# Channels of the five taps that LPIPS weighs (relu1_2, 2_2, 3_3, 4_3, 5_3).
LPIPS_VGG_CHANNELS = (64, 128, 256, 512, 512)
# Width of a row of every StyleGAN that latent finders were trained for.
_W_DIM = 512
_MAX_UNITS = 100


# VGG, and the weights of LPIPS on its features


def _vgg_tensors(counts: tuple[int, ...]) -> Shapes:
    """The convolutions of torchvision's VGG: so many in each stage."""
    out: Shapes = {}
    below, index = 3, 0
    for width, count in zip(LPIPS_VGG_CHANNELS, counts, strict=True):
        for _ in range(count):
            conv(out, f"features.{index}", below, width, 3)
            below, index = width, index + 2  # a ReLU lies between
        index += 1  # and a pooling layer between stages
    return out


def vgg16_tensors(config: Config) -> Shapes:
    """Name -> shape for the convolutions of torchvision's VGG16; there is nothing to configure."""
    return _vgg_tensors((2, 2, 3, 3, 3))


def vgg19_tensors(config: Config) -> Shapes:
    """Name -> shape for the convolutions of torchvision's VGG19; there is nothing to configure."""
    return _vgg_tensors((2, 2, 4, 4, 4))


def vgg(source: Source, records: Records) -> Layout | None:
    """Recognise VGG16 and VGG19; the classifier is 89 % of such a file and of no use here."""
    if "features.0.weight" not in records:
        return None
    size = tuple(records["features.0.weight"].shape)
    if "features.1.weight" in records or size != (64, 3, 3, 3):
        what = "AlexNet" if size[2:] == (11, 11) else "VGG with batch normalisation, or another"
        source.fail(
            f"holds features of a network that is not read here ({what}); those of torchvision's "
            "vgg16 and vgg19 are"
        )
    kind = "vgg19" if "features.34.weight" in records else "vgg16"
    return Layout(kind, unused=("classifier.",))


def lins_tensors(config: Config) -> Shapes:
    """Name -> shape for the weights of LPIPS on VGG16; there is nothing to configure."""
    return {f"lin{i}.model.1.weight": (1, c, 1, 1) for i, c in enumerate(LPIPS_VGG_CHANNELS)}


def lins(source: Source, records: Records) -> Layout | None:
    """Recognise the linear layers of LPIPS."""
    if "lin0.model.1.weight" not in records:
        return None
    names = [f"lin{i}.model.1.weight" for i in range(7)]
    widths = [records[name].shape[1:2] for name in names if name in records]
    for net, others in (
        ("AlexNet", (64, 192, 384, 256, 256)),
        ("SqueezeNet", (64, 128, 256, 384, 384, 512, 512)),
    ):
        if widths == [(width,) for width in others]:
            source.fail(f"holds LPIPS weights for {net}; those for VGG16 (vgg.pth) are used here")
    return Layout("lpips-lins")


# ResNet, and the latent finder behind it


def _resnet(out: Shapes, config: Config, prefix: str = "") -> int:
    """Add the tensors of a `ResNet`; the channels of its last stage."""
    width = config["width"]
    conv(out, f"{prefix}conv1", 3, width, 7, bias=False)
    batch_norm(out, f"{prefix}bn1", width)
    below = width
    for stage, count in enumerate(config["blocks"]):
        inside = width << stage
        for index in range(count):
            unit = f"{prefix}layer{stage + 1}.{index}"
            for part, (fan_in, fan_out, size) in enumerate(
                ((below, inside, 1), (inside, inside, 3), (inside, 4 * inside, 1)), 1
            ):
                conv(out, f"{unit}.conv{part}", fan_in, fan_out, size, bias=False)
                batch_norm(out, f"{unit}.bn{part}", fan_out)
            if index == 0:
                conv(out, f"{unit}.downsample.0", below, 4 * inside, 1, bias=False)
                batch_norm(out, f"{unit}.downsample.1", 4 * inside)
            below = 4 * inside
    return int(below)


def resnet_tensors(config: Config) -> Shapes:
    """Name -> shape for a `ResNet`, from the fields of `ResNetConfig`."""
    out: Shapes = {}
    _resnet(out, config)
    return out


def _resnet_config(source: Source, records: Records, stages: Sequence[str]) -> dict[str, Any]:
    """The fields of `ResNetConfig` of a network whose stages are called so."""
    first = f"{stages[0]}.0.conv1.weight"
    size = records[first].shape
    if f"{stages[0]}.0.conv3.weight" not in records:
        source.fail(
            "is a ResNet of units with two convolutions (18 or 34 layers); those with bottlenecks "
            "(50 and more) are read here",
            first,
        )
    if len(size) != 4 or not 1 <= size[0] <= 1024:
        source.fail(f"has shape {list(size)}, which is not ResNet's", first)
    blocks = []
    for stage in stages:
        count = 0
        while f"{stage}.{count}.conv1.weight" in records and count <= _MAX_UNITS:
            count += 1
        if not 1 <= count <= _MAX_UNITS:
            source.fail(f"a stage of {count} units", stage)
        blocks.append(count)
    return {"blocks": blocks, "width": size[0]}


def resnet(source: Source, records: Records) -> Layout | None:
    """Recognise torchvision's ResNet-50 and deeper; the classifier is left out."""
    if not {"conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "layer4.0.conv1.weight"} <= (
        records.keys()
    ):
        return None
    stages = [f"layer{stage}" for stage in (1, 2, 3, 4)]
    return Layout("resnet", _resnet_config(source, records, stages), unused=("fc.",))


def image_to_latent_tensors(config: Config) -> Shapes:
    """Name -> shape for an `ImageToLatent`, from the fields of `ImageToLatentConfig`."""
    out: Shapes = {}
    width = _resnet(out, config, "trunk.")
    conv(out, "reduce", width, config["reduced"], 1)
    dense(out, "dense1", config["reduced"] * (config["input_size"] // 32) ** 2, config["hidden"])
    dense(out, "dense2", config["hidden"], config["num_ws"] * config["w_dim"])
    return out


# Our names of the trunk's parts -> their numbers in the file.
_FINDER_PARTS = {"conv1": 0, "bn1": 1, "layer1": 4, "layer2": 5, "layer3": 6, "layer4": 7}


def image_to_latent(source: Source, records: Records) -> Layout | None:
    """Recognise pytorch_stylegan_encoder's image_to_latent.pt.

    How many rows its output has is not in the file: they are taken as 512 wide, as StyleGAN's are.
    """
    names = {"conv2d.weight", "dense1.weight", "dense2.weight", "resnet.4.0.conv1.weight"}
    if not names <= records.keys():
        return None
    config = _resnet_config(source, records, [f"resnet.{index}" for index in (4, 5, 6, 7)])
    reduced, hidden, last = (
        records[f"{name}.weight"].shape for name in ("conv2d", "dense1", "dense2")
    )
    pixels = hidden[1] // reduced[0] if len(reduced) == 4 and len(hidden) == 2 and reduced[0] else 0
    side = math.isqrt(pixels)
    if not side or side**2 * reduced[0] != hidden[1] or side > 128:
        source.fail(
            f"has shape {list(hidden)}, which is no square map of {list(reduced[:1])} channels",
            "dense1.weight",
        )
    if len(last) != 2 or not last[0] or last[0] % _W_DIM or last[0] > 64 * _W_DIM:
        source.fail(f"has shape {list(last)}, expected rows of {_W_DIM}", "dense2.weight")
    config |= {
        "input_size": 32 * side,
        "reduced": reduced[0],
        "hidden": hidden[0],
        "num_ws": last[0] // _W_DIM,
        "w_dim": _W_DIM,
    }
    return Layout("image-to-latent", config, _finder_name)


def _finder_name(own: str) -> str:
    first, _, rest = own.partition(".")
    if first == "trunk":
        part, _, rest = rest.partition(".")
        return f"resnet.{_FINDER_PARTS[part]}.{rest}"
    return f"conv2d.{rest}" if first == "reduce" else own


# S3FD


def s3fd_tensors(config: Config) -> Shapes:
    """Name -> shape for an `S3FD`, from the fields of `S3FDConfig`."""
    out: Shapes = {}
    width, below = config["width"], 3
    for stage, (factor, count) in enumerate(((1, 2), (2, 2), (4, 3), (8, 3), (8, 3)), 1):
        for index in range(1, count + 1):
            conv(out, f"conv{stage}_{index}", below, factor * width, 3)
            below = factor * width
    for name, fan_in, fan_out, size in (
        ("fc6", 8, 16, 3), ("fc7", 16, 16, 1),
        ("conv6_1", 16, 4, 1), ("conv6_2", 4, 8, 3),
        ("conv7_1", 8, 2, 1), ("conv7_2", 2, 4, 3),
    ):  # fmt: skip
        conv(out, name, fan_in * width, fan_out * width, size)
    for name, factor in (("conv3_3", 4), ("conv4_3", 8), ("conv5_3", 8)):
        out[f"{name}_norm.weight"] = (factor * width,)
    for name, factor in (
        ("conv3_3_norm", 4), ("conv4_3_norm", 8), ("conv5_3_norm", 8),
        ("fc7", 16), ("conv6_2", 8), ("conv7_2", 4),
    ):  # fmt: skip
        conv(out, f"{name}_mbox_conf", factor * width, 4 if name == "conv3_3_norm" else 2, 3)
        conv(out, f"{name}_mbox_loc", factor * width, 4, 3)
    return out


def s3fd(source: Source, records: Records) -> Layout | None:
    """Recognise face_alignment's face detector."""
    if not {"conv3_3_norm_mbox_conf.weight", "conv1_1.weight"} <= records.keys():
        return None
    shape = records["conv1_1.weight"].shape
    if len(shape) != 4 or not 1 <= shape[0] <= 256:
        source.fail(f"has shape {list(shape)}, which is not S3FD's", "conv1_1.weight")
    return Layout("s3fd", {"width": shape[0]})
