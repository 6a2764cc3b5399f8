"""The exported landmark network under TensorRT itself: an engine built from the ONNX file.

Written for TensorRT 10's Python package, without trtexec. An engine is good for one GPU model and
one TensorRT version, so both are part of its name in the cache; the timings of its kernels are kept
beside it and make the next engine cheaper. Precision is the file's: the network is strongly typed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError, DeviceError, ExportError
from pyfacelat.export.fan import ExportOptions, cache_dir, export_fan, read_options
from pyfacelat.export.packages import require
from pyfacelat.files import write_atomically
from pyfacelat.nets.fan import FAN, FANConfig

__all__ = ["EnginePlan", "TensorRTFAN", "TensorRTGraph", "build_engine", "make_plan"]


@dataclasses.dataclass(frozen=True)
class EnginePlan:
    """What an engine is built from and for; all that decides it, decided before TensorRT is asked.

    Attributes:
        onnx: the file.
        engine: where the engine is kept.
        timings: where its kernels' timings are kept, for all engines of one GPU and version.
        profile: smallest, usual and largest shape of each input.
        outputs: shape of each output, with the largest batch first.
        workspace: bytes TensorRT may use besides.

    """

    onnx: Path
    engine: Path
    timings: Path
    profile: dict[str, tuple[list[int], list[int], list[int]]]
    outputs: dict[str, list[int]]
    workspace: int


def make_plan(
    onnx: str | os.PathLike[str],
    *,
    gpu: str,
    version: str,
    max_batch: int = 8,
    workspace: int = 1 << 30,
    cache: str | os.PathLike[str] | None = None,
) -> EnginePlan:
    """Plan an engine for an exported file.

    Args:
        onnx: file written by `export_fan`.
        gpu: name of the GPU.
        version: TensorRT's.
        max_batch: largest number of images of a file with a dynamic batch, >= 1.
        workspace: bytes TensorRT may use besides.
        cache: folder of engines and timings; None is `cache_dir()`.

    Raises:
        ConfigError: max_batch or workspace out of range.
        ExportError: the file is absent or not ours.
        MissingPackageError: onnx is not installed.
    """
    for name, value in (("max_batch", max_batch), ("workspace", workspace)):
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name}: expected an integer >= 1, got {value!r}")
    options, config = read_options(onnx)
    inputs, outputs = _shapes(options, config)
    fixed = options.batch if isinstance(options.batch, int) else None
    low, high = (fixed, fixed) if fixed is not None else (1, max_batch)
    profile = {name: ([low, *rest], [high, *rest], [high, *rest]) for name, rest in inputs.items()}
    if "target" in inputs:
        profile["weights"] = ([68], [68], [68])
    where = "-".join(re.sub(r"[^a-z0-9.]+", "-", text.lower()) for text in (gpu, version))
    content = hashlib.sha256(Path(onnx).read_bytes())
    content.update(f"{profile} {workspace}".encode())
    folder = Path(cache) if cache is not None else cache_dir()
    return EnginePlan(
        onnx=Path(onnx),
        engine=folder / f"{Path(onnx).stem}-{where}-{content.hexdigest()[:16]}.engine",
        timings=folder / f"timings-{where}.bin",
        profile=profile,
        outputs={name: [high, *rest] for name, rest in outputs.items()},
        workspace=workspace,
    )


def build_engine(plan: EnginePlan, *, tensorrt: Any = None) -> bytes:
    """The engine of a plan, from the cache or built and put there.

    Args:
        plan: see `make_plan`.
        tensorrt: the package; None imports it.

    Raises:
        MissingPackageError: tensorrt is not installed.
        ExportError: TensorRT cannot parse the file or build the engine; the message has its words.
    """
    trt = tensorrt if tensorrt is not None else require("tensorrt", "building an engine")
    if plan.engine.is_file():
        return plan.engine.read_bytes()
    builder = trt.Builder(trt.Logger(trt.Logger.WARNING))
    typed = 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
    network = builder.create_network(typed)
    parser = trt.OnnxParser(network, trt.Logger(trt.Logger.WARNING))
    if not parser.parse(plan.onnx.read_bytes()):
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise ExportError(f"{plan.onnx}: TensorRT cannot parse it: {reasons}")
    settings = builder.create_builder_config()
    settings.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, plan.workspace)
    profile = builder.create_optimization_profile()
    for name, shapes in plan.profile.items():
        profile.set_shape(name, *shapes)
    settings.add_optimization_profile(profile)
    known = plan.timings.read_bytes() if plan.timings.is_file() else b""
    timings = settings.create_timing_cache(known)
    settings.set_timing_cache(timings, ignore_mismatch=False)
    serialized = builder.build_serialized_network(network, settings)
    if serialized is None:
        raise ExportError(f"{plan.onnx}: TensorRT could not build an engine (its log says why)")
    engine = bytes(serialized)
    _keep(plan.engine, engine)
    _keep(plan.timings, bytes(timings.serialize()))
    return engine


class TensorRTGraph:
    """An exported file as a TensorRT engine: tensors in, tensors out, on torch's current stream.

    Args:
        path: file written by `export_fan`.
        device: a CUDA device.
        settings: `max_batch`, `workspace` and `cache` of `make_plan`.

    Raises:
        DeviceError: the device is no CUDA device, or is not there.
        MissingPackageError, ExportError: as `build_engine`.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, device: str | torch.device = "cuda", **settings: Any
    ) -> None:
        trt = require("tensorrt", "running an exported network under TensorRT")
        self.device = torch.device(device)
        if self.device.type != "cuda" or not torch.cuda.is_available():
            raise DeviceError(f"device: TensorRT needs a CUDA device that is there, got {device}")
        if self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.options, self.config = read_options(path)
        name = torch.cuda.get_device_name(self.device)
        self.plan = make_plan(path, gpu=name, version=trt.__version__, **settings)
        with torch.cuda.device(self.device):
            self._runtime = trt.Runtime(trt.Logger(trt.Logger.WARNING))
            engine = build_engine(self.plan, tensorrt=trt)
            self._engine = self._runtime.deserialize_cuda_engine(engine)
            if self._engine is None:
                raise ExportError(f"{self.plan.engine}: TensorRT cannot load it; delete it")
            self._context = self._engine.create_execution_context()

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the engine.

        Args:
            inputs: float32 tensors by name, on the engine's device.

        Returns:
            Outputs by name, newly allocated there.

        Raises:
            ValueError: an input has a wrong shape, dtype or device.
            DeviceError: TensorRT could not run the engine.
        """
        count = len(inputs["image"])
        alive = []
        for name, (low, _, high) in self.plan.profile.items():
            value = inputs[name]
            if not low[0] <= len(value) <= high[0] or list(value.shape[1:]) != high[1:]:
                raise ValueError(
                    f"{name}: expected a shape from {low} to {high}, got {list(value.shape)}"
                )
            if value.dtype != torch.float32 or value.device != self.device:
                raise ValueError(
                    f"{name}: expected float32 on {self.device}, got {value.dtype} on "
                    f"{value.device}"
                )
            alive.append(value.detach().contiguous())
            self._context.set_input_shape(name, list(value.shape))
            self._context.set_tensor_address(name, alive[-1].data_ptr())
        results = {}
        for name, (_, *rest) in self.plan.outputs.items():
            results[name] = torch.empty([count, *rest], device=self.device)
            self._context.set_tensor_address(name, results[name].data_ptr())
        stream = torch.cuda.current_stream(self.device).cuda_stream
        if not self._context.execute_async_v3(stream):
            raise DeviceError("TensorRT could not run the engine (its log says why)")
        return results


class TensorRTFAN(nn.Module):
    """A `FAN` under TensorRT, for inference: images to heat maps, without a gradient.

    Args:
        source: a FAN on a CUDA device, exported first (or taken from the cache), or a file with its
            heat maps.
        settings: as `TensorRTGraph`.

    Raises: as `TensorRTGraph` and `export_fan`.
    """

    def __init__(self, source: FAN | str | os.PathLike[str], **settings: Any) -> None:
        super().__init__()
        require("tensorrt", "running an exported network under TensorRT")
        if isinstance(source, FAN):
            source = export_fan(source, cache=settings.get("cache")).path
        self.graph = TensorRTGraph(source, **settings)
        if self.graph.options.what != "heatmaps":
            raise ConfigError(f"source: {source} has {self.graph.options.what}, not heatmaps")
        self.config = self.graph.config

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [N,3,S,S] float32 in [0, 1] -> a list of one: the prediction [N,68,h,w]."""
        return [self.graph({"image": x})["heatmaps"]]


def _shapes(
    options: ExportOptions, config: FANConfig
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Shapes of inputs and outputs behind the batch; without `weights`, which has none."""
    image = [3, config.input_size, config.input_size]
    maps = [config.num_landmarks, config.map_size, config.map_size]
    if options.what == "heatmaps":
        return {"image": image}, {"heatmaps": maps}
    if options.what == "landmarks":
        return {"image": image}, {"points": [68, 2], "confidence": [68]}
    return {"image": image, "target": maps}, {"loss": [], "gradient": image}


def _keep(path: Path, content: bytes) -> None:
    """Put a file into the cache; half an engine is never found."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
