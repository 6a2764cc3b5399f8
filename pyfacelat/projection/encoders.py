"""Encoders of every kind as one function: images to the latents of one generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pyfacelat.errors import ConfigError
from pyfacelat.images import shrink_to
from pyfacelat.nets.e4e import E4E
from pyfacelat.nets.image_to_latent import ImageToLatent
from pyfacelat.nets.sample_encoder import SampleEncoder
from pyfacelat.nets.stylegan2 import Generator


@torch.no_grad()
def encode(encoder: nn.Module, generator: Generator | None, images: Tensor) -> Tensor:
    """Latents [N,num_ws,w_dim] that an encoder sees in images [N,3,R,R] in [-1, 1].

    Args:
        encoder: a `SampleEncoder`, whose z the generator maps, an `E4E` or an `ImageToLatent`,
            which give latents of themselves.
        generator: whose latents they are; None only for encoders of the second kind.
        images: aligned faces of any size; they are resized to the encoder's.

    Raises:
        ConfigError: see `check_encoder`.
    """
    check_encoder(encoder, generator)
    size = input_size(encoder)
    if images.shape[-1] > size:
        images = shrink_to(images, size)
    elif images.shape[-1] < size:
        images = F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False)
    images = images.to(next(encoder.parameters()))
    # One by one: rounding depends on the batch size, and the first steps of Adam magnify it.
    if not isinstance(encoder, SampleEncoder):
        return torch.cat([encoder(image[None]) for image in images])
    assert generator is not None
    like = next(generator.parameters())
    z = [encoder.latent(image[None]).to(like) for image in images]
    return torch.cat([generator.mapping(one, None) for one in z])


def input_size(encoder: nn.Module) -> int:
    """Side of the images that an encoder looks at."""
    assert isinstance(encoder, SampleEncoder | E4E | ImageToLatent)
    return encoder.config.input_size


def check_encoder(encoder: nn.Module, generator: Generator | None) -> None:
    """Hold an encoder to its generator.

    Raises:
        ConfigError: the encoder is of no known kind, or its latents are of another shape.
    """
    if isinstance(encoder, SampleEncoder):
        if generator is None:
            raise ConfigError("network: this encoder estimates z, which takes a generator to map")
        if encoder.config.z_dim != generator.z_dim:
            raise ConfigError(
                f"encoder: its z have {encoder.config.z_dim} entries, the network's "
                f"{generator.z_dim}"
            )
        return
    if not isinstance(encoder, E4E | ImageToLatent):
        raise ConfigError(
            "encoder: expected a SampleEncoder, an E4E or an ImageToLatent, got "
            f"{type(encoder).__name__}"
        )
    if generator is None:
        return
    shape = (encoder.config.num_ws, encoder.config.w_dim)
    if shape != (generator.num_ws, generator.w_dim):
        raise ConfigError(
            f"encoder: is for latents {list(shape)}, the network's are "
            f"{[generator.num_ws, generator.w_dim]}"
        )
