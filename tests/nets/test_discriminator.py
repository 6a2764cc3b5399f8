"""The discriminator against a plain float64 re-derivation."""

import dataclasses
import json

import pytest
import torch

from pyfacelat.nets.discriminator import Discriminator, DiscriminatorConfig, minibatch_deviation
from pyfacelat.nets.layers import load_strict

from . import plain_stylegan2 as plain

SMALL = dict(img_resolution=16, channel_base=256, channel_max=24)

VARIANTS = {
    "resnet": {},
    "skip": {"architecture": "skip"},
    "orig": {"architecture": "orig", "mbstd_num_channels": 0},
    "conditional": {"c_dim": 5, "embed_features": 6, "num_mapping_layers": 2, "cmap_dim": 10},
    "clamped": {"conv_clamp": 0.8, "mbstd_group_size": None},
    "clamped-skip": {"conv_clamp": 0.8, "architecture": "skip", "mbstd_num_channels": 2},
    "filter": {"resample_filter": (1, 2, 4, 3, 1, 1), "mbstd_group_size": 2},
}


def make(**overrides):
    torch.manual_seed(0)
    discriminator = Discriminator(DiscriminatorConfig(**{**SMALL, **overrides})).eval()
    with torch.no_grad():
        for value in discriminator.parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.3)
    return discriminator.requires_grad_(False)


@pytest.mark.parametrize("variant", VARIANTS)
def test_equals_the_plain_formulas(variant):
    discriminator = make(**VARIANTS[variant])
    config = discriminator.config
    images = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    c = torch.eye(5, dtype=torch.float64)[:4] if config.c_dim else None
    state = {k: v.double() for k, v in discriminator.state_dict().items()}

    leaf = images.clone().requires_grad_()
    truth = plain.discriminate(config, state, leaf, c)
    (wanted,) = torch.autograd.grad(truth.sum(), leaf)

    leaf = images.float().requires_grad_()
    logits = discriminator(leaf, None if c is None else c.float())
    (got,) = torch.autograd.grad(logits.sum(), leaf)
    assert logits.shape == (4, 1)
    assert (logits - truth).abs().max() < 1e-5 * truth.abs().max().clamp(min=1)
    assert (got - wanted).norm() < 1e-5 * wanted.norm()
    double = make(**VARIANTS[variant]).double()
    assert (double(images, c) - truth).abs().max() < 1e-10


def test_published_size_and_names():
    with torch.device("meta"):
        discriminator = Discriminator(DiscriminatorConfig())
    assert sum(p.numel() for p in discriminator.parameters()) == 29_012_513
    names = set(make(img_resolution=8).state_dict())
    convs = ("b8.fromrgb", "b8.conv0", "b8.conv1", "b8.skip", "b4.conv")
    expected = {f"{conv}.{part}" for conv in convs for part in ("weight", "resample_filter")}
    expected |= {f"{layer}.bias" for layer in convs if layer != "b8.skip"}
    expected |= {f"b4.{layer}.{part}" for layer in ("fc", "out") for part in ("weight", "bias")}
    assert names == expected | {"b8.resample_filter"}


def test_minibatch_deviation_by_hand():
    # Items 0, 2 and 1, 3 form groups of two: deviations |a - b| / 2 = 1 and 3.
    x = torch.tensor([1.0, 10.0, 3.0, 16.0])[:, None, None, None].expand(4, 2, 3, 3)
    y = minibatch_deviation(x, 2, 1)
    assert y.shape == (4, 1, 3, 3)
    assert torch.allclose(y[:, 0, 0, 0], torch.tensor([1.0, 3.0, 1.0, 3.0]), atol=1e-6)
    assert minibatch_deviation(x[:1], 4, 2).max() == pytest.approx(1e-4)  # alone: sqrt(eps)
    assert minibatch_deviation(x[:0], 4, 1).shape == (0, 1, 3, 3)


def test_wrong_input_is_refused():
    discriminator = make(c_dim=5)
    with pytest.raises(ValueError, match=r"img: expected shape \[N, 3, 16, 16\]"):
        discriminator(torch.zeros(4, 3, 16, 8), torch.zeros(4, 5))
    with pytest.raises(ValueError, match="multiple of 4, got 6"):
        discriminator(torch.zeros(6, 3, 16, 16), torch.zeros(6, 5))
    with pytest.raises(ValueError, match="c: this network needs it"):
        discriminator(torch.zeros(4, 3, 16, 16))
    with pytest.raises(ValueError, match="unexpected tensors"):
        load_strict(make(), discriminator.state_dict())


@pytest.mark.parametrize(
    ("field", "value"),
    [("img_resolution", 4), ("mbstd_group_size", 0), ("mbstd_num_channels", 5), ("cmap_dim", 0)],
)
def test_wrong_configs_are_refused(field, value):
    with pytest.raises(ValueError, match=field):
        DiscriminatorConfig(**{**SMALL, field: value})


def test_config_round_trips_through_json():
    config = DiscriminatorConfig(**SMALL, c_dim=2, channels={4: 8, 8: 16, 16: 12})
    assert DiscriminatorConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
