"""Who computes the landmark term of a projection: torch, or another engine behind one signature."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError
from pyfacelat.losses.landmark import HeatmapDistance, Landmarker
from pyfacelat.nets.fan import FAN
from pyfacelat.projection.config import ProjectionConfig

# Engines are built on projection's own floor or above, so they are known here by name only, and
# imported when asked for. Each is a function (fan, weights, reduction) -> (image in [0, 1], maps)
# -> [N], with an attribute `backend` that says what runs.
_ENGINES = {"onnx": ("pyfacelat.export.runtime", "landmark_loss")}


@dataclass(frozen=True)
class LandmarkTerm:
    """The landmark term.

    Attributes:
        distance: images [N,3,R,R] in [-1, 1], target maps [N,68,h,w], and each landmark's
            confidence [N,68] or None -> [N].
        backend: what computes it, in words.
        of_maps: the same from the images' own maps, or None where the engine does not show them.

    """

    distance: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    backend: str
    of_maps: Callable[[Tensor, Tensor, Tensor | None], Tensor] | None = None


def landmark_term(
    config: ProjectionConfig, landmarker: Landmarker, *, device: torch.device, dtype: torch.dtype
) -> LandmarkTerm:
    """The term as `config.landmark_backend` says.

    Raises:
        ConfigError: the engine is not for this landmark network, or this dtype.
        DeviceError, ExportError, MissingPackageError: the engine cannot be had.

    """
    weights = torch.tensor(config.group_weights, device=device, dtype=dtype)
    if config.landmark_backend == "torch":
        distance = HeatmapDistance(weights, config.reduction)
        return LandmarkTerm(
            lambda images, maps, confidence: distance(landmarker(images), maps, confidence),
            "torch",
            distance,
        )
    chosen = f"landmark_backend: {config.landmark_backend!r}"
    net = landmarker.net
    if not isinstance(net, FAN) or landmarker.size != net.config.input_size:
        raise ConfigError(f"{chosen} is for a FAN at its own size, got {type(net).__name__}")
    if config.confidence:
        raise ConfigError(f"{chosen} has one weight per landmark and takes no confidence")
    if dtype != torch.float32:
        raise ConfigError(f"{chosen} computes in float32, got dtype {dtype}")
    module, function = _ENGINES[config.landmark_backend]
    engine = getattr(importlib.import_module(module), function)(net, weights, config.reduction)
    return LandmarkTerm(
        lambda images, maps, _: engine(landmarker.prepare(images), maps), engine.backend
    )
