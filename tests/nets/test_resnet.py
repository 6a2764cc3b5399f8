"""ResNet and the latent finder against torchvision's modules with the same random weights."""

from __future__ import annotations

import dataclasses
import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from torchvision.models.resnet import ResNet as PublishedResNet

from pyfacelat import checkpoints, zoo
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.image_to_latent import ImageToLatent, ImageToLatentConfig
from pyfacelat.nets.resnet import ResNet, ResNetConfig

from ..tolerances import assert_close

BLOCKS = (1, 2, 1, 1)


@pytest.fixture(scope="module")
def published() -> nn.Module:
    """Torchvision's network with fewer units, and statistics that are not those of a new one."""
    torch.manual_seed(0)
    net = PublishedResNet(Bottleneck, list(BLOCKS), num_classes=3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net.eval().requires_grad_(False)


def stages(net: Any, x: Tensor) -> list[Tensor]:
    x = net.relu(net.bn1(net.conv1(x)))
    out = [x]
    x = net.maxpool(x)
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        x = layer(x)
        out.append(x)
    return out


def test_files_become_networks(published: nn.Module, tmp_path: Path) -> None:
    state = {k: v for k, v in published.state_dict().items() if "num_batches" not in k}
    path = tmp_path / "resnet.pth"
    # As torchvision's files before 0.4: a legacy stream without counters.
    torch.save(OrderedDict(state), path, _use_new_zipfile_serialization=False)
    net = zoo.load_features(path)
    assert isinstance(net, ResNet) and net.config == ResNetConfig(blocks=BLOCKS)
    assert not net.training and not any(p.requires_grad for p in net.parameters())
    x = torch.randn(2, 3, 64, 47, generator=torch.Generator().manual_seed(1))
    same, folded = stages(published, x), net.folded()(x)
    truth = stages(published.double(), x.double())
    published.float()
    found = net(x)
    for k, channels in enumerate(net.channels):
        assert found[k].shape[1] == channels
        assert_close(found[k], same[k], truth[k], f"map {k}")
        assert_close(folded[k], same[k], truth[k], f"folded map {k}")
    (late, early) = net.activations(x, ["layer3", "conv1"])
    assert torch.equal(late, found[3]) and torch.equal(early, found[0])
    for wrong in ([], ["layer1", "layer1"], ["layer5"]):
        with pytest.raises(ValueError, match="layers: expected names out of conv1, layer1"):
            net.activations(x, wrong)
    with pytest.raises(ValueError, match="images: expected shape"):
        net(x[:, :, :31])


def test_published_sizes() -> None:
    """ResNet-50 has 25,557,032 numbers, 2,049,000 of them in the classifier."""
    with torch.device("meta"):
        net, finder = ResNet(ResNetConfig()), ImageToLatent(ImageToLatentConfig())
    assert sum(p.numel() for p in net.parameters()) == 25_557_032 - 2_049_000
    assert net.channels == (64, 256, 512, 1024, 2048)
    assert round(sum(p.numel() for p in finder.parameters()) / 1e5) == 306


def test_other_networks_are_named(published: nn.Module, tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    torch.save(PublishedResNet(BasicBlock, [1, 1, 1, 1]).state_dict(), path)
    with pytest.raises(CheckpointError, match="units with two convolutions"):
        zoo.load_features(path)
    state = published.state_dict()
    torch.save({k: v for k, v in state.items() if k != "layer2.1.bn3.bias"}, path)
    with pytest.raises(CheckpointError, match=r"layer2\.1\.bn3\.bias: is missing"):
        zoo.load_features(path)
    torch.save({**state, "layer1.0.conv1.weight": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="which is not ResNet's"):
        zoo.load_features(path)


@pytest.fixture(scope="module")
def finder(published: nn.Module) -> nn.Sequential:
    """image_to_latent.pt's layers: children of a ResNet but the last two, then linear ones."""
    torch.manual_seed(1)
    parts = OrderedDict(
        resnet=nn.Sequential(*list(published.children())[:-2]),
        conv2d=nn.Conv2d(2048, 5, 1),
        flatten=nn.Flatten(),
        dense1=nn.Linear(5 * 2 * 2, 7),
        dense2=nn.Linear(7, 3 * 512),
    )
    return nn.Sequential(parts).eval().requires_grad_(False)


def test_latent_finder(finder: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / "image_to_latent.pt"
    torch.save(finder.state_dict(), path)
    net = zoo.load_image_to_latent(path)
    assert net.config == ImageToLatentConfig(
        blocks=BLOCKS, input_size=64, reduced=5, hidden=7, num_ws=3
    )
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 2 - 1
    # ImageNet statistics in 0..255, as the command line of that project applies them.
    mean = torch.tensor([0.485, 0.456, 0.406])[:, None, None] * 255
    deviation = torch.tensor([0.229, 0.224, 0.225])[:, None, None] * 255

    def normal(x: Tensor) -> Tensor:
        return ((x + 1) * 127.5 - mean.to(x.dtype)) / deviation.to(x.dtype)

    same = finder(normal(images)).view(-1, 3, 512)
    truth = finder.double()(normal(images.double())).view(-1, 3, 512)
    finder.float()
    assert_close(net(images), same, truth, "latents")
    assert_close(net.folded()(images), same, truth, "latents, folded")
    with pytest.raises(ValueError, match=r"images: expected shape \[N, 3, 64, 64\]"):
        net(images[..., :32])

    checkpoints.convert(path, tmp_path / "x.safetensors")
    again = zoo.load_image_to_latent(tmp_path / "x.safetensors")
    assert torch.equal(again(images), net(images))


def test_latent_finders_that_do_not_fit(finder: nn.Sequential, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for changes, match in (
        ({"dense1.weight": torch.zeros(7, 21)}, "no square map of"),
        ({"dense2.weight": torch.zeros(700, 7)}, "expected rows of 512"),
        ({"dense2.bias": torch.zeros(5)}, r"dense2\.bias: has shape \[5\]"),
        ({"resnet.8.weight": torch.zeros(5)}, "does not imply"),
    ):
        torch.save({**finder.state_dict(), **changes}, path)
        with pytest.raises(CheckpointError, match=match):
            zoo.load_image_to_latent(path)


def test_configs_are_checked() -> None:
    config = ImageToLatentConfig(blocks=BLOCKS, num_ws=4)
    assert ImageToLatentConfig(**json.loads(json.dumps(dataclasses.asdict(config)))) == config
    for field, value in {"blocks": (1, 1), "width": 0, "input_size": 40, "num_ws": 0}.items():
        with pytest.raises(ValueError, match=field):
            ImageToLatentConfig(**{field: value})
