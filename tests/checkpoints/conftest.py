from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from pyfacelat.nets.discriminator import Discriminator
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.nets.stylegan2_config import DiscriminatorConfig, GeneratorConfig

SMALL: dict[str, Any] = {"img_resolution": 16, "channel_base": 128, "channel_max": 12}


def randomised(net: Any, seed: int = 0) -> Any:
    """Every parameter and buffer (but the filters) random, also those that start at zero."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in net.state_dict().items():
            if not name.endswith("resample_filter"):
                value.copy_(torch.randn(value.shape, generator=random))
    return net.eval()


def small_generator(**changes: Any) -> Generator:
    config = {**SMALL, "z_dim": 10, "w_dim": 11, "num_mapping_layers": 3, **changes}
    return randomised(Generator(GeneratorConfig(**config)))


def small_discriminator(**changes: Any) -> Discriminator:
    return randomised(Discriminator(DiscriminatorConfig(**{**SMALL, **changes})), seed=1)


def plain(config: Any) -> dict[str, Any]:
    """A config as the dict a reader returns."""
    out = dataclasses.asdict(config)
    out["resample_filter"] = list(out["resample_filter"])
    return out


@pytest.fixture(scope="session")
def generator() -> Generator:
    return small_generator()
