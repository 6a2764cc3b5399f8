"""The networks of a projection: what "auto" means, and what each has to be."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat import zoo
from pyfacelat.errors import ConfigError
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.losses.landmark import Landmarker
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import FAN, fold_batchnorm
from pyfacelat.nets.frozen_nets import frozen
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.projection.config import ProjectionConfig
from pyfacelat.projection.encoders import check_encoder


@dataclass(frozen=True)
class Networks:
    """Frozen networks, on one device and in one dtype.

    Attributes:
        generator: unconditional, with three image channels.
        landmarker: always there, since results report landmarks.
        perceptual: None when no stage has a look term.
        encoder: gives the latents to start from (see `encoders.encode`); None to start elsewhere.
        identity: None when no stage has an identity term; as the next two for theirs.
        discriminator: of the generator's resolution.
        features: VGG-16.

    """

    generator: Generator
    landmarker: Landmarker
    perceptual: LPIPS | None
    encoder: nn.Module | None
    identity: IdentityDistance | None = None
    discriminator: nn.Module | None = None
    features: VGG16Features | None = None


def load_networks(
    config: ProjectionConfig,
    *,
    network: str | os.PathLike[str] | Generator,
    perceptual: str | os.PathLike[str] | nn.Module,
    landmarker: str | os.PathLike[str] | nn.Module,
    init: str | os.PathLike[str] | Tensor,
    identity: str | os.PathLike[str] | nn.Module,
    discriminator: str | os.PathLike[str] | nn.Module,
    encoder: str | os.PathLike[str] | nn.Module,
    device: torch.device,
    dtype: torch.dtype,
    features: torch.dtype | None = None,
) -> Networks:
    """Load what a configuration needs; arguments as `pyfacelat.project` has them.

    `features` is what the look's and the landmark network compute in where gradients are taken;
    None is `dtype`.

    Raises:
        CheckpointError, MissingWeightsError: a file is malformed, or absent.
        ConfigError: the generator is conditional or not RGB, or has no encoder to start from; a
            term is on whose network was not given.

    """
    sample = isinstance(network, str) and network == "sample"
    generator = _generator(network, device, dtype)
    metric = None
    if config.uses("perceptual"):
        metric = _perceptual(perceptual, sample).to(device, dtype)
    landmarks = _landmarker(landmarker, sample, config, features).to(device, dtype)
    # To tell a face's shape from its motion an identity network is welcome, not demanded.
    own = isinstance(identity, str) and identity == "auto"
    apart = config.motion_rank > 0 and config.shape == "keep" and (sample or not own)
    return Networks(
        generator,
        landmarks,
        _with_fast_trunk(metric, features),
        _encoder(encoder, init, sample, config, generator, device),
        _identity(identity, sample, device, dtype) if config.uses("identity") or apart else None,
        _discriminator(discriminator, network, generator, device, dtype)
        if config.uses("discriminator")
        else None,
        _features(metric, device, dtype) if config.uses("vgg") else None,
    )


def _generator(
    network: str | os.PathLike[str] | Generator, device: torch.device, dtype: torch.dtype
) -> Generator:
    if isinstance(network, Generator):
        generator = network.to(device, dtype).freeze()
    else:
        generator = zoo.load_generator(network, device=device, dtype=dtype)
    if generator.c_dim > 0:
        raise ConfigError(
            f"network: conditional (c_dim={generator.c_dim}); projection needs an unconditional one"
        )
    if generator.img_channels != 3:
        raise ConfigError(f"network: expected 3 image channels, got {generator.img_channels}")
    return generator


def _encoder(
    source: str | os.PathLike[str] | nn.Module,
    init: str | os.PathLike[str] | Tensor,
    sample: bool,
    config: ProjectionConfig,
    generator: Generator,
    device: torch.device,
) -> nn.Module | None:
    """The encoder to start from; one that was given is meant, unless `init` says otherwise."""
    given = isinstance(source, nn.Module) or source != "auto"
    asked = isinstance(init, str) and init == "encoder"
    default = given or (sample and config.preset != "reference")
    if not asked and not (isinstance(init, str) and init == "auto" and default):
        return None
    if not given and not sample:
        raise ConfigError(
            'init: "encoder" needs one for this network: give encoder=, the file of an e4e, pSp or '
            "image-to-latent network; or start from latents or the mean"
        )
    net: nn.Module
    if isinstance(source, nn.Module):
        net = source.to(device).eval().requires_grad_(False)
    else:
        net = zoo.load_any_encoder("sample" if source == "auto" else source, device=device)
    check_encoder(net, generator)
    return net


def _perceptual(source: str | os.PathLike[str] | nn.Module, sample: bool) -> LPIPS:
    net: Any = source
    if not isinstance(source, nn.Module):
        auto = "sample" if sample else "lpips-vgg16"
        net = zoo.load_perceptual(auto if source == "auto" else source)
    frozen: LPIPS = net.eval().requires_grad_(False)
    return frozen


def _with_fast_trunk(metric: LPIPS | None, features: torch.dtype | None) -> LPIPS | None:
    if not isinstance(metric, LPIPS):  # none, or the caller's own
        return metric
    return metric.with_trunk(frozen(metric.trunk, features))


def _landmarker(
    source: str | os.PathLike[str] | nn.Module,
    sample: bool,
    config: ProjectionConfig,
    features: torch.dtype | None,
) -> Landmarker:
    if isinstance(source, Landmarker):
        return source
    net: nn.Module
    if isinstance(source, nn.Module):
        net = source
    else:
        auto = "sample" if sample else "2dfan4"
        net = zoo.load_landmarker(auto if source == "auto" else source)
    if isinstance(net, FAN):
        with torch.random.fork_rng(devices=[]):  # building a network draws initial weights
            net = fold_batchnorm(net)  # equal outputs, fewer operations in every step
    if config.landmark_backend == "torch":  # other engines read the network itself
        net = frozen(net, features)
    return Landmarker(net, resize=config.resize, normalize=config.normalize)


def _identity(
    source: str | os.PathLike[str] | nn.Module,
    sample: bool,
    device: torch.device,
    dtype: torch.dtype,
) -> IdentityDistance:
    """The identity net given; "auto" is the sample models' own for the sample generator."""
    if isinstance(source, str) and source == "auto":
        if not sample:
            raise ConfigError(
                "identity: the identity term is on; give a face recognition network, as a file "
                "(see `zoo.load_identity`) or a module"
            )
        source = "sample"
    if isinstance(source, str) and source == "sample":  # it looks at the whole crop
        return IdentityDistance(zoo.load_identity(source), crop=None).to(device, dtype)
    if isinstance(source, IdentityDistance):
        return source.to(device, dtype)
    net = source if isinstance(source, nn.Module) else zoo.load_identity(source).folded()
    return IdentityDistance(net).to(device, dtype)


def _discriminator(
    source: str | os.PathLike[str] | nn.Module,
    network: str | os.PathLike[str] | Generator,
    generator: Generator,
    device: torch.device,
    dtype: torch.dtype,
) -> nn.Module:
    """The discriminator given; "auto" is the one in the generator's own pickle."""
    if isinstance(source, nn.Module):
        net = source.to(device, dtype)
    elif source == "auto":
        if isinstance(network, Generator) or not os.fspath(network).endswith(".pkl"):
            raise ConfigError(
                "discriminator: the discriminator term is on; give one, as a file or a module "
                '("auto" finds it in a network pickle only)'
            )
        net = zoo.load_discriminator(network, device=device, dtype=dtype)
    else:
        net = zoo.load_discriminator(source, device=device, dtype=dtype)
    side = getattr(net, "img_resolution", generator.img_resolution)
    if side != generator.img_resolution:
        raise ConfigError(
            f"discriminator: is for {side} px, the generator for {generator.img_resolution}"
        )
    return net.eval().requires_grad_(False)


def _features(metric: LPIPS | None, device: torch.device, dtype: torch.dtype) -> VGG16Features:
    """VGG-16, the look term's own where it has one."""
    trunk = getattr(metric, "trunk", None)
    if isinstance(trunk, VGG16Features):
        return trunk
    vgg = zoo.load_features("vgg16", device=device, dtype=dtype)
    assert isinstance(vgg, VGG16Features)
    return vgg
