"""FAN against the face_alignment package's module with the same random weights."""

import dataclasses
import json

import pytest
import torch
from face_alignment.models.fan import FAN as PublishedFAN
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pyfacelat.nets.fan import FAN, FANConfig, fold_batchnorm
from pyfacelat.nets.layers import load_strict

SAMPLES = {
    "64 px": FANConfig(num_stacks=1, width=64, depth=3, input_size=64, stem="half"),
    "judge": FANConfig(num_stacks=1, width=48, depth=3, input_size=64, stem="half"),
    "128 px": FANConfig(num_stacks=2, width=96, depth=3, input_size=128, stem="fan"),
}


def randomise(module, seed=0):
    """Random weights and running statistics that keep activations near unit scale."""
    torch.manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.3)
            nn.init.normal_(part.running_mean, std=0.3)
            nn.init.uniform_(part.running_var, 0.5, 2.0)
        elif isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
            part.weight.data.mul_(0.5)
    return module.eval().requires_grad_(False)


@pytest.mark.parametrize("stacks", [1, 2, 3, 4])
def test_equals_face_alignment(stacks):
    published = randomise(PublishedFAN(stacks))
    ours = FAN(FANConfig(num_stacks=stacks))
    ours.load_state_dict(published.state_dict(), strict=True)
    ours.eval().requires_grad_(False)
    x = torch.rand(1, 3, 128, 128)
    truth = published(x.clone())
    maps = ours(x)
    folded = fold_batchnorm(ours)(x)
    assert len(maps) == len(folded) == stacks
    for a, b, c in zip(maps, folded, truth, strict=True):
        assert a.shape == (1, 68, 32, 32)
        assert (a - c).abs().max() < 1e-5 * max(1.0, c.abs().max().item())
        assert (b - c).abs().max() < 1e-5 * max(1.0, c.abs().max().item())


def test_gradient_equals_face_alignment():
    # In float64: a ReLU within float32's rounding of zero may decide either way.
    published = randomise(PublishedFAN(2)).double()
    ours = FAN(FANConfig(num_stacks=2)).double()
    load_strict(ours, published.state_dict())
    ours.eval().requires_grad_(False)
    grads = []
    for net in (published, ours, fold_batchnorm(ours)):
        x = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)).double()
        x.requires_grad_()
        (net(x)[-1] * torch.linspace(-1, 1, 16)).sum().backward()
        grads.append(x.grad)
    for grad in grads[1:]:
        assert (grad - grads[0]).norm() < 1e-8 * grads[0].norm()


def test_published_size():
    with torch.device("meta"):
        state = FAN(FANConfig()).state_dict()
    assert len(state) == 1129
    assert sum(t.numel() for t in state.values()) == 23_874_504


@pytest.mark.parametrize("name", SAMPLES)
def test_sample_sizes_train_and_fold(name):
    config = SAMPLES[name]
    fan = FAN(config)
    size = config.input_size
    assert config.map_size == 32
    # Two steps lower the loss: gradients reach the first layer.
    x, target = torch.rand(4, 3, size, size), torch.rand(4, 68, 32, 32) * 0.1
    optimizer = torch.optim.Adam(fan.parameters(), 2e-3)
    losses = []
    for _ in range(3):
        maps = fan(x)
        assert [tuple(m.shape) for m in maps] == [(4, 68, 32, 32)] * config.num_stacks
        loss = sum((m - target).square().mean() for m in maps)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in fan.conv1.parameters())

    randomise(fan)
    before = {k: v.clone() for k, v in fan.state_dict().items()}
    folded = fold_batchnorm(fan)
    batch = fan(x)
    for i, (a, b) in enumerate(zip(folded(x), batch, strict=True)):
        assert torch.allclose(a, b, atol=1e-5 * b.abs().max().item()), i
    alone = fan(x[1:2])
    assert torch.allclose(alone[-1], batch[-1][1:2], atol=1e-5 * batch[-1].abs().max().item())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    assert all(torch.equal(v, before[k]) for k, v in fan.state_dict().items())
    double = folded.double()(x.double())[-1]
    assert torch.allclose(double.float(), batch[-1], atol=1e-5 * batch[-1].abs().max().item())


def test_small_fan_is_cheap():
    fan = FAN(SAMPLES["64 px"])
    assert 300_000 < sum(p.numel() for p in fan.parameters()) < 350_000
    with FlopCounterMode(display=False) as counter:
        fan(torch.rand(1, 3, 64, 64))
    assert counter.get_total_flops() < 260e6


def test_wrong_input_and_config_are_refused():
    fan = FAN(SAMPLES["64 px"])
    for shape in ((1, 3, 60, 64), (1, 1, 64, 64), (3, 64, 64)):
        with pytest.raises(ValueError, match="multiples of 16"):
            fan(torch.zeros(shape))
    wrong = {
        "num_stacks": 0,
        "width": 20,
        "depth": 9,
        "num_landmarks": 0,
        "input_size": 100,
        "stem": "quarter",
    }
    for field, value in wrong.items():
        with pytest.raises(ValueError, match=field):
            FANConfig(**{field: value})
    with pytest.raises(ValueError, match="unexpected"):
        load_strict(fan, FAN(FANConfig(num_stacks=2, width=64, depth=3)).state_dict())
    config = SAMPLES["128 px"]
    assert FANConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
