"""The TensorRT path as far as it goes without TensorRT: plans, the cache, what is asked of it.

No engine is built or run here: a stand-in records what the package would be asked to do.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pyfacelat.errors import ConfigError, ExportError, MissingPackageError
from pyfacelat.export.fan import ExportOptions, export_fan
from pyfacelat.export.tensorrt import (
    EnginePlan,
    TensorRTFAN,
    TensorRTGraph,
    build_engine,
    make_plan,
)
from pyfacelat.nets.fan import FAN

GPU = {"gpu": "NVIDIA H200", "version": "10.3.0"}


@pytest.fixture
def plan(small: FAN, cache: Path, tmp_path: Path) -> EnginePlan:
    path = export_fan(small, options=ExportOptions("loss-and-gradient"), cache=cache).path
    return make_plan(path, **GPU, max_batch=4, cache=tmp_path)


def test_plan_of_a_dynamic_batch(plan: EnginePlan, tmp_path: Path) -> None:
    image, maps = [3, 32, 32], [68, 8, 8]
    assert plan.profile == {
        "image": ([1, *image], [4, *image], [4, *image]),
        "target": ([1, *maps], [4, *maps], [4, *maps]),
        "weights": ([68], [68], [68]),
    }
    assert plan.outputs == {"loss": [4], "gradient": [4, *image]}
    assert plan.engine.parent == tmp_path
    assert "-nvidia-h200-10.3.0-" in plan.engine.name
    assert plan.timings.name == "timings-nvidia-h200-10.3.0.bin"


def test_plan_of_a_fixed_batch(small: FAN, cache: Path) -> None:
    path = export_fan(small, options=ExportOptions("landmarks", batch=3), cache=cache).path
    plan = make_plan(path, **GPU, cache=cache)
    assert plan.profile == {"image": ([3, 3, 32, 32],) * 3}
    assert plan.outputs == {"points": [3, 68, 2], "confidence": [3, 68]}


def test_engines_are_for_one_gpu_version_and_profile(plan: EnginePlan, tmp_path: Path) -> None:
    others = [
        make_plan(plan.onnx, **{**GPU, **change}, cache=tmp_path)  # type: ignore[arg-type]
        for change in ({}, {"gpu": "NVIDIA A100"}, {"version": "10.4.0"}, {"max_batch": 2})
    ]
    assert len({other.engine for other in others} | {plan.engine}) == 5


@pytest.mark.parametrize("field", ["max_batch", "workspace"])
def test_bad_settings(plan: EnginePlan, field: str) -> None:
    with pytest.raises(ConfigError, match=f"{field}: expected an integer >= 1, got 0"):
        make_plan(plan.onnx, **GPU, **{field: 0})  # type: ignore[arg-type]


class Recorder:
    """Stands for the tensorrt package: records, parses and builds nothing."""

    NetworkDefinitionCreationFlag = SimpleNamespace(STRONGLY_TYPED=4)
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")

    def __init__(self, parses: bool = True, builds: bool = True) -> None:
        self.asked: dict[str, Any] = {}
        self.parses, self.builds = parses, builds

    class Logger:
        WARNING = 2

        def __init__(self, level: int) -> None:
            self.level = level

    def Builder(self, logger: Any) -> Recorder:  # noqa: N802 (TensorRT's names)
        return self

    def OnnxParser(self, network: Any, logger: Any) -> Recorder:  # noqa: N802
        self.asked["network"] = network
        return self

    num_errors = 1

    def parse(self, content: bytes) -> bool:
        self.asked["bytes"] = len(content)
        return self.parses

    def get_error(self, index: int) -> str:
        return f"node {index} is unknown"

    def create_network(self, flags: int) -> int:
        return flags

    def create_builder_config(self) -> Recorder:
        return self

    def create_optimization_profile(self) -> Recorder:
        return self

    def set_memory_pool_limit(self, pool: str, size: int) -> None:
        self.asked[pool] = size

    def set_shape(self, name: str, low: list[int], usual: list[int], high: list[int]) -> None:
        self.asked.setdefault("profile", {})[name] = (low, usual, high)

    def add_optimization_profile(self, profile: Any) -> None:
        self.asked["added"] = True

    def create_timing_cache(self, content: bytes) -> Any:
        self.asked["timings"] = content
        return SimpleNamespace(serialize=lambda: content + b"t")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch

    def build_serialized_network(self, network: Any, settings: Any) -> bytes | None:
        assert self.asked["added"]
        return b"engine" if self.builds else None


def test_what_tensorrt_is_asked_for(plan: EnginePlan) -> None:
    trt = Recorder()
    assert build_engine(plan, tensorrt=trt) == b"engine"
    assert trt.asked["network"] == 1 << 4
    assert trt.asked["bytes"] == plan.onnx.stat().st_size
    assert trt.asked["profile"] == plan.profile
    assert trt.asked["workspace"] == 1 << 30
    assert trt.asked["timings"] == b""
    # The second time it is asked for nothing.
    again = Recorder()
    assert build_engine(plan, tensorrt=again) == b"engine"
    assert not again.asked
    # Another engine starts from the timings.
    plan.engine.unlink()
    build_engine(plan, tensorrt=again)
    assert again.asked["timings"] == b"t"


@pytest.mark.parametrize(
    ("trt", "message"),
    [
        (Recorder(parses=False), "cannot parse it: node 0 is unknown"),
        (Recorder(builds=False), "could not build an engine"),
    ],
)
def test_failures_keep_nothing(plan: EnginePlan, trt: Recorder, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        build_engine(plan, tensorrt=trt)
    assert not list(plan.engine.parent.iterdir())


@pytest.mark.skipif(importlib.util.find_spec("tensorrt") is not None, reason="TensorRT is there")
def test_without_the_package(small: FAN, plan: EnginePlan) -> None:
    for attempt in (
        lambda: TensorRTFAN(small),
        lambda: TensorRTGraph(plan.onnx),
        lambda: build_engine(plan),
    ):
        with pytest.raises(
            MissingPackageError, match=r"tensorrt.*pip install 'pyfacelat\[tensorrt"
        ):
            attempt()


@pytest.mark.gpu
def test_an_engine(sample: FAN, cache: Path) -> None:
    """On a GPU with TensorRT: the same heat maps."""
    pytest.importorskip("tensorrt")
    x = torch.rand(2, 3, 64, 64)
    (maps,) = TensorRTFAN(sample, cache=cache, max_batch=2)(x.cuda())
    assert (maps.cpu() - sample(x)[-1]).norm() < 1e-2 * sample(x)[-1].norm()
