"""State dicts written by torch.save: zip and legacy, equal to what torch.load reads."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from pyfacelat import checkpoints
from pyfacelat.checkpoints import expected_tensors
from pyfacelat.errors import CheckpointError
from pyfacelat.nets.fan import FAN, FANConfig

from ..hostile.torch_archives import zipped as zip_file
from .conftest import randomised


def lins(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    shapes = expected_tensors("lpips-lins", {})
    return {name: torch.rand(shape).to(dtype) for name, shape in shapes.items()}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_equal_to_torch_load(zipped: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save(lins(dtype), path, _use_new_zipfile_serialization=zipped)
    found = checkpoints.read(path)
    expected = torch.load(path, weights_only=True)
    assert found.kind == "lpips-lins"
    assert found.metadata == {"format": "torch-zip" if zipped else "torch-legacy"}
    for name, value in expected.items():
        assert found.tensors[name].dtype == dtype
        assert torch.equal(found.tensors[name], value)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_views_shared_storages_and_parameters(zipped: bool, protocol: int, tmp_path: Path) -> None:
    """Tensors that are slices, transposed, shared or parameters come out as they were."""
    values = lins()
    flat = torch.rand(4096)
    state: OrderedDict[str, Any] = OrderedDict()
    names = list(values)
    state[names[0]] = flat[7:71].reshape(1, 64, 1, 1)
    state[names[1]] = flat[::2][:128].reshape(1, 128, 1, 1)
    state[names[2]] = torch.nn.Parameter(values[names[2]])
    state[names[3]] = values[names[3]].to(memory_format=torch.channels_last)
    state[names[4]] = values[names[3]]
    state._metadata = OrderedDict(version=1)  # type: ignore[attr-defined]
    path = tmp_path / "x.pt"
    torch.save(state, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    found = checkpoints.read(path)
    for name, value in state.items():
        assert torch.equal(found.tensors[name], value.detach()), name
        assert found.tensors[name].is_contiguous()


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_fan_is_told_by_its_names(stacks: int, tmp_path: Path) -> None:
    config = FANConfig(num_stacks=stacks, width=16, depth=2, num_landmarks=9)
    net = randomised(FAN(config))
    path = tmp_path / "x.pth.tar"
    torch.save(net.state_dict(), path)
    found = checkpoints.read(path)
    assert found.kind == "fan"
    assert found.config == {
        "num_stacks": stacks,
        "width": 16,
        "depth": 2,
        "num_landmarks": 9,
        "input_size": 256,
        "stem": "fan",
    }
    assert all(torch.equal(found.tensors[k], v) for k, v in net.state_dict().items())


def test_vgg16_without_its_classifier(tmp_path: Path) -> None:
    state = {k: torch.zeros(s) for k, s in expected_tensors("vgg16", {}).items()}
    state |= {"classifier.0.weight": torch.ones(2, 3), "classifier.0.bias": torch.ones(2)}
    path = tmp_path / "vgg16.pth"
    torch.save(state, path, _use_new_zipfile_serialization=False)
    found = checkpoints.read(path)
    assert found.kind == "vgg16"
    assert found.tensors.keys() == expected_tensors("vgg16", {}).keys()
    del state["features.28.bias"]
    torch.save(state, path)
    with pytest.raises(CheckpointError, match=r"features\.28\.bias: is missing"):
        checkpoints.read(path)


def test_names_of_data_parallel_and_files_without_counters(tmp_path: Path) -> None:
    net = randomised(FAN(FANConfig(num_stacks=1, width=16, depth=1)))
    state = {k: v for k, v in net.state_dict().items() if "num_batches" not in k}
    path = tmp_path / "x.pth.tar"
    torch.save({f"module.{k}": v for k, v in state.items()}, path)
    found = checkpoints.read(path)
    assert found.kind == "fan" and found.tensors.keys() == net.state_dict().keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in state.items())
    assert found.tensors["bn1.num_batches_tracked"].dtype == torch.int64
    torch.save({f"module.{k}": v for k, v in state.items() if k != "bn1.weight"}, path)
    with pytest.raises(CheckpointError, match=r"bn1\.weight: is missing"):
        checkpoints.read(path)


@pytest.mark.parametrize("net", ["vgg", "alex", "squeeze"])
def test_files_of_the_lpips_package(net: str) -> None:
    """Written in 2018 by Python 2 on a GPU: another dialect of the legacy stream."""
    spec = importlib.util.find_spec("lpips")
    assert spec is not None and spec.submodule_search_locations
    path = Path(next(iter(spec.submodule_search_locations))) / f"weights/v0.1/{net}.pth"
    if net != "vgg":
        with pytest.raises(CheckpointError, match="LPIPS weights for (Alex|Squeeze)Net"):
            checkpoints.read(path)
        return
    expected = torch.load(path, weights_only=True, map_location="cpu")
    found = checkpoints.read(path)
    assert found.tensors.keys() == expected.keys()
    assert all(torch.equal(found.tensors[k], v) for k, v in expected.items())


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("synthesis.b4.const", "does not say how the network was made"),
        ("synthesis.input.weight", "a StyleGAN3 generator"),
        ("backbone.synthesis.b4.const", "an EG3D generator"),
        ("model.diffusion_model.out.weight", "a diffusion model"),
    ],
)
def test_networks_that_are_not_read_are_named(name: str, reason: str, tmp_path: Path) -> None:
    torch.save({name: torch.zeros(3), "other": torch.zeros(1)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=reason):
        checkpoints.read(tmp_path / "x.pt")


def test_whole_modules_and_tuned_generators_are_named(tmp_path: Path) -> None:
    path = tmp_path / "m.pt"
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(CheckpointError, match="save its state_dict"):
        checkpoints.read(path)
    path.write_bytes(zip_file(extra={"archive/constants.pkl": b""}))
    with pytest.raises(CheckpointError, match="a TorchScript archive.*For LPIPS take torchvision"):
        checkpoints.read(path)
    torch.save({"w": torch.zeros(3)}, path)
    with pytest.raises(CheckpointError, match="1 tensors of a network that is not known"):
        checkpoints.read(path)
