"""The exported landmark network under onnxruntime, behind the signature it has in torch.

`OrtFAN` takes the place of a `FAN`; `OrtLandmarkLoss` computes the landmark loss and, in the same
run, its gradient to the image, and hands that to autograd. Tensors are bound where they lie: on a
CUDA device nothing is copied, and the work is ordered on torch's current stream.

Which provider runs is chosen (TensorRT, CUDA, CPU, in this order, among those that are for the
device) or given, and always stated in `.provider`: one that was asked for and does not load is an
error, one that was skipped in choosing is a warning.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError, DeviceError, ExportError
from pyfacelat.export.fan import ExportOptions, What, cache_dir, export_fan, read_options
from pyfacelat.export.packages import require
from pyfacelat.losses.landmark import Reduction
from pyfacelat.nets.fan import FAN

__all__ = ["PROVIDERS", "OrtFAN", "OrtGraph", "OrtLandmarkLoss", "landmark_loss"]

PROVIDERS = {
    "tensorrt": "TensorrtExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "cpu": "CPUExecutionProvider",
}
"""Short names of onnxruntime's providers, in the order in which they are tried."""

Source = FAN | str | os.PathLike[str]


class OrtGraph:
    """An exported file, loaded: tensors in, tensors out.

    Args:
        path: file written by `export_fan`.
        provider: "tensorrt", "cuda", "cpu", or "auto": the first of these that is there for
            the device.
        device: where inputs and outputs lie.
        threads: of the CPU provider; None takes torch's number.
        cache: folder of TensorRT's engines and timings; None is `cache_dir()`.

    Attributes:
        provider: the one that runs.

    Raises:
        MissingPackageError: onnx or onnxruntime is not installed.
        ConfigError: no such provider.
        DeviceError: the provider is not part of this onnxruntime, does not load, or is not for
            this device; the message says what to install.
        ExportError: the file is absent or not ours.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        provider: str = "auto",
        device: str | torch.device = "cpu",
        threads: int | None = None,
        cache: str | os.PathLike[str] | None = None,
    ) -> None:
        self._ort = require("onnxruntime", "running an exported network")
        self.path = Path(path)
        self.options, self.config = read_options(path)
        self.device = _indexed(torch.device(device))
        self._stream = _stream_of(self.device)
        folder = Path(cache) if cache is not None else cache_dir()
        offered = self._ort.get_available_providers()
        tried = _candidates(provider, self.device, offered)
        for name in tried:
            self._session = self._load(name, threads or torch.get_num_threads(), folder)
            if self._session is not None:
                break
            if provider != "auto" or name == tried[-1]:
                raise DeviceError(
                    f"provider: onnxruntime offers {name} and could not load it; its libraries "
                    f"are missing or of another version ({_LIBRARIES[name]})"
                )
            warnings.warn(
                f"onnxruntime could not load the provider {name} ({_LIBRARIES[name]}); "
                "the next one is used",
                stacklevel=2,
            )
        self.provider = name
        self._shapes = {item.name: item.shape for item in self._session.get_inputs()}
        self._outputs = {item.name: item.shape for item in self._session.get_outputs()}

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Run the graph.

        Args:
            inputs: float32 tensors by name, on the graph's device.

        Returns:
            Outputs by name, newly allocated there.

        Raises:
            ValueError: an input has a wrong shape, dtype or device.
            DeviceError: onnxruntime could not run the graph.
        """
        count = len(inputs["image"])
        if count == 0:
            return {
                name: torch.empty(_sizes(shape, 0), device=self.device)
                for name, shape in self._outputs.items()
            }
        binding = self._session.io_binding()
        alive = []
        for name, shape in self._shapes.items():
            alive.append(self._checked(name, inputs[name], shape, count))
            self._bind(binding.bind_input, name, alive[-1])
        results = {}
        for name, shape in self._outputs.items():
            # Deterministic mode fills `empty`; onnxruntime overwrites every element.
            results[name] = torch.empty(_sizes(shape, count), device=self.device)
            self._bind(binding.bind_output, name, results[name])
        try:
            self._run(binding, [*alive, *results.values()])
        except Exception as error:  # onnxruntime has its own kinds, none of them public
            raise DeviceError(f"onnxruntime ({self.provider}) failed: {error}") from error
        return results

    def _run(self, binding: Any, tensors: Sequence[Tensor]) -> None:
        if self._stream is None:
            self._session.run_with_iobinding(binding)
            return
        options = self._ort.RunOptions()
        options.add_run_config_entry("disable_synchronize_execution_providers", "1")
        current = torch.cuda.current_stream(self.device)
        self._stream.wait_stream(current)
        self._session.run_with_iobinding(binding, options)
        current.wait_stream(self._stream)
        for tensor in tensors:  # their memory is not given to others before the stream is through
            tensor.record_stream(self._stream)

    def _load(self, name: str, threads: int, folder: Path) -> Any:
        """A session on this provider, or None if its libraries did not load."""
        options = self._ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 4  # what goes wrong is said here, once
        chain = {"tensorrt": ("tensorrt", "cuda", "cpu"), "cuda": ("cuda", "cpu")}
        providers = [
            (PROVIDERS[each], self._provider_options(each, folder))
            for each in chain.get(name, (name,))
        ]
        try:
            session = self._ort.InferenceSession(str(self.path), options, providers=providers)
        except Exception as error:  # as above
            if name == "cpu":
                raise ExportError(f"{self.path}: onnxruntime cannot load it: {error}") from error
            return None
        session.disable_fallback()
        # onnxruntime leaves out, without an error, a provider whose libraries it cannot load.
        return session if session.get_providers()[0] == PROVIDERS[name] else None

    def _provider_options(self, name: str, folder: Path) -> dict[str, str]:
        if name == "cpu" or self._stream is None:
            return {}
        options = {
            "device_id": str(self.device.index),
            "user_compute_stream": str(self._stream.cuda_stream),
        }
        if name == "tensorrt":
            folder.mkdir(parents=True, exist_ok=True)
            options |= {
                "trt_engine_cache_enable": "1",
                "trt_engine_cache_path": str(folder),
                "trt_timing_cache_enable": "1",
                "trt_timing_cache_path": str(folder),
                "trt_fp16_enable": "1" if self.options.dtype == "fp16" else "0",
            }
        return options

    def _checked(self, name: str, value: Tensor, shape: Sequence[Any], count: int) -> Tensor:
        expected = _sizes(shape, count)
        if list(value.shape) != expected:
            raise ValueError(f"{name}: expected shape {expected}, got {list(value.shape)}")
        if value.dtype != torch.float32:
            raise ValueError(f"{name}: expected torch.float32, got {value.dtype}")
        if value.device != self.device:
            raise ValueError(f"{name}: expected on {self.device}, got one on {value.device}")
        return value.detach().contiguous()

    def _bind(self, bind: Any, name: str, tensor: Tensor) -> None:
        bind(
            name=name,
            device_type=self.device.type,
            device_id=self.device.index or 0,
            element_type="float32",
            shape=list(tensor.shape),
            buffer_ptr=tensor.data_ptr(),
        )


class OrtFAN(nn.Module):
    """A `FAN` under onnxruntime, for inference: images to heat maps, without a gradient.

    Args:
        source: a FAN, exported first (or taken from the cache), or a file with its heat maps.
        settings: as `OrtGraph`; without `device`, that of the FAN, or the CPU for a file.

    Raises: as `OrtGraph` and `export_fan`.
    """

    def __init__(self, source: Source, **settings: Any) -> None:
        super().__init__()
        self.graph = _load(source, "heatmaps", settings)
        self.config = self.graph.config

    def forward(self, x: Tensor) -> list[Tensor]:
        """Images [N,3,S,S] float32 in [0, 1] -> a list of one: the prediction [N,68,h,w].

        A FAN in torch lists every stack's maps, of which the last counts; only that one is here.
        """
        return [self.graph({"image": x})["heatmaps"]]


class OrtLandmarkLoss(torch.autograd.Function):
    """HeatmapDistance(FAN(image), target), with its gradient to the image, in one run.

    `OrtLandmarkLoss.apply(image, target, weights, graph)`: image [N,3,S,S] in [0, 1], target
    [N,68,h,w], weights [68], all float32, and an `OrtGraph` of "loss-and-gradient". Returns [N].
    Only the image has a gradient, and that gradient has none.
    """

    @staticmethod
    def forward(ctx: Any, image: Tensor, target: Tensor, weights: Tensor, graph: Any) -> Tensor:
        """Compute both; keep the gradient."""
        results = graph({"image": image, "target": target, "weights": weights})
        ctx.save_for_backward(results["gradient"])
        loss: Tensor = results["loss"]
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, None, None, None]:
        """Scale each image's gradient by what its loss is worth, [N]."""
        (gradient,) = ctx.saved_tensors
        return slopes[0][:, None, None, None] * gradient, None, None, None


class LandmarkLoss:
    """`OrtLandmarkLoss` with its graph and weights: (image, target) -> [N].

    Attributes:
        graph: what runs; `graph.provider` says where.
        weights: [68].
        backend: the same in words.

    """

    def __init__(self, graph: OrtGraph, weights: Tensor) -> None:
        self.graph = graph
        self.weights = weights.detach().to(graph.device, torch.float32)
        self.backend = f"onnxruntime {graph.provider}"

    def __call__(self, image: Tensor, target: Tensor) -> Tensor:
        """Images [N,3,S,S] in [0, 1] and target maps [N,68,h,w] -> [N]."""
        loss: Tensor = OrtLandmarkLoss.apply(image, target, self.weights, self.graph)
        return loss


def landmark_loss(
    source: Source, weights: Tensor, reduction: Reduction = "per_landmark", **settings: Any
) -> LandmarkLoss:
    """The landmark loss of a network under onnxruntime, differentiable with respect to the image.

    Args:
        source: a FAN, exported first (or taken from the cache), or a file with its loss.
        weights: one weight per landmark, [68].
        reduction: see `losses.landmark.HeatmapDistance`; a file has one of its own.
        settings: as `OrtGraph`.

    Raises: as `OrtGraph` and `export_fan`; ConfigError also if a file has another reduction.
    """
    graph = _load(source, "loss-and-gradient", settings, reduction)
    if graph.options.reduction != reduction:
        raise ConfigError(
            f"reduction: {graph.path} has {graph.options.reduction!r}, not {reduction!r}"
        )
    return LandmarkLoss(graph, weights)


_LIBRARIES = {
    "tensorrt": "TensorRT 10: pip install 'pyfacelat[tensorrt]'",
    "cuda": "CUDA 13 and cuDNN 9: pip install 'pyfacelat[onnx-gpu]'",
    "cpu": "pip install 'pyfacelat[onnx]'",
}


def _load(
    source: Source, what: What, settings: dict[str, Any], reduction: Reduction | None = None
) -> OrtGraph:
    if not isinstance(source, FAN):
        graph = OrtGraph(source, **settings)
        if graph.options.what != what:
            raise ConfigError(f"source: {source} has {graph.options.what}, {what} is needed")
        return graph
    options = (
        ExportOptions(what=what) if reduction is None else ExportOptions(what, reduction=reduction)
    )
    require("onnxruntime", "running an exported network")
    path = export_fan(source, None, options, cache=settings.get("cache")).path
    settings.setdefault("device", next(iter(source.parameters())).device)
    return OrtGraph(path, **settings)


def _candidates(provider: str, device: torch.device, offered: Sequence[str]) -> list[str]:
    """Providers to try, best first.

    Raises: ConfigError, DeviceError as `OrtGraph`.
    """
    if provider != "auto" and provider not in PROVIDERS:
        raise ConfigError(
            f"provider: expected one of auto, {', '.join(PROVIDERS)}, got {provider!r}"
        )
    fitting = [name for name in PROVIDERS if (name == "cpu") == (device.type == "cpu")]
    if provider != "auto" and provider not in fitting:
        raise DeviceError(
            f"provider: {provider} is not for tensors on {device}; expected one of "
            f"{', '.join(fitting)}"
        )
    wanted = fitting if provider == "auto" else [provider]
    remedy = _LIBRARIES["cuda" if "cuda" in wanted else wanted[0]]
    found = [name for name in wanted if PROVIDERS[name] in offered]
    if not found:
        raise DeviceError(
            f"provider: this onnxruntime has no {' or '.join(wanted)} provider for {device}, only "
            f"{', '.join(offered)}: {remedy}, after pip uninstall onnxruntime"
        )
    return found


def _indexed(device: torch.device) -> torch.device:
    if device.type == "cuda" and device.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return device


def _stream_of(device: torch.device) -> Any:
    """The stream a session runs on, None on the CPU.

    torch's own where that has a handle; the default stream has none that onnxruntime would take,
    so there it is one beside it, which `OrtGraph` orders before and after torch's work.
    """
    if device.type != "cuda":
        return None
    current = torch.cuda.current_stream(device)
    return current if current.cuda_stream else torch.cuda.Stream(device)


def _sizes(shape: Sequence[Any], count: int) -> list[int]:
    """Shape in the file to sizes: the first dimension is the batch where it has a name."""
    return [size if isinstance(size, int) else count for size in shape]
