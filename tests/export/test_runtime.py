"""Exported networks under onnxruntime: the signature, the gradient, the provider, a projection."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import pyfacelat
from pyfacelat.errors import ConfigError, DeviceError, ExportError, MissingPackageError
from pyfacelat.export import runtime
from pyfacelat.export.fan import ExportOptions, export_fan
from pyfacelat.export.packages import require
from pyfacelat.export.runtime import OrtFAN, OrtGraph, OrtLandmarkLoss, landmark_loss
from pyfacelat.losses.landmark import HeatmapDistance, Landmarker
from pyfacelat.nets.fan import FAN
from pyfacelat.projection.config import ProjectionConfig, make_config

from .test_fan import images, relative, target_like

ASSETS = Path(pyfacelat.__file__).with_name("assets")


def test_the_signature_of_fan(small: FAN, cache: Path) -> None:
    net = OrtFAN(small, cache=cache)
    x = images(small, 3)
    (maps,) = net(x)
    torch.testing.assert_close(maps, small(x)[-1], rtol=0, atol=1e-6)
    assert net.graph.provider == "cpu"
    points, _ = Landmarker(net).points(x * 2 - 1)
    torch.testing.assert_close(points, Landmarker(small).points(x * 2 - 1)[0], rtol=0, atol=1e-4)
    assert net(x[:0])[0].shape == (0, 68, 8, 8)
    # Any layout is taken; the result does not depend on it.
    (again,) = net(x.to(memory_format=torch.channels_last))
    assert torch.equal(maps, again)


def test_a_file_instead_of_a_network(small: FAN, cache: Path) -> None:
    path = export_fan(small, options=ExportOptions(batch=2), cache=cache).path
    net = OrtFAN(path, threads=1)
    assert net.config == small.config
    assert net(images(small, 2))[0].shape == (2, 68, 8, 8)
    with pytest.raises(ValueError, match=r"image: expected shape \[2, 3, 32, 32\], got \[3"):
        net(images(small, 3))
    with pytest.raises(ValueError, match=r"expected torch.float32, got torch.float64"):
        net(images(small, 2).double())
    loss = export_fan(small, options=ExportOptions("loss-and-gradient"), cache=cache).path
    with pytest.raises(ConfigError, match="has loss-and-gradient, heatmaps is needed"):
        OrtFAN(loss)
    with pytest.raises(ConfigError, match="has 'per_landmark', not 'l1'"):
        landmark_loss(loss, torch.ones(68), "l1")
    with pytest.raises(ExportError, match="no such file"):
        OrtFAN(cache / "absent.onnx")


def test_loss_with_autograd(small: FAN, cache: Path) -> None:
    """Weighted sums of losses, and the chain rule on both sides."""
    weights, target, x = torch.rand(68), target_like(small, 3), images(small, 3)
    ours = landmark_loss(small, weights, "l2", cache=cache)
    assert ours.backend == "onnxruntime cpu"
    theirs = HeatmapDistance(weights, "l2")
    worth = torch.tensor([1.0, -2.0, 0.5])

    def gradient(loss: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        leaf = x.clone().requires_grad_()
        values = loss(leaf.square())
        (values.square() * worth).sum().backward()
        assert leaf.grad is not None
        return values.detach(), leaf.grad

    found = gradient(lambda image: ours(image, target))
    truth = gradient(lambda image: theirs(small(image)[-1], target))
    torch.testing.assert_close(found[0], truth[0], rtol=1e-5, atol=0)
    assert relative(found[1], truth[1]) < 1e-5


def test_the_gradient_has_no_gradient(small: FAN, cache: Path) -> None:
    ours = landmark_loss(small, torch.ones(68), cache=cache)
    leaf = images(small, 1).requires_grad_()
    loss = OrtLandmarkLoss.apply(leaf, target_like(small, 1), ours.weights, ours.graph)
    (first,) = torch.autograd.grad(loss.square().sum(), leaf, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_providers_are_chosen_or_refused_in_words(small: FAN, cache: Path) -> None:
    path = export_fan(small, cache=cache).path
    with pytest.raises(ConfigError, match="expected one of auto, tensorrt, cuda, cpu, got 'gpu'"):
        OrtGraph(path, provider="gpu")
    with pytest.raises(DeviceError, match="cuda is not for tensors on cpu"):
        OrtGraph(path, provider="cuda")
    both = ["TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider"]
    cuda, cpu = torch.device("cuda", 0), torch.device("cpu")
    assert runtime._candidates("auto", cuda, both) == ["tensorrt", "cuda"]
    assert runtime._candidates("auto", cuda, both[1:]) == ["cuda"]
    assert runtime._candidates("cuda", cuda, both) == ["cuda"]
    assert runtime._candidates("auto", cpu, both) == ["cpu"]
    # Tensors on a GPU never go to the CPU provider unasked.
    with pytest.raises(DeviceError, match=r"no tensorrt or cuda provider.*pyfacelat\[onnx-gpu\]"):
        runtime._candidates("auto", cuda, both[2:])
    with pytest.raises(DeviceError, match="cpu is not for tensors on cuda:0"):
        runtime._candidates("cpu", cuda, both)


class Session:
    """Stands for onnxruntime.InferenceSession where provider libraries may be missing."""

    loads: tuple[str, ...] = ()

    def __init__(self, path: str, options: Any, providers: list[tuple[str, Any]]) -> None:
        self._providers = [name for name, _ in providers if name in self.loads]

    def get_providers(self) -> list[str]:
        return self._providers

    def get_inputs(self) -> list[Any]:
        return []

    get_outputs = get_inputs

    def disable_fallback(self) -> None:
        pass


def test_a_provider_that_does_not_load_is_never_silent(
    small: FAN, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = export_fan(small, cache=cache).path
    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    monkeypatch.setattr(runtime, "_candidates", lambda *_: ["tensorrt", "cuda"])
    monkeypatch.setattr(Session, "loads", ("CUDAExecutionProvider", "CPUExecutionProvider"))
    with pytest.warns(UserWarning, match="could not load the provider tensorrt"):
        assert OrtGraph(path).provider == "cuda"
    monkeypatch.setattr(Session, "loads", ("CPUExecutionProvider",))
    with (
        pytest.warns(UserWarning, match="tensorrt"),
        pytest.raises(DeviceError, match="offers cuda and could not load it"),
    ):
        OrtGraph(path)
    with pytest.raises(DeviceError, match="offers tensorrt and could not load it"):
        OrtGraph(path, provider="tensorrt")


@pytest.mark.parametrize(
    ("package", "extra"),
    [("onnx", "onnx"), ("onnxruntime", "onnx"), ("tensorrt", "tensorrt")],
)
def test_missing_packages(package: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == package else find(name)
    )
    with pytest.raises(MissingPackageError, match=rf"{package}, which is not.*\[{extra}\]"):
        require(package, "this")
    assert issubclass(MissingPackageError, ImportError)


def test_a_package_that_cannot_be_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> None:
        raise OSError("libnvinfer.so.10: no such file")

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(importlib, "import_module", fail)
    with pytest.raises(MissingPackageError, match=r"cannot be loaded \(libnvinfer.so.10"):
        require("tensorrt", "this")


def test_projection(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same end as with torch, within 1 %, and a result that says what ran.

    Rounding moves the way there: unsettled after 50 steps, ends differ by up to 1 %; after 120 by
    0.1 %, as much as after a change of the weights by 1e-7.
    """
    monkeypatch.setenv("PYFACELAT_HOME", str(cache))
    ends = {}
    for backend in ("torch", "onnx"):
        result = pyfacelat.project(
            [str(ASSETS / "look.png"), str(ASSETS / "landmarks.png")],
            str(ASSETS / "landmarks.png"),
            steps=120,
            shape="take",  # so that landmarks are optimised
            landmark_backend=backend,
        )
        ends[backend] = result.losses["total"][-1]
        assert result.config.landmark_backend == backend
        assert result.losses["landmark"].shape == (120, 2)
    assert result.backends["landmark_term"] == "onnxruntime cpu"
    assert ((ends["onnx"] - ends["torch"]).abs() / ends["torch"]).max() < 0.01
    kept = make_config(result.config)
    assert kept.landmark_backend == "onnx"
    assert ProjectionConfig.from_json(kept.to_json()) == kept


def test_projection_refuses_what_the_engine_cannot_do() -> None:
    with pytest.raises(ConfigError, match="landmark_backend: expected one of torch, onnx"):
        pyfacelat.Projector(landmark_backend="tensorflow")
    with pytest.raises(ConfigError, match="computes in float32, got dtype torch.float64"):
        pyfacelat.Projector(landmark_backend="onnx", dtype="float64")
    net = nn.Conv2d(3, 68, 3)
    with pytest.raises(ConfigError, match="is for a FAN at its own size, got Conv2d"):
        pyfacelat.Projector(landmark_backend="onnx", landmarker=net)


def test_importing_costs_nothing() -> None:
    """Neither the package nor its export part imports onnx, onnxruntime or tensorrt."""
    script = (
        "import json, sys, pyfacelat, pyfacelat.export, pyfacelat.export.tensorrt\n"
        "print(json.dumps(sorted({n.split('.')[0] for n in sys.modules})))"
    )
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert not {"onnx", "onnxruntime", "onnxscript", "tensorrt"} & set(json.loads(answer.stdout))


@pytest.mark.gpu
def test_cuda(sample: FAN, cache: Path) -> None:
    """On a GPU: torch's tensors where they lie, on torch's stream, default or not."""
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has no CUDA provider (extra onnx-gpu)")
    weights, target, x = torch.rand(68), target_like(sample, 3), images(sample, 3)
    host = landmark_loss(sample, weights, cache=cache)
    device = landmark_loss(sample, weights, cache=cache, device="cuda", provider="cuda")

    def gradient(loss: Any, where: str) -> Tensor:
        leaf = x.to(where).requires_grad_()
        (found,) = torch.autograd.grad(loss(leaf.square(), target.to(where)).sum(), leaf)
        return found.cpu()

    truth = gradient(host, "cpu")
    assert relative(gradient(device, "cuda"), truth) < 1e-2
    with torch.cuda.stream(torch.cuda.Stream()):
        other = landmark_loss(sample, weights, cache=cache, device="cuda", provider="cuda")
        assert relative(gradient(other, "cuda"), truth) < 1e-2
