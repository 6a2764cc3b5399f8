"""Configurations of the sample models, and fresh networks with seeded weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn

from pyfacelat.nets.discriminator import Discriminator, DiscriminatorConfig
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.identity import IdentityConfig, IdentityNet
from pyfacelat.nets.sample_encoder import SampleEncoder, SampleEncoderConfig
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

__all__ = [
    "discriminator_config",
    "encoder_config",
    "fan_config",
    "generator_config",
    "grow_generator",
    "identity_config",
    "new_discriminator",
    "new_encoder",
    "new_fan",
    "new_generator",
    "new_identity",
]

_Net = TypeVar("_Net", bound=nn.Module)

_CHANNELS = {
    64: {4: 96, 8: 96, 16: 96, 32: 64, 64: 32},
    128: {4: 144, 8: 144, 16: 144, 32: 96, 64: 64, 128: 24},
}
"""Channels by the size of the last image; a small image needs little."""


def generator_config(z_dim: int, size: int = 64, w_dim: int = 128) -> GeneratorConfig:
    """StyleGAN2, skip architecture, thin; mapping multiplier 1, since 0.01 would freeze it here."""
    return GeneratorConfig(
        z_dim=z_dim,
        w_dim=w_dim,
        img_resolution=size,
        num_mapping_layers=4,
        mapping_lr_multiplier=1.0,
        channels={r: c for r, c in _CHANNELS[max(size, 64)].items() if r <= size},
        architecture="skip",
    )


def fan_config(size: int = 64, width: int = 64) -> FANConfig:
    """One hourglass of depth 3 on maps of 32 x 32 at 64 and 128 px: finer ones cost four times."""
    stem = "half" if size < 128 else "fan"
    return FANConfig(num_stacks=1, width=width, depth=3, input_size=size, stem=stem)


def encoder_config(z_dim: int, size: int = 64) -> SampleEncoderConfig:
    """Five stages, whose maps are the perceptual features, and heads for z and landmarks."""
    return SampleEncoderConfig(z_dim=z_dim, input_size=size, stride=_stride(size), window_width=48)


def identity_config(embedding_dim: int, size: int = 64) -> IdentityConfig:
    """A narrower body than the encoder's."""
    return IdentityConfig(embedding_dim=embedding_dim, input_size=size, stride=_stride(size))


def discriminator_config(size: int = 64) -> DiscriminatorConfig:
    """StyleGAN2's, thin, residual; without minibatch statistics, so that images stay apart."""
    channels = {128: 16, 64: 24, 32: 32, 16: 48, 8: 64, 4: 64}
    return DiscriminatorConfig(
        img_resolution=size,
        channels={r: c for r, c in channels.items() if r <= size},
        mbstd_num_channels=0,
    )


def new_generator(config: GeneratorConfig, seed: int) -> Generator:
    """Build a generator with seeded weights and noise maps."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(Generator(config))


def grow_generator(
    small: Mapping[str, Tensor], generator: Generator, z_index: Sequence[int] | None = None
) -> dict[str, Tensor]:
    """Place the weights of a smaller generator in a larger one without changing what it computes.

    Channels that are new start at random, but nothing that was there listens to them yet: their
    columns are zero in every old row, so the images of the resolutions that `small` has stay what
    they were (up to rounding, and to the new entries of z, which act on nothing either).

    Args:
        small: state dict of the smaller generator.
        generator: the larger one, fresh; gives shapes and the values of what is new.
        z_index: place in the new z of every entry of the old one; None = the first ones.

    Returns:
        A state dict for `generator`.

    Raises:
        ValueError: a tensor of `small` is larger than the one it should go into.
    """
    out: dict[str, Tensor] = {}
    for name, fresh in generator.state_dict().items():
        old, new = small.get(name), fresh.clone()
        if old is None:
            out[name] = new
            continue
        if old.ndim != new.ndim or any(a > b for a, b in zip(old.shape, new.shape, strict=True)):
            raise ValueError(f"{name}: {list(old.shape)} does not fit into {list(new.shape)}")
        if name == "mapping.fc0.weight":
            new.zero_()
            places = range(old.shape[1]) if z_index is None else z_index
            new[:, list(places)] = old * math.sqrt(new.shape[1] / old.shape[1])
        else:
            if old.ndim == 4:
                new[: old.shape[0]] = 0
                if ".torgb." in name:  # its gain is 1 / sqrt(inputs)
                    old = old * math.sqrt(new.shape[1] / old.shape[1])
            new[tuple(slice(n) for n in old.shape)] = old
        out[name] = new
    return out


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


def new_identity(config: IdentityConfig, seed: int) -> IdentityNet:
    """Build an identity net with seeded He-normal convolutions."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(_he_normal(IdentityNet(config)))


def new_discriminator(config: DiscriminatorConfig, seed: int) -> Discriminator:
    """Build a discriminator with seeded weights of unit variance, which it scales itself."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _laid_out(Discriminator(config))


def _stride(size: int) -> int:
    """Of a body's first convolution: images of 64 and of 128 px cost the same."""
    return 1 if size < 128 else 2


def _he_normal(net: _Net) -> _Net:
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_in = module.weight[0].numel()
            nn.init.normal_(module.weight, std=math.sqrt(2.0 / fan_in))
    return net


def _laid_out(net: _Net) -> _Net:
    return net.to(memory_format=torch.channels_last)
