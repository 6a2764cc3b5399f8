"""The common result of every reader, and the checks that every reader ends with."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .source import Source, shown
from .storages import TensorRecord

__all__ = ["KINDS", "Checkpoint", "check_finite", "check_floating", "check_shapes", "materialise"]

# What this package writes and builds; see zoo for the network that each becomes.
KINDS = (
    "stylegan2-generator",
    "stylegan2-discriminator",
    "stylegan1-generator",
    "fan",
    "vgg16",
    "vgg19",
    "resnet",
    "image-to-latent",
    "lpips-lins",
    "sample-encoder",
    "sample-identity",
    "arcface",
    "s3fd",
    "e4e",
    "face-space",
    "motion-model",
)


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """The content of a weight file.

    Attributes:
        kind: one of `KINDS`.
        config: hyperparameters, JSON values only; the fields of the network's config dataclass.
        tensors: name -> tensor, CPU, contiguous, finite, in the dtype of the file.
        metadata: what else the file says about itself, text only.
        file: the name it was read from.
    """

    kind: str
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    metadata: dict[str, str]
    file: str


def check_shapes(
    source: Source,
    expected: Mapping[str, tuple[int, ...]],
    found: Mapping[str, tuple[int, ...]],
    prefix: str = "",
) -> None:
    """Names and shapes must be exactly the expected ones.

    Raises:
        CheckpointError: the first tensor that is missing, unexpected or of another shape.
    """
    for name, shape in expected.items():
        if name not in found:
            source.fail(
                f"is missing; the config implies it, with shape {list(shape)}", prefix + name
            )
        if tuple(found[name]) != tuple(shape):
            source.fail(
                f"has shape {list(found[name])}, the config implies {list(shape)}", prefix + name
            )
    for name in found:
        if name not in expected:
            source.fail("a tensor that the config does not imply", prefix + shown(name))


def check_floating(source: Source, name: str, dtype: torch.dtype) -> None:
    """Refuse a tensor of another dtype than a floating-point one.

    Raises:
        CheckpointError: naming the tensor and its dtype.
    """
    if not dtype.is_floating_point:
        source.fail(f"has dtype {dtype}, not a floating-point one", name)


def check_finite(source: Source, name: str, tensor: Tensor) -> None:
    """Refuse NaN and infinity in floating-point tensors.

    Raises:
        CheckpointError: naming the tensor and how many of its values are not finite.
    """
    if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta:
        # numpy has no bfloat16; for the rest its single pass beats starting threads per tensor.
        bfloat16 = tensor.dtype == torch.bfloat16
        finite = torch.isfinite(tensor).numpy() if bfloat16 else np.isfinite(tensor.numpy())
        bad = tensor.numel() - int(np.count_nonzero(finite))
        if bad:
            source.fail(f"{bad} of {tensor.numel()} values are not finite", name)


def materialise(
    source: Source, records: Mapping[str, TensorRecord | Tensor], prefix: str = ""
) -> dict[str, Tensor]:
    """Turn records into tensors, each a finite floating-point or integer tensor of its own.

    What is a tensor already has been through all this.

    Raises:
        CheckpointError: the tensors need more bytes than the file has, or are not finite.
    """
    out = {}
    for name, record in records.items():
        if isinstance(record, TensorRecord):
            tensor = record.materialise(source, prefix + name)
            check_finite(source, prefix + name, tensor)
        else:
            tensor = record
        out[name] = tensor
    return out
