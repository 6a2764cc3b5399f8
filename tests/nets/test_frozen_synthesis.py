"""The synthesis with its derivative written out, against the network under autograd."""

import pytest
import torch

from pyfacelat.nets.frozen_synthesis import FrozenSynthesis, can_freeze, frozen_render
from pyfacelat.ops import _extension
from tests.tolerances import cosine, l2_error

from .test_stylegan2 import make, random_noise

VARIANTS = {
    "skip": {},
    "clamped": {"conv_clamp": 0.6, "num_fp16_res": 4},
    "no-noise": {"use_noise": False, "img_channels": 4},
    "channels": {"channels": {4: 8, 8: 16, 16: 12, 32: 6}, "img_channels": 1},
    "filter": {"resample_filter": (1, 2, 4, 3, 1, 1)},
    "relu": {"activation": "relu"},
    "smallest": {"img_resolution": 4},
}


def results(render, ws, noise, dy):
    """The image and its gradients for ws and the maps."""
    leaves = [ws.clone().requires_grad_(), *(m.clone().requires_grad_() for m in noise.values())]
    image = render(leaves[0], dict(zip(noise, leaves[1:], strict=True)) or None)
    return [image.detach(), *torch.autograd.grad(image, leaves, dy.to(image))]


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_equals_the_network_under_autograd(variant, backend):
    generator = make(**VARIANTS[variant])
    ws = torch.randn(2, generator.num_ws, generator.w_dim)
    noise = random_noise(generator, 2)
    size = generator.img_resolution
    dy = torch.randn(2, generator.img_channels, size, size)
    double = make(**VARIANTS[variant]).double()
    arguments = ws.double(), {k: v.double() for k, v in noise.items()}, dy.double()
    truth = results(lambda w, n: double.synthesis(w, noise=n), *arguments)
    single = results(lambda w, n: generator.synthesis(w, noise=n), ws, noise, dy)
    with _extension.use_backend(backend):
        exact = results(FrozenSynthesis(double), *arguments)
        found = results(FrozenSynthesis(generator), ws, noise, dy)
    for a, b, c, d in zip(exact, truth, found, single, strict=True):
        assert l2_error(a, b) < 1e-12
        assert l2_error(c, b) < 2 * l2_error(d, b) + 3e-6
        assert cosine(c, b) > 1 - 1e-6


def test_gradients_by_differences():
    """Along one random direction of ws and of every map at once, centrally."""
    double = make(channels={4: 3, 8: 4, 16: 3}, img_resolution=16, conv_clamp=50.0).double()
    frozen = FrozenSynthesis(double)
    ws = torch.randn(1, double.num_ws, double.w_dim, dtype=torch.float64)
    noise = {k: v.double() for k, v in random_noise(double, 1).items()}
    dy = torch.randn(1, 3, 16, 16).double()
    _, *gradients = results(frozen, ws, noise, dy)
    along = [torch.randn_like(g) for g in gradients]

    def moved(step):
        maps = {k: m + step * d for (k, m), d in zip(noise.items(), along[1:], strict=True)}
        return float((frozen(ws + step * along[0], maps) * dy).sum())

    slope = (moved(1e-6) - moved(-1e-6)) / 2e-6
    expected = float(sum((g * d).sum() for g, d in zip(gradients, along, strict=True)))
    assert slope == pytest.approx(expected, rel=1e-5)


def test_noise_may_be_given_in_part_shared_or_not_at_all():
    generator = make().double()
    frozen = FrozenSynthesis(generator)
    ws = torch.randn(2, generator.num_ws, generator.w_dim).double()
    name = "synthesis.b16.conv1.noise_const"
    shared = torch.randn(16, 16).double()
    dy = torch.randn(2, 3, 32, 32).double()
    for noise in ({}, {name: shared}, {name: shared[None]}):
        truth = results(lambda w, n: generator.synthesis(w, noise=n), ws, noise, dy)
        for a, b in zip(results(frozen, ws, noise, dy), truth, strict=True):
            assert a.shape == b.shape and l2_error(a, b) < 1e-12


def test_bfloat16_features():
    """Latents, noise, image and their gradients stay in float32."""
    generator = make()
    ws = torch.randn(2, generator.num_ws, generator.w_dim)
    noise, dy = random_noise(generator, 2), torch.randn(2, 3, 32, 32)
    found = results(FrozenSynthesis(generator, torch.bfloat16), ws, noise, dy)
    for a, b in zip(found, results(FrozenSynthesis(generator), ws, noise, dy), strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < l2_error(a, b) < 0.1 and cosine(a, b) > 0.99


def test_items_do_not_meet():
    generator = make()
    frozen = FrozenSynthesis(generator)
    ws = torch.randn(3, generator.num_ws, generator.w_dim)
    noise, dy = random_noise(generator, 3), torch.randn(3, 3, 32, 32)
    together = results(frozen, ws, noise, dy)
    alone = results(frozen, ws[1:2], {k: v[1:2] for k, v in noise.items()}, dy[1:2])
    for many, one in zip(together, alone, strict=True):
        assert l2_error(many[1:2], one) < 1e-5


def test_is_differentiated_once_and_only_on_request():
    generator = make()
    frozen = FrozenSynthesis(generator)
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    assert not frozen(ws).requires_grad
    image = frozen(ws.requires_grad_())
    image.sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        image.sum().backward()
    (gradient,) = torch.autograd.grad(frozen(ws).square().sum(), ws, create_graph=True)
    with pytest.raises(RuntimeError):
        gradient.sum().backward()


def test_wrong_shapes_are_refused():
    generator = make()
    with pytest.raises(ValueError, match="ws: expected shape"):
        FrozenSynthesis(generator)(torch.zeros(1, 3, 20))
    with pytest.raises(ValueError, match="no map named"):
        FrozenSynthesis(generator)(torch.zeros(1, 8, 20), {"b4": torch.zeros(4, 4)})


@pytest.mark.parametrize("variant", [{"architecture": "resnet"}, {"activation": "swish"}])
def test_other_networks_run_under_autograd(variant):
    generator = make(**variant)
    assert not can_freeze(generator)
    with pytest.raises(ValueError, match="generator"):
        FrozenSynthesis(generator)
    ws = torch.randn(1, generator.num_ws, generator.w_dim)
    assert torch.equal(frozen_render(generator)(ws, None), generator.synthesis(ws))
