"""VGG-16 and VGG-19 against torchvision's modules with the same random weights."""

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import ResNet50_Weights, VGG16_Weights, VGG19_Weights
from torchvision.models.vgg import cfgs, make_layers

from pyfacelat import zoo
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.layers import load_strict
from pyfacelat.nets.vgg import VGG16Features, VGG19Features

NETS: dict[str, Any] = {
    "vgg16": (VGG16Features, "D", (3, 8, 15, 22, 29)),
    "vgg19": (VGG19Features, "E", (3, 8, 17, 26, 35)),
}


@pytest.fixture(scope="module", params=NETS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def published(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    return make_layers(cfgs[NETS[name][1]]).eval().requires_grad_(False)


@pytest.fixture(scope="module")
def ours(name: str, published: nn.Sequential) -> Any:
    vgg = NETS[name][0]()
    load_strict(vgg, {f"features.{k}": v for k, v in published.state_dict().items()})
    return vgg.eval().requires_grad_(False)


def test_taps_equal_torchvision(name: str, published: nn.Sequential, ours: Any) -> None:
    x = torch.randn(2, 3, 40, 32)
    taps = ours(x)
    assert [t.shape[1] for t in taps] == list(ours.channels) == [64, 128, 256, 512, 512]
    for number, tap in zip(NETS[name][2], taps, strict=True):
        truth = published[: number + 1](x)
        assert tap.shape == truth.shape
        assert torch.allclose(tap, truth, atol=1e-6 * truth.abs().max().item())


def test_single_layers(published: nn.Sequential, ours: Any) -> None:
    x = torch.randn(1, 3, 16, 16, requires_grad=True)
    numbers = [0, 1, 4, 5, 11]
    for number, map_ in zip(numbers, ours.activations(x, numbers), strict=True):
        truth = x
        for layer in published[: number + 1]:
            # torchvision's ReLU works in place; the output of a convolution is the one before it.
            truth = torch.relu(truth) if isinstance(layer, nn.ReLU) else layer(truth)
        assert torch.allclose(map_, truth, atol=1e-6)
        (grad,) = torch.autograd.grad(map_.sum(), x, retain_graph=True)
        assert torch.isfinite(grad).all()
    for wrong in ([], [3, 1], [3, 3], [-1], [99], ["relu6_1"], ["relu1_1", 1]):
        with pytest.raises(ValueError, match="layers: expected ascending"):
            ours.activations(x, wrong)


def test_names_of_layers(published: nn.Sequential, ours: Any) -> None:
    kinds = {"conv": nn.Conv2d, "relu": nn.ReLU, "pool": nn.MaxPool2d}
    for layer, number in ours.numbers.items():
        assert isinstance(published[number], kinds[layer[:4]])
    x = torch.randn(1, 3, 16, 16)
    named = ours.activations(x, ["conv1_2", "pool1", "relu2_1"])
    for a, b in zip(named, ours.activations(x, [2, 4, 6]), strict=True):
        assert torch.equal(a, b)


def test_files(name: str, published: nn.Sequential, tmp_path: Path) -> None:
    state = OrderedDict((f"features.{k}", v) for k, v in published.state_dict().items())
    # The classifier is not read; in one file of torchvision it is not a number.
    state["classifier.6.weight"] = torch.full((2, 2), float("nan"))
    path = tmp_path / "vgg.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    net = zoo.load_features(path)
    assert type(net) is NETS[name][0] and not net.training
    assert all(torch.equal(v, state[k]) for k, v in net.state_dict().items())
    if name == "vgg19":
        del state["features.30.bias"]
        torch.save(state, path)
        with pytest.raises(CheckpointError, match=r"features\.30\.bias: is missing"):
            zoo.load_features(path)


def test_networks_that_look_alike(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    normed = {f"features.{k}": v for k, v in make_layers(cfgs["A"], True)[:2].state_dict().items()}
    torch.save(normed, path)
    with pytest.raises(CheckpointError, match="VGG with batch normalisation"):
        zoo.load_features(path)
    torch.save({"features.0.weight": torch.zeros(64, 3, 11, 11)}, path)
    with pytest.raises(CheckpointError, match="AlexNet"):
        zoo.load_features(path)


def test_file_names_are_torchvisions() -> None:
    rows = {row.name: row for row in zoo.known_weights()}
    for known, weights in (
        ("vgg16", VGG16_Weights.IMAGENET1K_V1),
        ("vgg19", VGG19_Weights.IMAGENET1K_V1),
        ("resnet50", ResNet50_Weights.IMAGENET1K_V1),
    ):
        row = rows[known]
        assert weights.url.endswith(f"/{row.file}") and f"-{row.sha256}." in row.file
        assert abs(row.size / 1e6 - weights.meta["_file_size"] * 1.048576) < 1
