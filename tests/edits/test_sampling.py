"""Scored samples, in parts that outlive an interruption (P11)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pyfacelat.edits.sampling import SampleConfig, sample
from pyfacelat.errors import CheckpointError, ConfigError
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    config = GeneratorConfig(
        z_dim=12, w_dim=8, img_resolution=16, num_mapping_layers=2, channel_base=128, channel_max=8
    )
    net = Generator(config).freeze()
    net.mapping.w_avg.normal_()
    return net


def brightness(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
    return {"light": images.mean((1, 2, 3)), "first": images[:, 0, 0, 0]}


def test_p11_norm_truncation_and_noise(generator: Generator) -> None:
    drawn = sample(generator, 70, brightness)
    torch.testing.assert_close(drawn.z.norm(dim=1), torch.full((70,), math.sqrt(12)))
    raw = generator.mapping(drawn.z)  # [n,L,D]
    torch.testing.assert_close(drawn.w, raw[:, 0])
    cutoff = 3  # 8 of 18 rows, of 6
    average = generator.mapping.w_avg
    torch.testing.assert_close(drawn.ws[:, :cutoff], average.lerp(raw[:, :cutoff], 0.7))
    torch.testing.assert_close(drawn.ws[:, cutoff:], raw[:, cutoff:])
    off = sample(generator, 70, config=SampleConfig(truncation=1))
    torch.testing.assert_close(off.ws, raw)
    # Fixed noise: the same latents have the same scores.
    images = generator.synthesis(drawn.ws, noise_mode="const")
    torch.testing.assert_close(drawn.scores["light"], brightness(images)["light"])
    assert len(off) == 70 and off.scores == {}


def test_mixed_rows(generator: Generator) -> None:
    drawn = sample(generator, 64, config=SampleConfig(mixing=1.0, truncation=1))
    assert (drawn.ws[:, 0] == drawn.w).all()
    other = (drawn.ws != drawn.ws[:, :1]).any(2)
    assert other[:, -1].all() and not other[:, 0].any()
    assert (other[:, 1:].int() - other[:, :-1].int() >= 0).all()  # one change, and no return
    assert not sample(generator, 64).ws[:, 0].equal(drawn.ws[:, 0])


def test_resumed_samples_are_the_same(generator: Generator, tmp_path: Path) -> None:
    whole = sample(generator, 130, brightness)
    calls = 0

    def stops(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        nonlocal calls
        calls += 1
        if calls == 12:
            raise KeyboardInterrupt
        return brightness(images)

    with pytest.raises(KeyboardInterrupt):
        sample(generator, 130, stops, outdir=tmp_path)
    assert len(list(tmp_path.glob("part-*.npz"))) == 1
    told: list[tuple[int, int]] = []
    calls = 100
    again = sample(generator, 130, stops, outdir=tmp_path, progress=lambda *done: told.append(done))
    assert told == [(64, 130), (128, 130), (130, 130)]
    assert calls == 100 + 16  # one part was there
    for name in ("z", "w", "ws"):
        assert torch.equal(getattr(again, name), getattr(whole, name))
    assert torch.equal(again.scores["light"], whole.scores["light"])
    fewer = sample(generator, 40, stops, outdir=tmp_path)
    assert torch.equal(fewer.z, whole.z[:40]) and calls == 116


def test_pictures_without_a_score(generator: Generator, tmp_path: Path) -> None:
    def blind(images: torch.Tensor) -> Mapping[str, torch.Tensor]:
        scores = images.mean((1, 2, 3))
        return {"light": torch.where(scores > scores.mean(), scores, float("nan"))}

    first = sample(generator, 64, blind, outdir=tmp_path).scores["light"]
    again = sample(generator, 64, blind, outdir=tmp_path).scores["light"]
    assert 0 < int(torch.isnan(first).sum()) < 64
    torch.testing.assert_close(first, again, rtol=0, atol=0, equal_nan=True)


def test_folders_of_something_else(generator: Generator, tmp_path: Path) -> None:
    sample(generator, 10, brightness, outdir=tmp_path / "a")
    with pytest.raises(CheckpointError, match="another seed"):
        sample(generator, 10, brightness, SampleConfig(seed=1), outdir=tmp_path / "a")
    other = Generator(generator.config).freeze()
    with pytest.raises(CheckpointError, match="another generator"):
        sample(other, 10, brightness, outdir=tmp_path / "a")
    with pytest.raises(CheckpointError, match="others not"):
        sample(generator, 100, outdir=tmp_path / "a")
    part = tmp_path / "a" / "part-00000.npz"
    np.savez(part, z=np.zeros((64, 3), np.float32))
    with pytest.raises(CheckpointError, match="expected z of shape"):
        sample(generator, 10, brightness, outdir=tmp_path / "a")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="outdir"):
        sample(generator, 10, brightness, outdir=tmp_path / "file")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"truncation": 3.0}, "truncation"),
        ({"cutoff": 0}, "cutoff"),
        ({"mixing": 2.0}, "mixing"),
        ({"seed": -1}, "seed"),
    ],
)
def test_settings(settings: dict[str, Any], words: str, generator: Generator) -> None:
    with pytest.raises(ConfigError, match=words):
        SampleConfig(**settings)


def test_wrong_scores(generator: Generator) -> None:
    with pytest.raises(ConfigError, match="score: a: expected"):
        sample(generator, 10, lambda images: {"a": torch.zeros(1)})
    with pytest.raises(ConfigError, match="count"):
        sample(generator, 0)
