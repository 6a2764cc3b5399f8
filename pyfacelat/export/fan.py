"""The landmark network as an ONNX file: heat maps, points, or the landmark loss with its gradient.

    what                inputs                                       outputs
    heatmaps            image                                        heatmaps
    landmarks           image                                        points, confidence
    loss-and-gradient   image, target [N,68,h,w], weights [68]       loss [N], gradient [N,3,S,S]

image is [N,3,S,S] in [0, 1]; heatmaps [N,68,h,w], points [N,68,2] relative, confidence [N,68];
gradient is d loss[n] / d image[n]. All of them are float32 whatever the dtype of the weights.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from pyfacelat import zoo
from pyfacelat.errors import ConfigError, ExportError
from pyfacelat.export.graph import Graph, Network
from pyfacelat.export.heads import add_loss, add_points
from pyfacelat.export.packages import require
from pyfacelat.faces.landmarks import heatmaps_to_points
from pyfacelat.losses.landmark import HeatmapDistance, Reduction
from pyfacelat.nets.fan import FAN, FANConfig, fold_batchnorm
from pyfacelat.version import __version__

__all__ = ["ExportOptions", "ExportReport", "cache_dir", "export_fan", "read_options"]

What = Literal["heatmaps", "landmarks", "loss-and-gradient"]
DType = Literal["fp32", "fp16"]
Progress = Callable[[str], None]

_OPSETS = range(18, 24)
_IR_VERSION = 10  # that of ONNX 1.16 and opset 21; onnxruntime refuses files newer than itself
# Gradients of a few 1e-6 are zero in float16, so they travel through the network enlarged.
_FP16_GRADIENT_SCALE = 1024.0
# Relative L2 between the file and torch. A float32 gradient is not continuous: where rounding turns
# one ReLU, a share of about 1e-3 changes in any implementation. A wrong graph is off by about 1.
_TOLERANCES = {
    ("fp32", "gradient"): 1e-2,
    ("fp32", ""): 1e-5,
    ("fp16", "gradient"): 0.25,
    ("fp16", ""): 2e-2,
}
_METADATA = "pyfacelat"


@dataclasses.dataclass(frozen=True)
class ExportOptions:
    """What is exported, and how.

    Attributes:
        what: "heatmaps", "landmarks" or "loss-and-gradient".
        batch: number of images, >= 1, or "dynamic".
        dtype: of the weights and of what is between input and output: "fp32" or "fp16".
        opset: ONNX operator set, 18 to 23.
        reduction: of the loss, see `losses.landmark.HeatmapDistance`.

    Raises:
        ConfigError: a value out of range; the message names field, rule and value.

    """

    what: What = "heatmaps"
    batch: int | Literal["dynamic"] = "dynamic"
    dtype: DType = "fp32"
    opset: int = 20
    reduction: Reduction = "per_landmark"

    def __post_init__(self) -> None:
        for field, kind in (("what", What), ("dtype", DType), ("reduction", Reduction)):
            value = getattr(self, field)
            if value not in get_args(kind):
                choices = ", ".join(get_args(kind))
                raise ConfigError(f"{field}: expected one of {choices}, got {value!r}")
        whole = isinstance(self.batch, int) and not isinstance(self.batch, bool)
        if self.batch != "dynamic" and (not whole or int(self.batch) < 1):
            raise ConfigError(f'batch: expected an integer >= 1 or "dynamic", got {self.batch!r}')
        if self.opset not in _OPSETS:
            bounds = f"{_OPSETS[0]} to {_OPSETS[-1]}"
            raise ConfigError(f"opset: expected an integer from {bounds}, got {self.opset!r}")


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_fan` made.

    Attributes:
        path: the file.
        options: what is in it.
        nodes: number of ONNX nodes.
        size: bytes.
        differences: relative L2 between the file under onnxruntime and torch, by output; empty
            where the file was in the cache.
        cached: whether it was there already.
        seconds: how long it took.

    """

    path: Path
    options: ExportOptions
    nodes: int
    size: int
    differences: dict[str, float]
    cached: bool
    seconds: float


def cache_dir() -> Path:
    """Where exported files are kept: the folder `export` beside that of the weights.

    $PYFACELAT_HOME/export, by default ~/.cache/pyfacelat/export.
    """
    return zoo.weights_dirs()[0].parent / "export"


def export_fan(
    fan: FAN,
    out: str | os.PathLike[str] | None = None,
    options: ExportOptions | None = None,
    *,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> ExportReport:
    """Write a landmark network as an ONNX file that was compared with torch.

    The file is made in the cache folder, under a name of the hash of weights and options, and is
    there only once it has passed the ONNX checker and computes what torch computes.

    Args:
        fan: the network, as trained or folded by `fold_batchnorm`; not changed.
        out: where the file goes; None leaves it in the cache folder.
        options: default: heat maps of any number of images, in fp32.
        cache: folder, instead of `cache_dir()`.
        progress: called with a sentence at the beginning of each part of the work.

    Returns:
        an `ExportReport`.

    Raises:
        ConfigError: loss or points of a network that has other than 68 landmarks.
        ExportError: the file does not compute what torch computes, or the folder is not writable.
        MissingPackageError: onnx or onnxruntime is not installed.
    """
    began = time.perf_counter()
    options = options or ExportOptions()
    say = progress or (lambda _: None)
    onnx = require("onnx", "export to ONNX")
    require("onnxruntime", "comparing an ONNX file with torch")
    if options.what != "heatmaps" and fan.config.num_landmarks != 68:
        raise ConfigError(
            f"what: {options.what} is for 68 landmarks, the network has {fan.config.num_landmarks}"
        )
    net = _prepared(fan)
    kept = Path(cache) if cache is not None else cache_dir()
    kept = kept / _name(net, options)
    differences: dict[str, float] = {}
    cached = _intact(onnx, kept)
    if not cached:
        say(f"building the graph of {options.what}")
        model = _model(onnx, net, options)
        say("checking it and comparing it with torch")

        def check(path: Path) -> None:
            onnx.checker.check_model(str(path), full_check=True)
            differences.update(_compare(path, net, options))

        _write(kept, lambda path: onnx.save(model, str(path)), check)
    path = kept
    if out is not None:
        path = Path(out)
        say(f"writing {path}")
        _write(path, lambda temporary: shutil.copyfile(kept, temporary))
    nodes = len(onnx.load(str(path), load_external_data=False).graph.node)
    seconds = time.perf_counter() - began
    return ExportReport(path, options, nodes, path.stat().st_size, differences, cached, seconds)


def read_options(path: str | os.PathLike[str]) -> tuple[ExportOptions, FANConfig]:
    """What an exported file says about itself.

    Raises:
        ExportError: it is absent, no ONNX file, or not one that `export_fan` wrote.
        MissingPackageError: onnx is not installed.
    """
    onnx = require("onnx", "reading an ONNX file")
    if not Path(path).is_file():
        raise ExportError(f"{path}: no such file")
    try:
        model = onnx.load(str(path), load_external_data=False)
        text = {entry.key: entry.value for entry in model.metadata_props}[_METADATA]
        said = json.loads(text)
        return ExportOptions(**said["options"]), FANConfig(**said["config"])
    except Exception as error:  # protobuf has its own; whatever it is, the file is not ours
        raise ExportError(f"{path}: not a landmark network exported by pyfacelat") from error


class _Prediction(nn.Module):
    """The last stack's heat maps: what counts."""

    def __init__(self, fan: FAN) -> None:
        super().__init__()
        self.fan = fan

    def forward(self, x: Tensor) -> Tensor:
        """[N,3,S,S] -> [N,68,h,w]."""
        maps: list[Tensor] = self.fan(x)
        return maps[-1]


def _prepared(fan: FAN) -> _Prediction:
    """The network folded, on the CPU and in float32."""
    if not isinstance(fan.bn1, nn.Identity):  # that is what folding leaves of it
        with torch.random.fork_rng(devices=[]):
            fan = fold_batchnorm(fan)
    if next(iter(fan.parameters())).dtype != torch.float32 or fan.conv1.weight.is_cuda:
        fan = copy.deepcopy(fan).to("cpu", torch.float32)
    return _Prediction(fan).eval()


def _name(net: _Prediction, options: ExportOptions) -> str:
    """File name in the cache: readable, and different for different weights or options."""
    digest = hashlib.sha256(f"{__version__} {options} {net.fan.config}".encode())
    for name, tensor in sorted(net.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().contiguous().numpy().tobytes())
    parts = [options.what, str(options.batch), options.dtype, f"opset{options.opset}"]
    if options.what == "loss-and-gradient":
        parts.insert(1, options.reduction)
    return f"fan-{'-'.join(parts)}-{digest.hexdigest()[:16]}.onnx"


def _intact(onnx: Any, path: Path) -> bool:
    """Whether a file is in the cache and readable; a damaged one is made again."""
    if not path.is_file():
        return False
    try:
        onnx.checker.check_model(str(path))
    except Exception:  # whatever is wrong with it
        return False
    return True


def _model(onnx: Any, net: _Prediction, options: ExportOptions) -> Any:
    config = net.fan.config
    half = options.dtype == "fp16"
    graph = Graph(np.float16 if half else np.float32)
    network = Network(graph, net, config.divisor)
    image = graph.cast("image", np.float16) if half else "image"
    maps = network.forward(image)
    maps = graph.cast(maps, np.float32) if half else maps

    count: int | str = "N" if options.batch == "dynamic" else options.batch
    map_shape = [count, config.num_landmarks, config.map_size, config.map_size]
    image_shape = [count, 3, config.input_size, config.input_size]
    inputs, outputs = {"image": image_shape}, {}
    if options.what == "heatmaps":
        outputs["heatmaps"] = map_shape
        graph.rename(maps, "heatmaps")
    elif options.what == "landmarks":
        outputs["points"], outputs["confidence"] = [count, 68, 2], [count, 68]
        for value, name in zip(add_points(graph, maps, config.map_size), outputs, strict=True):
            graph.rename(value, name)
    else:
        inputs["target"], inputs["weights"] = map_shape, [68]
        outputs["loss"], outputs["gradient"] = [count], image_shape
        loss, slope = add_loss(
            graph, maps, "target", "weights", options.reduction, config.map_size**2
        )
        if half:
            scale = graph.constant(_FP16_GRADIENT_SCALE, np.float32)
            slope = graph.cast(graph.add("Mul", [slope, scale]), np.float16)
        gradient = network.backward(slope)
        if half:
            gradient = graph.add("Div", [graph.cast(gradient, np.float32), scale])
        graph.rename(loss, "loss")
        graph.rename(gradient, "gradient")
    graph.prune(list(outputs))

    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            f"fan-{options.what}",
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, kind, shape) for name, shape in outputs.items()],
            graph.constants,
        ),
        opset_imports=[helper.make_opsetid("", options.opset)],
        ir_version=_IR_VERSION,
        producer_name="pyfacelat",
        producer_version=__version__,
    )
    said = {"options": dataclasses.asdict(options), "config": dataclasses.asdict(config)}
    helper.set_model_props(model, {_METADATA: json.dumps(said)})
    return model


def _compare(path: Path, net: _Prediction, options: ExportOptions) -> dict[str, float]:
    """Relative L2 between file and torch by output, on random images.

    Raises:
        ExportError: one is above its tolerance.
    """
    ort = require("onnxruntime", "comparing an ONNX file with torch")
    config, draw = net.fan.config, torch.Generator().manual_seed(0)
    count = 2 if options.batch == "dynamic" else options.batch
    image = torch.rand(count, 3, config.input_size, config.input_size, generator=draw)
    feeds = {"image": image}
    expected: Sequence[Tensor]
    if options.what == "loss-and-gradient":
        cells = (count, 68, config.map_size, config.map_size)
        feeds["target"] = torch.rand(cells, generator=draw)
        feeds["weights"] = torch.rand(68, generator=draw) + 0.1
        image.requires_grad_()
        distance = HeatmapDistance(feeds["weights"], options.reduction)
        loss = distance(net(image), feeds["target"])
        expected = [loss.detach(), *torch.autograd.grad(loss.sum(), image)]
    else:
        with torch.no_grad():
            maps = net(image)
        expected = [maps] if options.what == "heatmaps" else heatmaps_to_points(maps)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    found = session.run(names, {name: value.detach().numpy() for name, value in feeds.items()})
    differences = {}
    for name, value, truth in zip(names, found, expected, strict=True):
        error = torch.from_numpy(value).double() - truth.double()
        differences[name] = float(error.norm() / truth.double().norm().clamp_min(1e-30))
        # float16 rounding may move the highest cell of a map that has no clear peak.
        if name == "points" and options.dtype == "fp16":
            differences[name] = float(error.abs().amax(-1).median())
        tolerance = _TOLERANCES[options.dtype, "gradient" if name == "gradient" else ""]
        if not differences[name] <= tolerance:
            raise ExportError(
                f"export: {name} of the {options.what} file differs from torch by "
                f"{differences[name]:.2g} (relative L2), more than {tolerance:g}; nothing was kept"
            )
    return differences


def _write(
    path: Path, write: Callable[[Path], Any], check: Callable[[Path], None] | None = None
) -> None:
    """Write a file under a temporary name, check it, and rename it into place."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(suffix=".onnx", prefix=".", dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
    temporary = Path(name)
    try:
        write(temporary)
        if check is not None:
            check(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        raise ExportError(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()
