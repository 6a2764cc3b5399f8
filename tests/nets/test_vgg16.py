"""VGG-16 against torchvision's module with the same random weights."""

import pytest
import torch
import torchvision

from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.vgg16 import VGG16Features


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(0)
    return torchvision.models.vgg16(weights=None).features.eval()


@pytest.fixture(scope="module")
def ours(published):
    vgg = VGG16Features()
    load_strict(vgg, {f"features.{k}": v for k, v in published.state_dict().items()})
    return vgg.eval().requires_grad_(False)


def test_taps_equal_torchvision(published, ours):
    x = torch.randn(2, 3, 40, 32)
    taps = ours(x)
    assert [t.shape[1] for t in taps] == list(ours.channels) == [64, 128, 256, 512, 512]
    for number, tap in zip((3, 8, 15, 22, 29), taps, strict=True):
        truth = published[: number + 1](x)
        assert tap.shape == truth.shape
        assert torch.allclose(tap, truth, atol=1e-6 * truth.abs().max().item())


def test_single_layers(published, ours):
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    numbers = [0, 1, 4, 5, 11]
    for number, map_ in zip(numbers, ours.activations(x, numbers), strict=True):
        truth = x
        for layer in published[: number + 1]:
            # torchvision's ReLU works in place; the output of a convolution is the one before it.
            truth = torch.relu(truth) if isinstance(layer, torch.nn.ReLU) else layer(truth)
        assert torch.allclose(map_, truth, atol=1e-6)
        (grad,) = torch.autograd.grad(map_.sum(), x, retain_graph=True)
        assert torch.isfinite(grad).all()
    for wrong in ([], [3, 1], [3, 3], [-1], [30]):
        with pytest.raises(ValueError, match="layers: expected ascending"):
            ours.activations(x, wrong)
