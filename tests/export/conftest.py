"""Random and sample landmark networks, and one cache for all tests of a run."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pyfacelat import zoo
from pyfacelat.nets.fan import FAN, FANConfig


def random_fan(seed: int = 0, **fields: object) -> FAN:
    """A network with random weights and the running statistics of random images."""
    torch.manual_seed(seed)
    fan = FAN(FANConfig(**fields))  # type: ignore[arg-type]
    for name, buffer in fan.named_buffers():
        if name.endswith("running_mean"):
            buffer.normal_(0, 0.1)
        elif name.endswith("running_var"):
            buffer.uniform_(0.5, 1.5)
    return fan.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("export")


@pytest.fixture(scope="session")
def small() -> FAN:
    """Two stacks, all kinds of operations, milliseconds."""
    return random_fan(num_stacks=2, width=16, depth=2, input_size=32)


@pytest.fixture(scope="session")
def sample() -> FAN:
    return zoo.load_landmarker("sample")
