"""Exported files compute what torch computes, whatever is exported, and are kept only then."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError, ExportError
from pyfacelat.export import fan as fan_module
from pyfacelat.export.fan import ExportOptions, cache_dir, export_fan, read_options
from pyfacelat.export.graph import Graph, Network
from pyfacelat.faces.landmarks import heatmaps_to_points, points_to_heatmaps
from pyfacelat.losses.landmark import HeatmapDistance, Reduction
from pyfacelat.nets.fan import FAN, fold_batchnorm

from .conftest import random_fan

REDUCTIONS = get_args(Reduction)


def run(path: Path, **feeds: Tensor) -> list[Tensor]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found = session.run(None, {name: value.detach().numpy() for name, value in feeds.items()})
    return [torch.from_numpy(value) for value in found]


def relative(found: Tensor, truth: Tensor) -> float:
    return float((found.double() - truth.double()).norm() / truth.double().norm())


def images(fan: FAN, count: int, seed: int = 3) -> Tensor:
    size = fan.config.input_size
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def target_like(fan: FAN, count: int, seed: int = 4) -> Tensor:
    points = torch.rand(count, 68, 2, generator=torch.Generator().manual_seed(seed))
    return points_to_heatmaps(points, (fan.config.map_size, fan.config.map_size))


def torch_loss_and_gradient(
    fan: FAN, image: Tensor, target: Tensor, weights: Tensor, reduction: Reduction
) -> tuple[Tensor, Tensor]:
    leaf = image.clone().requires_grad_()
    loss = HeatmapDistance(weights, reduction).to(image.dtype)(fan(leaf)[-1], target)
    (gradient,) = torch.autograd.grad(loss.sum(), leaf)
    return loss.detach(), gradient


def check_maps(found: Tensor, truth: Tensor) -> None:
    """Within 1e-6 of the height that peaks are trained to, 1, or of the highest if that is more."""
    assert (found - truth).abs().max() < 1e-6 * max(1.0, float(truth.abs().max()))


def check_gradient(fan: FAN, found: Tensor, image: Tensor, target: Tensor, weights: Tensor) -> None:
    """Within 1e-5 of torch, or, where a ReLU turned in torch's rounding, of the float64 truth.

    The gradient is not continuous: one unit whose input is 0 but for rounding moves it by 1e-3.
    Such a unit may turn in either implementation, so each has to be as near to the truth as torch.
    """
    _, single = torch_loss_and_gradient(fan, image, target, weights, "per_landmark")
    if relative(found, single) < 1e-5:
        return
    exact = fold_batchnorm(fan).double()
    _, truth = torch_loss_and_gradient(
        exact, image.double(), target.double(), weights.double(), "per_landmark"
    )
    assert relative(found, truth) < max(1e-5, 2 * relative(single, truth))


@pytest.mark.parametrize("stacks", [1, 2, 4])
def test_full_size(stacks: int, tmp_path: Path) -> None:
    """The published width, depth and image size, random weights."""
    fan = random_fan(num_stacks=stacks)
    image, target = images(fan, 1), target_like(fan, 1)
    weights = torch.rand(68) + 0.1
    options = ExportOptions("loss-and-gradient", batch=1)
    report = export_fan(fan, options=options, cache=tmp_path)
    assert report.seconds < 120
    loss, gradient = run(report.path, image=image, target=target, weights=weights)
    truth, _ = torch_loss_and_gradient(fan, image, target, weights, "per_landmark")
    torch.testing.assert_close(loss, truth, rtol=1e-5, atol=0)
    check_gradient(fan, gradient, image, target, weights)

    report = export_fan(fan, options=ExportOptions(batch=1), cache=tmp_path)
    (maps,) = run(report.path, image=image)
    check_maps(maps, fan(image)[-1])


def test_sample(sample: FAN, cache: Path) -> None:
    image, target = images(sample, 2), target_like(sample, 2)
    weights = torch.rand(68) + 0.1
    (maps,) = run(export_fan(sample, cache=cache).path, image=image)
    check_maps(maps, sample(image)[-1])
    path = export_fan(sample, options=ExportOptions("loss-and-gradient"), cache=cache).path
    _, gradient = run(path, image=image, target=target, weights=weights)
    check_gradient(sample, gradient, image, target, weights)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_every_loss(small: FAN, cache: Path, reduction: Reduction) -> None:
    options = ExportOptions("loss-and-gradient", reduction=reduction)
    path = export_fan(small, options=options, cache=cache).path
    image, target, weights = images(small, 3), target_like(small, 3), torch.rand(68)
    weights[5] = 0
    loss, gradient = run(path, image=image, target=target, weights=weights)
    truth = torch_loss_and_gradient(small, image, target, weights, reduction)
    assert loss.shape == (3,)
    torch.testing.assert_close(loss, truth[0], rtol=1e-5, atol=0)
    assert relative(gradient, truth[1]) < 1e-5
    # An image's loss and gradient are its own.
    alone = run(path, image=image[1:2], target=target[1:2], weights=weights)
    torch.testing.assert_close(alone[0], loss[1:2], rtol=1e-6, atol=0)
    assert relative(alone[1], gradient[1:2]) < 1e-5


@pytest.mark.parametrize("reduction", ["l2", "per_landmark"])
def test_zero_distance_has_zero_gradient(small: FAN, cache: Path, reduction: Reduction) -> None:
    image, weights = images(small, 1), torch.ones(68)
    maps_path = export_fan(small, cache=cache).path
    (maps,) = run(maps_path, image=image)
    options = ExportOptions("loss-and-gradient", reduction=reduction)
    path = export_fan(small, options=options, cache=cache).path
    loss, gradient = run(path, image=image, target=maps, weights=weights)
    assert torch.isfinite(loss).all()
    assert gradient.abs().max() < 1e-3


@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
@pytest.mark.parametrize("what", ["heatmaps", "landmarks", "loss-and-gradient"])
def test_batches(small: FAN, cache: Path, what: str, batch: int | str) -> None:
    report = export_fan(small, options=ExportOptions(what, batch), cache=cache)  # type: ignore[arg-type]
    first = onnx.load(str(report.path)).graph.input[0].type.tensor_type.shape.dim[0]
    assert (first.dim_param or first.dim_value) == ("N" if batch == "dynamic" else batch)
    assert all(value < 1e-5 for value in report.differences.values())


@pytest.mark.parametrize("opset", [18, 23])
def test_opsets(small: FAN, cache: Path, opset: int) -> None:
    for what in ("landmarks", "loss-and-gradient"):
        report = export_fan(small, options=ExportOptions(what, opset=opset), cache=cache)  # type: ignore[arg-type]
        assert onnx.load(str(report.path)).opset_import[0].version == opset


def test_points_equal_those_of_the_package(sample: FAN, cache: Path) -> None:
    path = export_fan(sample, options=ExportOptions("landmarks"), cache=cache).path
    image = images(sample, 4)
    points, confidence = run(path, image=image)
    truth, height = heatmaps_to_points(sample(image)[-1])
    torch.testing.assert_close(points, truth, rtol=0, atol=1e-5)
    torch.testing.assert_close(confidence, height, rtol=0, atol=1e-5)


def test_points_at_borders_and_in_empty_maps() -> None:
    """The decoding alone: peaks in corners, maps without a peak, negative values."""
    from pyfacelat.export.heads import add_points

    side = 16
    maps = torch.rand(2, 68, side, side) - 0.5
    maps[0, 0], maps[0, 1], maps[0, 2] = 0, -1, -1
    maps[0, 2, 0, 0], maps[0, 3, -1, -1], maps[0, 4, 0, -1], maps[0, 5, 7, -1] = 1, 2, 2, 2
    graph = Graph()
    for value, name in zip(add_points(graph, "maps", side), ("points", "confidence"), strict=True):
        graph.rename(value, name)
    make = onnx.helper.make_tensor_value_info
    outputs = [make("points", 1, ["N", 68, 2]), make("confidence", 1, ["N", 68])]
    inputs = [make("maps", 1, ["N", 68, side, side])]
    body = onnx.helper.make_graph(graph.nodes, "points", inputs, outputs, graph.constants)
    opset = onnx.helper.make_opsetid("", 20)
    model = onnx.helper.make_model(body, opset_imports=[opset], ir_version=10)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    points, confidence = session.run(None, {"maps": maps.numpy()})
    truth, height = heatmaps_to_points(maps)
    np.testing.assert_allclose(points, truth.numpy(), rtol=0, atol=1e-6)
    np.testing.assert_array_equal(confidence, height.numpy())


def test_half_precision(sample: FAN, cache: Path) -> None:
    for what, bound in (("heatmaps", 1e-2), ("loss-and-gradient", 0.1)):
        single = export_fan(sample, options=ExportOptions(what), cache=cache)  # type: ignore[arg-type]
        half = export_fan(sample, options=ExportOptions(what, dtype="fp16"), cache=cache)  # type: ignore[arg-type]
        assert half.size < 0.6 * single.size
        assert max(half.differences.values()) < bound
        entry = onnx.load(str(half.path)).graph.input[0].type.tensor_type
        assert entry.elem_type == onnx.TensorProto.FLOAT


def test_a_folded_network_and_its_original_are_the_same_file(small: FAN, cache: Path) -> None:
    assert (
        export_fan(small, cache=cache).path == export_fan(fold_batchnorm(small), cache=cache).path
    )


def test_cache(small: FAN, tmp_path: Path) -> None:
    said: list[str] = []
    first = export_fan(small, tmp_path / "a.onnx", cache=tmp_path / "kept", progress=said.append)
    assert not first.cached
    assert first.differences
    assert len(said) == 3
    assert read_options(tmp_path / "a.onnx") == (ExportOptions(), small.config)
    second = export_fan(small, tmp_path / "b.onnx", cache=tmp_path / "kept")
    assert second.cached
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert not export_fan(small, cache=tmp_path / "kept").cached
    other = random_fan(seed=1, num_stacks=2, width=16, depth=2, input_size=32)
    assert not export_fan(other, cache=tmp_path / "kept").cached
    assert len(list((tmp_path / "kept").iterdir())) == 2


def test_cache_dir_follows_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PYFACELAT_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "export"


def test_a_file_that_differs_is_not_kept(
    small: FAN, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tolerances = dict.fromkeys(fan_module._TOLERANCES, 1e-12)
    monkeypatch.setattr(fan_module, "_TOLERANCES", tolerances)
    with pytest.raises(ExportError, match="differs from torch by"):
        export_fan(small, tmp_path / "a.onnx", cache=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_unknown_operation_is_named() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.GELU()).requires_grad_(False)
    with pytest.raises(ExportError, match=r"aten\.gelu\.default: no translation"):
        Network(Graph(), net, 8).forward("image")


def test_a_folder_that_cannot_be_written(small: FAN, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="cannot be written"):
        export_fan(small, tmp_path / "file" / "a.onnx", cache=cache)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"what": "faces"}, "what: expected one of heatmaps"),
        ({"batch": 0}, "batch: expected an integer >= 1"),
        ({"batch": True}, "batch: expected an integer >= 1"),
        ({"dtype": "bf16"}, "dtype: expected one of fp32, fp16"),
        ({"opset": 17}, "opset: expected an integer from 18 to 23"),
        ({"reduction": "sum"}, "reduction: expected one of l2"),
    ],
)
def test_bad_options(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ExportOptions(**fields)  # type: ignore[arg-type]


def test_loss_and_points_are_for_68_landmarks(tmp_path: Path) -> None:
    fan = random_fan(num_stacks=1, width=8, depth=1, input_size=16, num_landmarks=5)
    assert export_fan(fan, cache=tmp_path).differences["heatmaps"] < 1e-5
    with pytest.raises(ConfigError, match="68 landmarks, the network has 5"):
        export_fan(fan, options=ExportOptions("landmarks"), cache=tmp_path)


def test_foreign_files(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no such file"):
        read_options(tmp_path / "absent.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    with pytest.raises(ExportError, match="not a landmark network exported by pyfacelat"):
        read_options(tmp_path / "text.onnx")
