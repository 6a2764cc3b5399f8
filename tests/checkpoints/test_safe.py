"""The native format: exact, atomic, and readable by the safetensors package."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from pyfacelat import checkpoints
from pyfacelat.checkpoints import write_safetensors
from pyfacelat.errors import CheckpointError

from .conftest import plain, small_generator

DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32,
    torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


def test_round_trip_of_every_dtype_and_layout(tmp_path: Path) -> None:
    random = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for dtype in DTYPES:
        value = torch.randint(0, 2, (3, 4, 5), generator=random).to(dtype)
        tensors[f"{dtype}.dense"] = value
        tensors[f"{dtype}.transposed"] = value.transpose(0, 2)
        tensors[f"{dtype}.slice"] = value[1:, ::2]
        tensors[f"{dtype}.scalar"] = value[0, 0, 0]
        tensors[f"{dtype}.empty"] = value[:0]
        tensors[f"{dtype}.odd"] = value.reshape(-1)[:3]
    tensors["shared.a"] = tensors["shared.b"] = torch.ones(3, requires_grad=True)
    path = tmp_path / "x.safetensors"
    write_safetensors(path, "vgg16", {"a": 1}, tensors, metadata={"note": "ä\n"})
    found = checkpoints.read(path)
    assert found.kind == "vgg16" and found.config == {"a": 1} and found.metadata == {"note": "ä\n"}
    assert found.tensors.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found.tensors[name].dtype == value.dtype, name
        assert torch.equal(found.tensors[name], value), name
    # The reference implementation reads the same.
    for name, value in load_file(path).items():
        assert torch.equal(value, tensors[name]), name
    with safe_open(path, "pt") as file:
        assert json.loads(file.metadata()["pyfacelat"])["kind"] == "vgg16"


def test_half_is_rounded_and_integers_stay(tmp_path: Path) -> None:
    tensors = {"a": torch.tensor([1 / 3, 1e-9]), "n": torch.tensor(1 << 40)}
    path = tmp_path / "x"
    write_safetensors(path, "fan", {}, tensors, dtype=torch.float16)
    found = checkpoints.read(path).tensors
    assert torch.equal(found["a"], tensors["a"].half())
    assert found["n"].dtype == torch.int64 and int(found["n"]) == 1 << 40


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"kind": "other"}, "kind"),
        ({"config": {"a": object()}}, "not JSON"),
        ({"config": {"a": float("inf")}}, "not finite"),
        ({"tensors": {"a": torch.tensor([1.0, float("nan")])}}, "1 of 2 values"),
        ({"tensors": {"a": torch.tensor([1e6])}, "dtype": torch.float16}, "not finite"),
        ({"tensors": {"a": torch.ones(1, dtype=torch.complex64)}}, "cannot be stored"),
    ],
)
def test_a_refused_write_leaves_the_old_file(
    changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(b"old")
    options: dict[str, Any] = {"kind": "fan", "config": {}, "tensors": {"b": torch.ones(9)}}
    options |= changes
    with pytest.raises(CheckpointError, match=reason):
        write_safetensors(path, **options)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["x.safetensors"]


def test_a_write_that_runs_out_of_space_leaves_nothing(tmp_path: Path) -> None:
    import resource

    path = tmp_path / "x.safetensors"
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            import signal

            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
            write_safetensors(path, "fan", {}, {"a": torch.zeros(100_000)})
        except OSError:
            code = 0
        finally:
            os._exit(code)
    assert os.waitpid(pid, 0)[1] == 0
    assert os.listdir(tmp_path) == []


def test_file_mode_follows_the_umask(tmp_path: Path) -> None:
    previous = os.umask(0o022)
    try:
        write_safetensors(tmp_path / "x", "fan", {}, {"a": torch.zeros(1)})
    finally:
        os.umask(previous)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_convert(tmp_path: Path) -> None:
    from .nvidia_writer import NvidiaFile

    net = small_generator()
    source, full, half = (tmp_path / name for name in ("net.pkl", "a.safetensors", "b.safetensors"))
    source.write_bytes(NvidiaFile(4).dump({"G_ema": ("generator", net)}))
    report = checkpoints.convert(source, full)
    assert report.kind == "stylegan2-generator"
    assert report.tensors == len(net.state_dict())
    assert report.values == sum(v.numel() for v in net.state_dict().values())
    assert report.nbytes == full.stat().st_size and len(report.sha256) == 64
    assert str(full) in str(report)
    found = checkpoints.read(full)
    assert found.config == plain(net.config)
    assert found.metadata["format"] == "nvidia-pickle"
    assert all(torch.equal(found.tensors[k], v) for k, v in net.state_dict().items())

    assert checkpoints.convert(full, half, half=True).nbytes < 0.6 * report.nbytes
    smaller = checkpoints.read(half)
    assert smaller.config == found.config
    assert all(torch.equal(smaller.tensors[k], v.half()) for k, v in net.state_dict().items())

    with pytest.raises(FileNotFoundError):
        checkpoints.convert(tmp_path / "gone", full)
    with pytest.raises(CheckpointError, match="has no D"):
        checkpoints.convert(source, full, part="discriminator")
    with pytest.raises(ValueError, match="part"):
        checkpoints.convert(source, full, part="G")
