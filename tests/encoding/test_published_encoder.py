"""P1 and P2: the objective of pytorch_stylegan_encoder, one VGG-16 layer at a time."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pyfacelat
from pyfacelat.latents import load_latents, save_latents
from pyfacelat.losses.features import FeatureDistance
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.nets.vgg import VGG16Features
from pyfacelat.projection import make_config
from pyfacelat.projection.config import Stage


@pytest.fixture(scope="module")
def vgg() -> LPIPS:
    """A random VGG-16 whose activations neither vanish nor explode."""
    torch.manual_seed(0)
    trunk = VGG16Features()
    for parameter in trunk.parameters():
        if parameter.ndim == 4:
            torch.nn.init.kaiming_normal_(parameter)
    return LPIPS(trunk, [torch.ones(c) for c in (64, 128, 256, 512, 512)])


def published(layer: int, steps: int) -> Any:
    """Its `features[:layer]`, of which the last has number layer - 1, at a rate that Adam likes."""
    # A perceptual weight that counts for nothing, so that its trunk is the VGG-16 that is used.
    weights = {"vgg": 1.0, "perceptual": 1e-9}
    stage = Stage("vgg", steps, weights, learning_rate=0.02, latent_noise=0.0)
    return dataclasses.replace(
        make_config("balanced"),
        stages=(stage,),
        coordinates="raw",
        motion_rank=0,
        shape="take",
        vgg_layers=(layer - 1,),
        w_samples=100,
    )


@pytest.fixture(scope="module")
def look(generator: Generator) -> Tensor:
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(5))
    return generator(z)[0].clamp(-1, 1)


def test_p1_loss_falls_and_latents_are_written(
    generator: Generator,
    landmarker: Any,
    vgg: LPIPS,
    look: Tensor,
    tmp_path: Any,
) -> None:
    """Layer 12, from zeros, 50 steps."""
    zeros = torch.zeros(1, generator.num_ws, generator.w_dim)
    nets = {"network": generator, "landmarker": landmarker, "perceptual": vgg}
    result = pyfacelat.project(look, **nets, preset=published(12, 50), init=zeros)
    values = result.losses["vgg"][:, 0]
    assert values[-1] < 0.9 * values[0]
    save_latents(tmp_path / "dlatents.npy", result.ws)
    stored = np.load(tmp_path / "dlatents.npy")
    assert stored.shape == (1, generator.num_ws, generator.w_dim) and stored.dtype == np.float32
    assert torch.equal(load_latents(tmp_path / "dlatents.npy"), result.ws)


def test_p1_every_layer_runs(
    generator: Generator,
    landmarker: Any,
    vgg: LPIPS,
    look: Tensor,
) -> None:
    nets = {"network": generator, "landmarker": landmarker, "perceptual": vgg}
    seen = set()
    for layer in range(1, 17):
        losses = pyfacelat.project(look, **nets, preset=published(layer, 2)).losses["vgg"]
        assert bool(torch.isfinite(losses).all()) and float(losses[0]) > 0
        seen.add(round(float(losses[0]), 6))
    assert len(seen) == 16  # each is a distance of its own


def test_p2_the_image_chain(look: Tensor) -> None:
    """(x + 1) 127.5 / 255, mean-pooled to 256, ImageNet's statistics.

    Without the published program's + 0.5, which makes every image half a level brighter, and its
    clamp, which has no gradient.
    """

    class Seen:
        def activations(self, x: Tensor, layers: Any) -> list[Tensor]:
            self.x = x
            return [x]

    trunk = Seen()
    images = torch.rand(2, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    FeatureDistance.embed(_distance(trunk), images)
    small = F.adaptive_avg_pool2d((images + 1) * 127.5 / 255, 256)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (
        (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))  # fmt: skip
    torch.testing.assert_close(trunk.x, (small - mean) / std, rtol=1e-5, atol=1e-5)


def _distance(trunk: Any) -> FeatureDistance:
    distance = FeatureDistance(torch.nn.Identity(), (11,))  # type: ignore[arg-type]
    object.__setattr__(distance, "_modules", {})
    object.__setattr__(distance, "trunk", trunk)
    return distance
