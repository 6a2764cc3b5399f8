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


@pytest.mark.parametrize(("size", "stride", "windows"), [(64, 1, 0), (128, 1, 4), (128, 2, 8)])
def test_outputs(size, stride, windows):
    torch.manual_seed(0)
    config = SampleEncoderConfig(z_dim=28, input_size=size, stride=stride, window_width=windows)
    encoder = SampleEncoder(config).eval()
    x = images(size=size)
    maps = encoder.features(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, size // stride >> k, size // stride >> k) for k, c in enumerate((16, 32, 64, 96, 96))
    ]
    squashed, points = encoder(x)
    assert squashed.shape == (3, 28) and squashed.abs().max() < 1
    assert points.shape == (3, 68, 2)
    assert torch.allclose(torch.tanh(0.75 * encoder.latent(x)), squashed, atol=1e-6)
    alone, alone_points = encoder(x[1:2])
    assert torch.allclose(alone, squashed[1:2], atol=1e-5)
    assert torch.allclose(alone_points, points[1:2], atol=1e-5)


@pytest.mark.parametrize("more", [{"num_landmarks": 0}, {"window_width": 4, "stride": 2}])
def test_folded_copy_is_equal(more):
    torch.manual_seed(0)
    encoder = SampleEncoder(SampleEncoderConfig(z_dim=8, **more))
    for _ in range(3):  # moves the running statistics
        assert (encoder(images(8) * 3 + 1)[1] is None) == ("num_landmarks" in more)
    encoder.eval()
    folded = encoder.folded()
    for a, b in zip(folded.features(images()), encoder.features(images()), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert torch.allclose(folded.latent(images()), encoder.latent(images()), atol=1e-4)
    assert len(folded.state_dict()) < len(encoder.state_dict())


def test_windows_look_where_the_landmarks_are():
    torch.manual_seed(0)
    config = SampleEncoderConfig(z_dim=6, input_size=128, stride=2, window_width=4)
    encoder = SampleEncoder(config).eval()
    points = torch.full((1, 68, 2), 0.5)
    points[:, [*range(17, 22), *range(36, 42)]] = torch.tensor([0.25, 0.3])
    with torch.no_grad():
        encoder.landmark_head.weight.zero_()
        encoder.landmark_head.bias.copy_((points - 0.5).flatten())
    x = images(1, 128)
    maps = encoder.features(x)
    seen = encoder.windows(maps[0], maps[1], points)
    away, eye = x.clone(), x.clone()
    away[..., 100:, :40] *= -1
    eye[..., 36:40, 30:34] *= -1
    assert torch.equal(encoder.estimate(x)[1], encoder.estimate(eye)[1])
    for changed, is_seen in ((away, False), (eye, True)):
        maps = encoder.features(changed)
        assert torch.equal(encoder.windows(maps[0], maps[1], points), seen) != is_seen


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
        "stride": 3,
        "window_width": -1,
    }.items():
        with pytest.raises(ValueError, match=field):
            SampleEncoderConfig(**{"z_dim": 4, field: value})
    with pytest.raises(ValueError, match="at least 16 times the stride 2, got 16"):
        SampleEncoderConfig(z_dim=4, input_size=16, stride=2)
    with pytest.raises(ValueError, match="windows need num_landmarks 68, got 5"):
        SampleEncoderConfig(z_dim=4, num_landmarks=5, window_width=8)
    with pytest.raises(ValueError, match="missing"):
        load_strict(SampleEncoder(SampleEncoderConfig(z_dim=4)), {})
