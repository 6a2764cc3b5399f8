"""A small generator and one encoder of each foreign kind."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.nets.e4e import E4E, E4EConfig
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.stylegan2 import Generator

from ..projection.conftest import landmarker, make_generator, perceptual  # noqa: F401


@pytest.fixture(scope="session")
def generator() -> Generator:
    return make_generator()


@pytest.fixture(scope="session")
def e4e(generator: Generator) -> E4E:
    torch.manual_seed(3)
    config = E4EConfig(
        blocks=(1, 1, 1, 1),
        widths=(4, 4, 8, 8),
        reduction=2,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        input_size=32,
    )
    net = E4E(config)
    net.latent_avg.copy_(generator.mapping.w_avg.expand(generator.num_ws, -1) + 0.5)
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def finder(generator: Generator) -> ImageToLatent:
    torch.manual_seed(4)
    config = ImageToLatentConfig(
        blocks=(1, 1, 1, 1),
        width=4,
        input_size=32,
        reduced=4,
        hidden=8,
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
    )
    return ImageToLatent(config).eval().requires_grad_(False)
