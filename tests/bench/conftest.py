"""Networks of 32 px with random weights, as files: a whole benchmark run takes seconds."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from torch import nn

from pyfacelat.checkpoints import write_safetensors
from pyfacelat.nets.fan import FAN, FANConfig
from pyfacelat.nets.sample_encoder import SampleEncoder, SampleEncoderConfig
from tests.projection.conftest import SIZE, make_generator

Z_DIM = 16


def write(path: Path, kind: str, net: nn.Module) -> Path:
    config = json.loads(json.dumps(dataclasses.asdict(net.config)))  # type: ignore[call-overload]
    write_safetensors(path, kind, config, net.state_dict())
    return path


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files by role, as the benchmark's options name them."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(4)
    fan = FANConfig(num_stacks=1, width=16, depth=2, input_size=SIZE, stem="half")
    encoder = SampleEncoder(
        SampleEncoderConfig(z_dim=Z_DIM, input_size=SIZE, widths=(8, 8, 8, 8, 8), hidden=16)
    )
    files = {
        "generator": write(folder / "generator.safetensors", "stylegan2-generator",
                           make_generator()),
        "landmarker": write(folder / "fan.safetensors", "fan", FAN(fan)),
        "judge": write(folder / "judge.safetensors", "fan", FAN(fan)),
        "encoder": write(folder / "encoder.safetensors", "sample-encoder", encoder),
    }  # fmt: skip
    return {**files, "perceptual": files["encoder"]}


@pytest.fixture
def options(tiny: dict[str, Path]) -> list[str]:
    """The command line that picks these networks, two threads less than nothing to wait for."""
    named = [word for role, path in tiny.items() for word in (f"--{role}", str(path))]
    return [*named, "--device", "cpu", "--frames", "8", "--frame-steps", "1"]
