"""The reference preset against the published algorithm, written out plainly with torch.optim."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import pyfacelat
from pyfacelat.faces.groups import REFERENCE_WEIGHTS, expand
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import make_config
from pyfacelat.projection.loop import _draw
from pyfacelat.projection.schedule import latent_noise_ramp, learning_rate_ramp
from pyfacelat.projection.space import LatentSpace, measure

from .conftest import make_generator


def published(
    generator: Generator,
    perceptual: Any,
    landmarker: torch.nn.Module,
    look: Tensor,
    pose: Tensor,
    steps: int,
    seed: int = 303,
) -> tuple[Tensor, list[float]]:
    """One w, all noise maps, Adam, the ramps, and the three terms, one image at a time."""
    z = torch.from_numpy(np.random.RandomState(123).randn(10_000, generator.z_dim)).double()
    w_samples = generator.mapping(z, None)[:, :1].numpy()
    w_avg = np.mean(w_samples, axis=0, keepdims=True)
    w_std = (np.sum((w_samples - w_avg) ** 2) / 10_000) ** 0.5

    rng = torch.Generator().manual_seed(seed)
    names = [n for n, _ in generator.named_buffers() if n.endswith("noise_const")]
    buffers = dict(generator.named_buffers())
    noise = {n: torch.randn(buffers[n].shape, generator=rng).double() for n in names}
    for value in noise.values():
        value.requires_grad_()
    w = torch.tensor(w_avg, requires_grad=True)
    optimizer = torch.optim.Adam([w, *noise.values()], betas=(0.9, 0.999), lr=0.1)
    weights = expand(REFERENCE_WEIGHTS).double()[:, None, None]
    target_look = perceptual.embed(look)
    target_maps = landmarker((pose + 1) / 2)[-1].detach()
    totals = []
    for step in range(steps):
        t = step / steps
        noise_scale = w_std * 0.05 * max(0.0, 1.0 - t / 0.75) ** 2
        ramp = min(1.0, (1.0 - t) / 0.25)
        ramp = 0.5 - 0.5 * np.cos(ramp * np.pi)
        ramp = ramp * min(1.0, t / 0.05)
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * ramp
        draw = torch.randn(1, w.shape[2], generator=rng)[None].double()
        ws = (w + draw * noise_scale).repeat([1, generator.num_ws, 1])
        image = generator.synthesis(ws, noise=noise)
        loss = perceptual.distance(perceptual.embed(image), target_look).sum()
        maps = landmarker((image + 1) / 2)[-1]
        loss = loss + 0.1 * torch.sqrt(torch.sum((weights * (maps - target_maps)) ** 2))
        regulariser = 0.0
        for value in noise.values():
            level = value[None, None]
            while True:
                regulariser += (level * torch.roll(level, shifts=1, dims=3)).mean() ** 2
                regulariser += (level * torch.roll(level, shifts=1, dims=2)).mean() ** 2
                if level.shape[2] <= 8:
                    break
                level = F.avg_pool2d(level, kernel_size=2)
        loss = loss + regulariser * 1e5
        totals.append(float(loss.detach()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for value in noise.values():
                value -= value.mean()
                value *= value.square().mean().rsqrt()
    return w.detach(), totals


def test_l1_equals_the_published_algorithm(
    nets: dict[str, Any], look: Tensor, pose: Tensor
) -> None:
    """L1: latents and totals of 40 steps, in float64."""
    for name, net in nets.items():
        nets[name] = net.double()
    look, pose = look.double(), pose.double()
    w, totals = published(
        nets["network"], nets["perceptual"], nets["landmarker"], look.float().double()[None],
        pose.float().double()[None], 40,
    )  # fmt: skip
    result = pyfacelat.project(
        look.float(), pose.float(), **nets, preset="reference", space="w", steps=40, dtype="float64"
    )
    # The loss record is kept in float32.
    torch.testing.assert_close(result.losses["total"][:, 0].double(), torch.tensor(totals).double(),
                               rtol=1e-6, atol=0)  # fmt: skip
    torch.testing.assert_close(result.ws[:, :1].double(), w, rtol=0, atol=1e-6)


def test_l1_preset_settings() -> None:
    """L1, L4: the published defaults."""
    config = make_config("reference", space="w")
    (stage,) = config.stages
    assert dict(stage.weights) == {"perceptual": 1.0, "landmark": 0.1, "noise": 1e5}
    assert (stage.steps, stage.learning_rate, stage.optimise_noise) == (1000, 0.1, True)
    assert (config.w_samples, config.w_seed, config.seed) == (10_000, 123, 303)
    assert (config.reduction, config.target_maps, config.perceptual_size) == ("l2", "image", 256)


def test_s5_learning_rate_table() -> None:
    """S5, five points of 1000 steps, worked out by hand."""
    rates = [0.1 * learning_rate_ramp(i / 1000) for i in (0, 25, 50, 750, 875)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.1, 0.05], abs=1e-12)
    assert all(0.1 * learning_rate_ramp(i / 1000) == pytest.approx(0.1) for i in range(50, 751))
    assert learning_rate_ramp(0.9) == pytest.approx(0.5 - 0.5 * math.cos(0.4 * math.pi))


def test_s5_latent_noise_table() -> None:
    """S5: the square of a line that reaches zero at three quarters."""
    assert latent_noise_ramp(0.0) == 1.0
    assert latent_noise_ramp(0.375) == pytest.approx(0.25)
    assert all(latent_noise_ramp(i / 100) == 0.0 for i in range(75, 101))


def test_s5_first_step_moves_nothing(nets: dict[str, Any], look: Tensor) -> None:
    """S5: the rate starts at zero."""
    result = pyfacelat.project(
        look, **nets, preset="reference", space="w", steps=1, loss_weights={"noise": 0.0}
    )
    mean = measure(nets["network"]).mean
    torch.testing.assert_close(result.ws[0, 0], mean, rtol=0, atol=1e-6)


class TestStatistics:
    """S4."""

    def test_s4_repeatable_and_true(self, generator: Generator) -> None:
        first, again = measure(generator, samples=3000), measure(generator, samples=3000)
        assert torch.equal(first.mean, again.mean) and first.std == again.std
        exact = generator.double()
        z = torch.from_numpy(np.random.RandomState(123).randn(3000, 16))
        w = exact.mapping(z, None)[:, 0]
        torch.testing.assert_close(first.mean.double(), w.mean(0), rtol=0, atol=1e-5)
        std = float(((w - w.mean(0)) ** 2).sum().div(3000).sqrt())
        assert first.std == pytest.approx(std, rel=1e-5)

    def test_other_seed_differs(self, generator: Generator) -> None:
        one, two = measure(generator, samples=500), measure(generator, samples=500, seed=42)
        assert not torch.equal(one.mean, two.mean)

    def test_whitened_samples_are_standard(self, generator: Generator) -> None:
        statistics = measure(generator, samples=4000)
        space = LatentSpace(statistics, "w+", "whitened", generator.num_ws)
        z = torch.from_numpy(np.random.RandomState(123).randn(4000, 16)).float()
        v = space.from_ws(generator.mapping(z, None))[:, 0].double()
        kept = statistics.scale > 2e-3 * statistics.scale.max()
        covariance = (v.T @ v / 4000)[kept][:, kept]
        torch.testing.assert_close(
            covariance, torch.eye(int(kept.sum())).double(), rtol=0, atol=1e-2
        )


@pytest.mark.parametrize("space", ["w", "w+"])
@pytest.mark.parametrize("coordinates", ["raw", "whitened"])
def test_coordinates_round_trip(generator: Generator, space: str, coordinates: str) -> None:
    latent_space = LatentSpace(measure(generator, samples=500), space, coordinates, 8)
    theta = torch.randn(2, latent_space.rows, 16, generator=torch.Generator().manual_seed(0))
    ws = latent_space.to_ws(theta)
    assert ws.shape == (2, 8, 16)
    torch.testing.assert_close(latent_space.to_ws(latent_space.from_ws(ws)), ws, rtol=0, atol=1e-4)


def test_draws_do_not_depend_on_the_batch() -> None:
    generator = make_generator()
    config = make_config("reference", steps=3)
    one, many = (_draw(generator, config, torch.zeros(n, 8, 16)) for n in (1, 5))
    assert all(torch.equal(one[0][k], many[0][k]) for k in one[0])
    assert torch.equal(one[1][0], many[1][0])
