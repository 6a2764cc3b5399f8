"""Configurations of the sample models, and fresh networks with seeded weights."""

from __future__ import annotations

import math
from typing import TypeVar

import torch
from torch import nn

from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.sample_encoder import SampleEncoder, SampleEncoderConfig
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

__all__ = [
    "encoder_config",
    "fan_config",
    "generator_config",
    "new_encoder",
    "new_fan",
    "new_generator",
]

_Net = TypeVar("_Net", bound=nn.Module)

_CHANNELS = {4: 96, 8: 96, 16: 96, 32: 64, 64: 32, 128: 16}


def generator_config(z_dim: int, size: int = 64, w_dim: int = 128) -> GeneratorConfig:
    """StyleGAN2, skip architecture, thin; mapping multiplier 1, since 0.01 would freeze it here."""
    return GeneratorConfig(
        z_dim=z_dim,
        w_dim=w_dim,
        img_resolution=size,
        num_mapping_layers=4,
        mapping_lr_multiplier=1.0,
        channels={r: c for r, c in _CHANNELS.items() if r <= size},
        architecture="skip",
    )


def fan_config(size: int = 64, width: int = 64) -> FANConfig:
    """One hourglass of depth 3 on maps of half the image's side."""
    return FANConfig(num_stacks=1, width=width, depth=3, input_size=size, stem="half")


def encoder_config(z_dim: int, size: int = 64) -> SampleEncoderConfig:
    """Five stages, whose maps are the perceptual features, and heads for z and landmarks."""
    return SampleEncoderConfig(z_dim=z_dim, input_size=size)


def new_generator(config: GeneratorConfig, seed: int) -> Generator:
    """Build a generator with seeded weights and noise maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(Generator(config))


def new_fan(config: FANConfig, seed: int) -> FAN:
    """Build a landmark net with seeded He-normal convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(_he_normal(FAN(config)))


def new_encoder(config: SampleEncoderConfig, seed: int) -> SampleEncoder:
    """Build an encoder with seeded He-normal convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(_he_normal(SampleEncoder(config)))


def _he_normal(net: _Net) -> _Net:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
    return net


def _laid_out(net: _Net) -> _Net:
    return net.to(memory_format=torch.channels_last)
