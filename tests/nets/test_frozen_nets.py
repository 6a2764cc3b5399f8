"""The loss networks as programs, against the networks under autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.frozen_nets import frozen
from pyfacelat.nets.sample_encoder import FeatureTrunk, SampleEncoder, SampleEncoderConfig
from pyfacelat.nets.tape import Frozen, Node, Tape
from pyfacelat.nets.vgg import VGG16Features
from tests.tolerances import cosine, l2_error


def shaken(net: nn.Module) -> nn.Module:
    """In evaluation mode, statistics and signs of the normalisations away from their start."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.running_mean.normal_(0, 0.2)
            module.running_var.uniform_(0.5, 2)
            with torch.no_grad():
                module.weight.normal_(0.5, 0.6)
                module.bias.normal_(0, 0.2)
    return net.eval().requires_grad_(False)


def make_fan(stem: str = "fan", stacks: int = 2) -> nn.Module:
    return FAN(FANConfig(num_stacks=stacks, width=16, depth=2, input_size=32, stem=stem))


def make_trunk(stride: int = 1, window_width: int = 5) -> nn.Module:
    config = SampleEncoderConfig(
        z_dim=4, input_size=32, widths=(4, 6, 8, 8, 8), hidden=12, stride=stride,
        window_width=window_width,
    )  # fmt: skip
    return FeatureTrunk(SampleEncoder(config))


NETS = {
    "fan": make_fan,
    "fan, half": lambda: make_fan("half", 1),
    "trunk": make_trunk,
    "trunk, strided": lambda: make_trunk(2, 0),
}


def results(net: nn.Module, x: Tensor, last: bool) -> list[Tensor]:
    """The maps and the gradient of their weighted sum."""
    x = x.clone().requires_grad_()
    maps = net(x)[-1:] if last else net(x)
    total = sum(
        (m * torch.linspace(-1, 1, m.numel(), dtype=m.dtype).view_as(m)).sum() for m in maps
    )
    return [*(m.detach() for m in maps), *torch.autograd.grad(total, x)]


@pytest.mark.parametrize("name", NETS)
def test_equals_the_network_under_autograd(name: str) -> None:
    torch.manual_seed(3)
    net = shaken(NETS[name]())
    x = torch.randn(2, 3, 32, 32)
    last = name.startswith("fan")
    with torch.no_grad():
        without = frozen(net)(x)
    single, found = results(net, x, last), results(frozen(net), x, last)
    assert all(torch.equal(a, b) for a, b in zip(without, found, strict=False))
    truth = results(net.double(), x.double(), last)
    exact = results(frozen(net), x.double(), last)
    for a, b, c, d in zip(exact, truth, found, single, strict=True):
        assert a.shape == b.shape
        assert l2_error(a, b) < 1e-9
        # A ReLU within rounding of zero may decide either way.
        assert l2_error(c, b) < 3 * l2_error(d, b) + 2e-5
        assert cosine(c, b) > 1 - 1e-5


def test_vgg_equals_the_network_under_autograd() -> None:
    torch.manual_seed(4)
    net = VGG16Features().double().requires_grad_(False)
    x = torch.randn(1, 3, 24, 24, dtype=torch.float64)
    pairs = zip(results(frozen(net), x, False), results(net, x, False), strict=True)
    assert all(l2_error(a, b) < 1e-9 for a, b in pairs)


def test_follows_its_device_and_dtype_and_answers_for_the_network() -> None:
    net = shaken(make_fan())
    fast = frozen(net)
    assert isinstance(fast, Frozen) and fast.config is net.config
    x = torch.rand(1, 3, 32, 32)
    before = fast(x)[-1]
    assert fast.double()(x.double())[-1].dtype == torch.float64
    torch.testing.assert_close(fast.float()(x)[-1], before)
    with pytest.raises(AttributeError):
        _ = fast.nothing_of_that_name


def test_a_map_that_nothing_reads_costs_nothing_and_twice_is_refused() -> None:
    net = frozen(shaken(make_trunk()))
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    maps = net(x)
    maps[0].sum().backward(retain_graph=True)
    with pytest.raises(RuntimeError, match="once"):
        maps[0].sum().backward()


def test_other_networks_stay_as_they_are() -> None:
    net = nn.Conv2d(3, 3, 1)
    assert frozen(net) is net


def test_gradients_of_several_uses_add_up() -> None:
    """Shared tensors are not added to in place."""
    tape, x = Tape(), Node(torch.ones(1, 2, 4, 4))
    both = tape.add(tape.add(x, x), tape.enlarge(tape.mean_pool(x)))
    top = tape.cat([both, x])
    gradient = torch.ones(1, 4, 4, 4)
    tape.backward([top, top], [gradient, gradient])
    assert torch.equal(gradient, torch.ones(1, 4, 4, 4))
    assert x.grad is not None and torch.equal(x.grad, torch.full((1, 2, 4, 4), 8.0))


def test_bfloat16_is_for_derivatives_alone() -> None:
    torch.manual_seed(5)
    net = shaken(make_trunk())
    fast, x = frozen(net, torch.bfloat16), torch.randn(2, 3, 32, 32)
    assert all(torch.equal(a, b) for a, b in zip(fast(x), frozen(net)(x), strict=True))
    for a, b in zip(results(fast, x, False), results(net, x, False), strict=True):
        assert a.dtype == torch.float32
        assert 1e-4 < l2_error(a, b) < 0.2 and cosine(a, b) > 0.98
