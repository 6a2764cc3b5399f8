"""Small random networks: enough to run every path of a projection in a second."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.stylegan2 import Generator, GeneratorConfig

SIZE = 32


class Trunk(nn.Module):
    """Two convolution stages with random weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList([nn.Conv2d(3, 8, 3, 1, 1), nn.Conv2d(8, 16, 3, 2, 1)])

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self.stages:
            x = torch.relu(stage(x))
            maps.append(x)
        return maps


def make_generator(seed: int = 0, **changes: object) -> Generator:
    torch.manual_seed(seed)
    fields: dict[str, object] = {
        "z_dim": 16,
        "w_dim": 16,
        "img_resolution": SIZE,
        "num_mapping_layers": 2,
        "channel_base": 512,
        "channel_max": 32,
        **changes,
    }
    generator = Generator(GeneratorConfig(**fields))
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            parameter.data.fill_(0.1)
    return generator.eval().requires_grad_(False)


@pytest.fixture
def generator() -> Generator:
    return make_generator()


@pytest.fixture
def landmarker() -> FAN:
    torch.manual_seed(1)
    return FAN(FANConfig(num_stacks=1, width=16, depth=2, input_size=SIZE, stem="half")).eval()


@pytest.fixture
def perceptual() -> LPIPS:
    torch.manual_seed(2)
    return LPIPS(Trunk(), [torch.ones(8), torch.ones(16)])


@pytest.fixture
def nets(generator: Generator, landmarker: FAN, perceptual: LPIPS) -> dict[str, object]:
    """Keyword arguments of `project` that stand for a whole set of networks."""
    return {"network": generator, "landmarker": landmarker, "perceptual": perceptual}


@pytest.fixture
def look(generator: Generator) -> Tensor:
    """An image the generator can make: [3,32,32] in [-1, 1]."""
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(5))
    return generator(z)[0].clamp(-1, 1)


@pytest.fixture
def pose(generator: Generator) -> Tensor:
    z = torch.randn(1, 16, generator=torch.Generator().manual_seed(6))
    return generator(z)[0].clamp(-1, 1)
