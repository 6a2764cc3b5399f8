"""The sample encoder: shapes, its three uses, folding, learning."""

import dataclasses
import json

import pytest
import torch

from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.sample_encoder import FeatureTrunk, SampleEncoder, SampleEncoderConfig


def images(n=3, size=64, seed=0):
    return torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("size", [64, 128])
def test_outputs(size):
    torch.manual_seed(0)
    encoder = SampleEncoder(SampleEncoderConfig(z_dim=28, input_size=size)).eval()
    x = images(size=size)
    maps = encoder.features(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, size >> k, size >> k) for k, c in enumerate((16, 32, 64, 96, 96))
    ]
    squashed, points = encoder(x)
    assert squashed.shape == (3, 28) and squashed.abs().max() < 1
    assert points.shape == (3, 68, 2)
    assert torch.allclose(torch.tanh(0.75 * encoder.latent(x)), squashed, atol=1e-6)
    alone, alone_points = encoder(x[1:2])
    assert torch.allclose(alone, squashed[1:2], atol=1e-5)
    assert torch.allclose(alone_points, points[1:2], atol=1e-5)


def test_folded_copy_is_equal():
    torch.manual_seed(0)
    encoder = SampleEncoder(SampleEncoderConfig(z_dim=8, num_landmarks=0))
    for _ in range(3):
        assert encoder(images(8) * 3 + 1)[1] is None  # moves the running statistics
    encoder.eval()
    folded = encoder.folded()
    for a, b in zip(folded.features(images()), encoder.features(images()), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(folded.latent(images()), encoder.latent(images()), atol=1e-5)
    assert len(folded.state_dict()) < len(encoder.state_dict())


def test_it_is_the_trunk_of_a_perceptual_metric():
    torch.manual_seed(0)
    encoder = SampleEncoder(SampleEncoderConfig(z_dim=8)).eval()
    metric = LPIPS(FeatureTrunk(encoder), [torch.full((c,), 1 / 5) for c in encoder.config.widths])
    x = images().requires_grad_()
    distance = metric(x, images(seed=1))
    assert distance.shape == (3,) and (distance > 0).all()
    assert metric(images(), images()).abs().max() == 0
    distance.sum().backward()
    assert torch.isfinite(x.grad).all() and x.grad.abs().max() > 0


def test_it_learns():
    torch.manual_seed(0)
    encoder = SampleEncoder(SampleEncoderConfig(z_dim=4, hidden=32)).train()
    x, z, points = images(8), torch.randn(8, 4), torch.rand(8, 68, 2)
    optimizer = torch.optim.Adam(encoder.parameters(), 3e-3)
    losses = []
    for _ in range(6):
        tz, estimate = encoder(x)
        loss = (tz - torch.tanh(0.75 * z)).square().mean() + (estimate - points).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_config():
    config = SampleEncoderConfig(z_dim=28, widths=(8, 8, 8, 8, 8))
    assert SampleEncoderConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for field, value in {
        "z_dim": 0,
        "input_size": 8,
        "widths": (16, 32),
        "hidden": 0,
        "num_landmarks": -1,
    }.items():
        with pytest.raises(ValueError, match=field):
            SampleEncoderConfig(**{"z_dim": 4, field: value})
    with pytest.raises(ValueError, match="missing"):
        load_strict(SampleEncoder(SampleEncoderConfig(z_dim=4)), {})
