from __future__ import annotations

import dataclasses

import pytest
import torch

from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig
from pyfacelat.training.fast_generator import FastGenerator

CONFIG = GeneratorConfig(
    z_dim=10,
    w_dim=16,
    img_resolution=32,
    num_mapping_layers=3,
    mapping_lr_multiplier=0.5,
    channels={4: 12, 8: 10, 16: 8, 32: 6},
)


def make(config=CONFIG):
    torch.manual_seed(3)
    generator = Generator(config)
    with torch.no_grad():
        for p in generator.parameters():
            if p.ndim == 1:
                p.add_(0.3 * torch.randn_like(p))
    return generator


def test_equals_the_generator():
    generator = make()
    z = torch.randn(5, 10) * 3
    with torch.no_grad():
        wanted = generator.synthesis(generator.mapping(z), noise_mode="const")
        found = FastGenerator(generator)(z)
    assert (found - wanted).abs().max() < 1e-4 * wanted.std()


def test_gradients_equal_the_generators():
    generator = make()
    z, probe = torch.randn(3, 10), torch.randn(3, 3, 32, 32)

    def gradients(images):
        generator.zero_grad()
        (images * probe).sum().backward()
        return {
            k: p.grad.clone()
            for k, p in generator.named_parameters()
            if not k.endswith("noise_strength")
        }

    wanted = gradients(generator.synthesis(generator.mapping(z), noise_mode="none"))
    found = gradients(FastGenerator(generator)(z))
    for name, value in wanted.items():
        assert (found[name] - value).norm() <= 1e-4 * value.norm(), name


def test_lower_resolutions_are_the_skips_of_the_same_net():
    generator = make()
    fast, z = FastGenerator(generator), torch.randn(2, 10)
    with torch.no_grad():
        last = generator.synthesis.b32.torgb
        last.weight.zero_()
        last.bias.zero_()
        whole, below = fast(z), fast(z, 16)
        wanted = generator.synthesis(generator.mapping(z), noise_mode="none")
    assert below.shape == (2, 3, 16, 16)
    torch.testing.assert_close(whole, wanted, rtol=1e-4, atol=1e-4)
    # Away from the border the new block starts as the upsampled image, so the means agree.
    torch.testing.assert_close(
        torch.nn.functional.avg_pool2d(whole, 2)[..., 4:-4, 4:-4].mean((2, 3)),
        below[..., 4:-4, 4:-4].mean((2, 3)),
        rtol=0.1,
        atol=0.1,
    )


@pytest.mark.parametrize(
    "change", [{"architecture": "resnet"}, {"conv_clamp": 256.0}, {"resample_filter": (1, 2, 1)}]
)
def test_features_left_out_are_refused(change):
    with pytest.raises(ValueError, match="generator: "):
        FastGenerator(Generator(dataclasses.replace(CONFIG, **change)))
