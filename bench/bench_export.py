"""The landmark network and its gradient: onnxruntime against torch.

Rivals: the network as it is trained and loaded, and the same with its batch norms folded, which is
what a projection runs. Both in torch's eager mode, with the same number of threads.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.conftest import assert_same
from pyfacelat import zoo
from pyfacelat.export import OrtFAN, landmark_loss
from pyfacelat.losses.landmark import HeatmapDistance
from pyfacelat.nets.fan import FAN, fold_batchnorm
from tests.export.conftest import random_fan
from tests.export.test_fan import images, target_like

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(scope="module", params=["sample", "1 stack", "4 stacks"])
def fan(request: pytest.FixtureRequest) -> FAN:
    """The sample network (128 px), and published sizes (256 px) with random weights."""
    if request.param == "sample":
        return zoo.load_landmarker("sample")
    return random_fan(num_stacks=int(request.param.split()[0]))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 8])
def test_forward(compare: Callable, fan: FAN, folder: Path, batch: int, device: str) -> None:
    fan = fan.to(device)
    folded, ours = fold_batchnorm(fan), OrtFAN(fan, cache=folder, device=device)
    x = images(fan, batch).to(device)

    def maps(net: Callable[[Tensor], list[Tensor]]) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with torch.no_grad():
                return net(x)[-1]

        return run

    compare(maps(ours), {"torch": maps(fan), "torch, folded": maps(folded)}, check=assert_same)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("batch", [1, 8])
def test_loss_and_gradient(
    compare: Callable, fan: FAN, folder: Path, batch: int, device: str
) -> None:
    fan = fan.to(device)
    weights = torch.rand(68) + 0.1
    folded, ours = fold_batchnorm(fan), landmark_loss(fan, weights, cache=folder, device=device)
    distance = HeatmapDistance(weights, "per_landmark").to(device)
    x, target = images(fan, batch).to(device), target_like(fan, batch).to(device)

    def gradient(loss: Callable[[Tensor], Tensor]) -> Callable[[], tuple[Tensor, Tensor]]:
        def run() -> tuple[Tensor, Tensor]:
            leaf = x.clone().requires_grad_()
            values = loss(leaf)
            return values.detach(), *torch.autograd.grad(values.sum(), leaf)

        return run

    rivals = {
        "torch": gradient(lambda image: distance(fan(image)[-1], target)),
        "torch, folded": gradient(lambda image: distance(folded(image)[-1], target)),
    }
    compare(gradient(lambda image: ours(image, target)), rivals, check=assert_same)
