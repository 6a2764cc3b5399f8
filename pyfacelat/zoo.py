"""Weight files become networks: the one place where checkpoints meet nets.

A network is named ("sample", "2dfan4", ...) or given as a path; `weights` finds the file of a name.
Networks come back in evaluation mode and frozen, and making them leaves torch's global random state
alone.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from pyfacelat.checkpoints import (
    Checkpoint,
    Report,
    Source,
    check_shapes,
    config_of,
    convert,
    expect_kind,
    expected_tensors,
)
from pyfacelat.errors import CheckpointError, DeviceError
from pyfacelat.losses.perceptual import LPIPS, lpips_vgg16
from pyfacelat.nets.arcface import ArcFace, ArcFaceConfig
from pyfacelat.nets.discriminator import Discriminator
from pyfacelat.nets.e4e import E4E, E4EConfig
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.identity import IdentityConfig, IdentityNet
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.resnet import ResNet, ResNetConfig
from pyfacelat.nets.s3fd import S3FD, S3FDConfig
from pyfacelat.nets.sample_encoder import FeatureTrunk, SampleEncoder, SampleEncoderConfig
from pyfacelat.nets.stylegan1 import StyleGAN1, StyleGAN1Config
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.nets.stylegan2_config import DiscriminatorConfig, GeneratorConfig
from pyfacelat.nets.vgg import VGG16Features, VGG19Features
from pyfacelat.weights import (
    PathLike,
    WeightFile,
    known_weights,
    open_known,
    open_weights,
    weights_dirs,
)

__all__ = [
    "Report",
    "WeightFile",
    "convert",
    "known_weights",
    "load_any_encoder",
    "load_detector",
    "load_discriminator",
    "load_e4e",
    "load_encoder",
    "load_features",
    "load_generator",
    "load_identity",
    "load_image_to_latent",
    "load_landmarker",
    "load_perceptual",
    "weights_dirs",
]

Device = str | torch.device
_Net = TypeVar("_Net", bound=nn.Module)

_VGGS: dict[str, type[VGG16Features] | type[VGG19Features]] = {
    "vgg16": VGG16Features,
    "vgg19": VGG19Features,
}


def load_generator(
    path_or_name: PathLike, *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> Generator:
    """Load a generator: "sample", or a file with a StyleGAN2 or a StyleGAN of 2019.

    Args:
        path_or_name: "sample" or a path.
        device: where the network goes.
        dtype: of its parameters; None means float32, whatever the file stores.

    Returns:
        The generator in evaluation mode, frozen; `w_stats` holds what the file says about W.

    Raises:
        CheckpointError: the file is malformed, hostile, unsupported, or no generator.
        MissingWeightsError: there is no such file or name.
        DeviceError: the device is not there.
    """
    where = check_device(device)
    checkpoint = open_weights(path_or_name, {"sample": "sample-generator"}, "network")
    stylegan1 = checkpoint.kind == "stylegan1-generator"
    config: GeneratorConfig
    if stylegan1:
        config = config_of(checkpoint, checkpoint.kind, StyleGAN1Config)
    else:
        config = config_of(checkpoint, "stylegan2-generator", GeneratorConfig)
    stats = {k: v for k, v in checkpoint.tensors.items() if k.startswith("w_stats.")}
    tensors = {k: v for k, v in checkpoint.tensors.items() if k not in stats}
    net = _build(StyleGAN1 if stylegan1 else Generator, config, checkpoint, tensors, dtype)
    net.w_stats = _w_stats(checkpoint, stats, config.w_dim, dtype or torch.float32)
    return net.to(where).freeze()


def load_discriminator(
    path_or_name: PathLike, *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> Discriminator:
    """Load a StyleGAN2 discriminator from an NVIDIA network pickle (entry D) or a native file.

    Args, Raises: as `load_generator`; no discriminator is known by name.
    """
    where = check_device(device)
    checkpoint = open_weights(path_or_name, {}, "network", part="discriminator")
    config = config_of(checkpoint, "stylegan2-discriminator", DiscriminatorConfig)
    return _frozen(_build(Discriminator, config, checkpoint, checkpoint.tensors, dtype), where)


def load_landmarker(
    name_or_path: PathLike = "2dfan4", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> FAN:
    """Load a landmark network: "2dfan4", "sample", or a file with a FAN.

    Raises: as `load_generator`; MissingWeightsError says where 2DFAN-4 comes from and goes.
    """
    where = check_device(device)
    names = {"2dfan4": "2dfan4", "sample": "sample-landmarker"}
    checkpoint = open_weights(name_or_path, names, "landmarker")
    config = config_of(checkpoint, "fan", FANConfig)
    return _frozen(_build(FAN, config, checkpoint, checkpoint.tensors, dtype), where)


def load_detector(
    name_or_path: PathLike = "s3fd", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> S3FD:
    """Load a face detector: "s3fd", or a file with such a network.

    Raises: as `load_generator`; MissingWeightsError says where S3FD comes from and goes.
    """
    where = check_device(device)
    checkpoint = open_weights(name_or_path, {"s3fd": "s3fd"}, "detector")
    config = config_of(checkpoint, "s3fd", S3FDConfig)
    return _frozen(_build(S3FD, config, checkpoint, checkpoint.tensors, dtype), where)


def load_e4e(path: PathLike, *, device: Device = "cpu", dtype: torch.dtype | None = None) -> E4E:
    """Load the encoder of an e4e or pSp checkpoint; `load_generator` loads its decoder.

    Args:
        path: a file of their training scripts, such as e4e_ffhq_encode.pt, or what `convert` made
            of it.
        device: where the network goes.
        dtype: of its parameters; None means float32.

    Returns:
        The encoder, frozen: forward takes aligned RGB images [N, 3, 256, 256] in [-1, 1] to ws
        [N, num_ws, w_dim], the average w included.

    Raises:
        CheckpointError, MissingWeightsError, DeviceError: as `load_generator`.
    """
    where = check_device(device)
    checkpoint = open_weights(path, {}, "encoder", part="encoder")
    config = config_of(checkpoint, "e4e", E4EConfig)
    return _frozen(_build(E4E, config, checkpoint, checkpoint.tensors, dtype), where)


def load_encoder(
    name: PathLike = "sample", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> SampleEncoder:
    """Load the sample models' encoder: "sample", or a file that holds such a network.

    Raises: as `load_generator`.
    """
    where = check_device(device)
    checkpoint = open_weights(name, {"sample": "sample-encoder"}, "encoder")
    return _frozen(_encoder(checkpoint, dtype), where)


def load_any_encoder(
    name_or_path: PathLike = "sample", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> SampleEncoder | E4E | ImageToLatent:
    """Load whichever encoder a file holds: see `load_encoder`, `load_e4e`, `load_image_to_latent`.

    Raises:
        CheckpointError, MissingWeightsError, DeviceError: as `load_generator`.
    """
    where = check_device(device)
    checkpoint = open_weights(name_or_path, {"sample": "sample-encoder"}, "encoder", part="encoder")
    if checkpoint.kind == "sample-encoder":
        return _frozen(_encoder(checkpoint, dtype), where)
    if checkpoint.kind == "image-to-latent":
        config = config_of(checkpoint, "image-to-latent", ImageToLatentConfig)
        return _frozen(_build(ImageToLatent, config, checkpoint, checkpoint.tensors, dtype), where)
    e4e = config_of(checkpoint, "e4e", E4EConfig)
    return _frozen(_build(E4E, e4e, checkpoint, checkpoint.tensors, dtype), where)


def load_identity(
    name_or_path: PathLike = "sample", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> ArcFace | IdentityNet:
    """Load a network for the identity of aligned faces.

    Args:
        name_or_path: "sample" for the sample models' own, or a file: another such network, or a
            state dict with ArcFace's IR-50, IR-SE50 or another depth, in the layout of
            InsightFace_Pytorch (model_ir_se50.pth of e4e, pSp and PTI) or of insightface's
            IResNet (backbone.pth).
        device: where the network goes.
        dtype: of its parameters; None means float32.

    Returns:
        The network, frozen: forward takes aligned RGB images [N, 3, input_size, input_size] in
        [-1, 1] to embeddings [N, D] of length 1; the sample models' own takes other sizes too.

    Raises:
        CheckpointError, MissingWeightsError, DeviceError: as `load_generator`.
    """
    where = check_device(device)
    checkpoint = open_weights(name_or_path, {"sample": "sample-identity"}, "identity")
    if checkpoint.kind == "sample-identity":
        own = config_of(checkpoint, "sample-identity", IdentityConfig)
        return _frozen(_build(IdentityNet, own, checkpoint, checkpoint.tensors, dtype), where)
    config = config_of(checkpoint, "arcface", ArcFaceConfig)
    return _frozen(_build(ArcFace, config, checkpoint, checkpoint.tensors, dtype), where)


def load_image_to_latent(
    path: PathLike, *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> ImageToLatent:
    """Load pytorch_stylegan_encoder's latent finder, image_to_latent.pt.

    Returns:
        The network, frozen: forward takes aligned RGB images [N, 3, 256, 256] in [-1, 1] to ws
        [N, num_ws, w_dim].

    Raises:
        CheckpointError, MissingWeightsError, DeviceError: as `load_generator`.
    """
    where = check_device(device)
    checkpoint = open_weights(path, {}, "latent finder")
    config = config_of(checkpoint, "image-to-latent", ImageToLatentConfig)
    return _frozen(_build(ImageToLatent, config, checkpoint, checkpoint.tensors, dtype), where)


def load_features(
    name_or_path: PathLike, *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> VGG16Features | VGG19Features | ResNet:
    """Load the features of a classifier trained on ImageNet, for losses and encoders.

    Args:
        name_or_path: "vgg16", "vgg19", "resnet50" (torchvision's files of these), or a file with
            such a network; also ResNet-101 and 152.
        device: where the network goes.
        dtype: of its parameters; None means float32.

    Returns:
        The network, frozen, without its classifier; `activations(x, layers)` gives maps by name.

    Raises:
        CheckpointError, MissingWeightsError, DeviceError: as `load_generator`.
    """
    where = check_device(device)
    names = {name: name for name in ("vgg16", "vgg19", "resnet50")}
    checkpoint = open_weights(name_or_path, names, "features")
    if checkpoint.kind in _VGGS:
        vgg = _build(_VGGS[checkpoint.kind], None, checkpoint, checkpoint.tensors, dtype)
        return _frozen(vgg, where)
    config = config_of(checkpoint, "resnet", ResNetConfig)
    return _frozen(_build(ResNet, config, checkpoint, checkpoint.tensors, dtype), where)


def load_perceptual(
    name: PathLike = "lpips-vgg16", *, device: Device = "cpu", dtype: torch.dtype | None = None
) -> LPIPS:
    """Load a perceptual metric.

    Args:
        name: "lpips-vgg16" (torchvision's VGG16 with the weights of the lpips package), "sample"
            (features of the sample encoder, with the channel weights of its file), or a file that
            holds such an encoder.
        device: where the metric goes.
        dtype: of its parameters; None means float32.

    Raises: as `load_generator`; MissingWeightsError says where VGG16 comes from and goes.
    """
    where = check_device(device)
    # The one metric that is made of two files.
    if os.fspath(name) == "lpips-vgg16":
        trunk, lins = open_known("vgg16"), open_known("lpips-lins")
        expect_kind(trunk, "vgg16")
        expect_kind(lins, "lpips-lins")
        with _quiet_random():
            net = lpips_vgg16(trunk.tensors, lins.tensors)
    else:
        names = {"lpips-vgg16": "", "sample": "sample-encoder"}
        checkpoint = open_weights(name, names, "perceptual")
        encoder = _encoder(checkpoint, torch.float32)
        count = len(encoder.config.metric_channels)
        weights = [encoder.get_buffer(f"lin{k}") for k in range(count)]
        try:
            net = LPIPS(FeatureTrunk(encoder.folded()), weights)
        except ValueError as error:
            raise CheckpointError(checkpoint.file, str(error)) from None
    return _frozen(net.to(dtype or torch.float32), where)


def check_device(device: Device) -> torch.device:
    """The device of that name; DeviceError if it is not one, or not there."""
    try:
        where = torch.device(device)
    except (RuntimeError, TypeError):
        where = None
    if where is None or where.type not in ("cpu", "cuda"):
        raise DeviceError(f'device: expected "cpu", "cuda" or "cuda:N", got {str(device)!r}')
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if where.type == "cuda" and (where.index or 0) >= count:
        raise DeviceError(
            f"device: {str(device)!r} was asked for, and {count} CUDA devices are there"
            + ("" if count else '; use "cpu"')
        )
    return where


# From checkpoint to network


def _build(
    cls: type[_Net],
    config: Any,
    checkpoint: Checkpoint,
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype | None,
) -> _Net:
    """The network of a config (None: of a class without) with its file's tensors, on the CPU."""
    fields = {} if config is None else dataclasses.asdict(config)
    expected = expected_tensors(checkpoint.kind, fields)
    # Before anything is allocated: a few bytes of config can ask for terabytes.
    source = Source(checkpoint.file, b"")
    check_shapes(source, expected, {k: tuple(v.shape) for k, v in tensors.items()})
    for name, tensor in tensors.items():
        # BatchNorm counts its batches in int64; everything else is weights.
        if not (tensor.is_floating_point() or name.endswith(".num_batches_tracked")):
            source.fail(f"has dtype {tensor.dtype}, not a floating-point one", name)
    with _quiet_random():
        net = (cls() if config is None else cls(config)).to(dtype or torch.float32)
    try:
        load_strict(net, tensors)
    except ValueError as error:
        raise CheckpointError(checkpoint.file, str(error)) from None
    return net


def _encoder(checkpoint: Checkpoint, dtype: torch.dtype | None) -> SampleEncoder:
    config = config_of(checkpoint, "sample-encoder", SampleEncoderConfig)
    return _build(SampleEncoder, config, checkpoint, checkpoint.tensors, dtype).eval()


def _w_stats(
    checkpoint: Checkpoint, stats: Mapping[str, Tensor], w_dim: int, dtype: torch.dtype
) -> dict[str, Tensor]:
    known = {"mean": (w_dim,), "cov_basis": (w_dim, w_dim), "cov_scale": (w_dim,)}
    out = {}
    for full, value in stats.items():
        name = full.removeprefix("w_stats.")
        if name not in known or tuple(value.shape) != known[name] or not value.is_floating_point():
            raise CheckpointError(
                checkpoint.file,
                f"shape {list(value.shape)}, {value.dtype}; known are {known}, floating point",
                full,
            )
        out[name] = value.to(dtype)
    return out


def _quiet_random() -> Any:
    """Keep the global random state: initial values are drawn and then overwritten."""
    return torch.random.fork_rng(devices=[])


def _frozen(net: _Net, device: torch.device) -> _Net:
    return net.to(device).eval().requires_grad_(False)
