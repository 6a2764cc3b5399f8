"""StyleGAN2 in the layout of rosinality's stylegan2-pytorch, read and written.

A converted file is a dict with `g_ema` (a state dict) and `latent_avg`; a training checkpoint has
`g`, `d`, `g_ema`, optimisers and the command line. The network is NVIDIA's with a "skip" generator
and a "resnet" discriminator; see `rosinality_names`.

The one difference in the maths is where demodulation adds its 1e-8: to the sum of squares of
weights scaled by 1/sqrt(fan_in) there, of unscaled ones at NVIDIA. Outputs of a layer differ by a
relative 5e-9 / mean((weight * style)^2), which is less than float32 resolves.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pyfacelat.files import write_atomically

from .checkpoint import Checkpoint, check_finite, check_floating, check_shapes, materialise
from .drawn import NOISE_NOTE, drawn_noise
from .filters import DEFAULT_TAPS, outer, stored_filters
from .names import expected_tensors
from .records import InertDict, NamespaceRecord
from .rosinality_names import Names, discriminator_names, generator_names, kernel_gains
from .source import Source, shown
from .storages import TensorRecord

__all__ = [
    "average_in",
    "generator_in",
    "holds_rosinality",
    "read_rosinality",
    "records_of",
    "write_rosinality",
]

# Of the mapping network; not in the file, and an argument of no script that writes such files.
_LR_MULTIPLIER = 0.01
_MAX_LOG2 = 12
_MAX_TENSORS = 4096
_PRODUCER = "rosinality stylegan2-pytorch"


# Reading


def _is_dict(value: object) -> bool:
    return type(value) in (dict, InertDict)


def holds_rosinality(value: object) -> bool:
    """Whether the top object of a file is one of these checkpoints, or such a bare state dict."""
    if not _is_dict(value):
        return False
    names: Mapping[Any, Any] = value  # type: ignore[assignment]
    if any(_is_dict(names.get(entry)) for entry in ("g_ema", "g", "d")):
        return True
    return {"style.1.weight", "input.input", "conv1.conv.weight"} <= names.keys()


def read_rosinality(source: Source, value: Any, part: str, form: str) -> Checkpoint:
    """Read the generator (`g_ema`) or the discriminator (`d`) of a file.

    Args:
        source: the file.
        value: its top object, for which `holds_rosinality` is true.
        part: "generator" or "discriminator".
        form: the container, for the metadata.

    Raises:
        CheckpointError: the part is not in the file, or its tensors are not those of a StyleGAN2.
    """
    entry = {"generator": "g_ema", "discriminator": "d"}.get(part)
    if entry is None:
        source.fail(f"holds a StyleGAN2 in rosinality's layout, and no {part}")
    prefix = f"{entry}."
    state = value.get(entry)
    if "input.input" in value and part == "generator":
        state, prefix = value, ""
    elif not _is_dict(state):
        names = ", ".join(shown(key, 40) for key, _ in zip(value, range(10), strict=False))
        source.fail(f"has no {entry}, the {part}; its entries are: {names}")
    records = records_of(source, state, prefix)
    metadata = {"format": form, "producer": _PRODUCER}
    if prefix:
        metadata["entry"] = entry
    if part == "generator":
        average = average_in(source, value)
        config, tensors, notes = generator_in(source, records, average, prefix)
        metadata.update(notes)
    else:
        config, tensors = _discriminator_in(source, records, prefix)
    arguments = value.get("args")
    if type(arguments) is NamespaceRecord:
        size = arguments.state.get("size", config["img_resolution"])
        if type(size) is not int or size != config["img_resolution"]:
            source.fail(f"is {shown(size)}, tensors say {config['img_resolution']}", "args.size")
    return Checkpoint(f"stylegan2-{part}", config, tensors, metadata, source.name)


def records_of(source: Source, state: Any, prefix: str) -> dict[str, TensorRecord]:
    """A state dict as name -> record; entries that are no tensors are refused."""
    if len(state) > _MAX_TENSORS:
        source.fail(f"{len(state)} entries, more than {_MAX_TENSORS}", prefix.rstrip("."))
    for name, record in state.items():
        if type(name) is not str or type(record) is not TensorRecord:
            source.fail(f"is {shown(record)}, not a tensor", prefix + shown(name))
        check_floating(source, prefix + name, record.dtype)
    return dict(state)


def average_in(source: Source, value: Mapping[Any, Any]) -> TensorRecord | None:
    """The entry `latent_avg` of a file's top object, the mean of w; None if there is none."""
    average = value.get("latent_avg")
    if average is not None and type(average) is not TensorRecord:
        source.fail(f"is {shown(average)}, not a tensor", "latent_avg")
    return average


def generator_in(
    source: Source, records: dict[str, TensorRecord], average: TensorRecord | None, prefix: str
) -> tuple[dict[str, Any], dict[str, Tensor], dict[str, str]]:
    """A generator from its state dict, whose names have lost `prefix`.

    Noise maps, which files of early 2020 lack, are drawn then as that code would draw them, from a
    fixed seed; filters that are missing altogether are the default ones.

    Args:
        source: the file.
        records: their name -> record.
        average: mean of w, [w_dim] or [1, w_dim]; None gives a generator without truncation.
        prefix: what stood before the names, for messages.

    Returns:
        Fields of `GeneratorConfig`; our name -> tensor; notes for the metadata.

    Raises:
        CheckpointError: a tensor is missing, unexpected, of a wrong shape or not finite.
    """
    config = _generator_config(source, records, prefix)
    w_dim = config["w_dim"]
    if average is not None:
        config["w_avg_beta"] = 0.995  # of training; not recorded, of no use here
        if average.size not in ((w_dim,), (1, w_dim)):
            source.fail(f"has shape {list(average.size)}, expected [{w_dim}]", "latent_avg")
    names = generator_names(config)
    notes = {}
    noise = {ours: their for ours, their in names.items() if ours.endswith(".noise_const")}
    silent = not any(theirs in records for theirs, _ in noise.values())
    if silent:
        names = {ours: their for ours, their in names.items() if ours not in noise}
        notes["noise"] = NOISE_NOTE
    taps = _filters(source, records, "stylegan2-generator", config, prefix, notes)
    config["resample_filter"] = taps
    tensors = _renamed(source, records, names, "stylegan2-generator", config, prefix)
    if average is not None:
        mean = materialise(source, {"latent_avg": average})["latent_avg"]
        tensors["mapping.w_avg"] = mean.reshape(w_dim)
    if silent:
        tensors |= drawn_noise(source, {ours: shape[2:] for ours, (_, shape) in noise.items()})
    return config, tensors, notes


def _generator_config(
    source: Source, records: Mapping[str, TensorRecord], prefix: str
) -> dict[str, Any]:
    """Fields of `GeneratorConfig` from shapes; the names and shapes are compared afterwards."""

    def size(name: str, dims: int) -> tuple[int, ...]:
        record = records.get(name)
        if record is None:
            source.fail("is missing; every StyleGAN2 of this layout has it", prefix + name)
        if len(record.size) != dims or not all(0 < side <= 1 << 16 for side in record.size):
            source.fail(f"has shape {list(record.size)}, expected {dims} axes", prefix + name)
        return record.size

    layers = 1
    while f"style.{layers + 1}.weight" in records and layers < 64:
        layers += 1
    w_dim, z_dim = size("style.1.weight", 2)
    log2 = 2
    while f"to_rgbs.{log2 - 2}.bias" in records and log2 < _MAX_LOG2:
        log2 += 1
    channels = {4: size("conv1.conv.weight", 5)[1]}
    for k in range(log2 - 2):
        channels[8 << k] = size(f"convs.{2 * k + 1}.conv.weight", 5)[1]
    return {
        "z_dim": z_dim,
        "c_dim": 0,
        "w_dim": w_dim,
        "img_resolution": 1 << log2,
        "img_channels": size("to_rgb1.bias", 4)[1],
        **_widths(channels),
        "num_fp16_res": 0,
        "conv_clamp": None,
        "architecture": "skip",
        "activation": "lrelu",
        "resample_filter": list(DEFAULT_TAPS),
        "use_noise": True,
        "num_mapping_layers": layers,
        "mapping_layer_features": None,
        "embed_features": None,
        "mapping_activation": "lrelu",
        "mapping_lr_multiplier": _LR_MULTIPLIER,
        "w_avg_beta": None,
    }


def _widths(channels: Mapping[int, int]) -> dict[str, Any]:
    """Channels for each resolution as base and maximum where these say it, else one by one."""
    most = max(channels.values())
    # The published widths: up to `most`, then halved with every doubling of the resolution.
    base = min([32768, *(res * width for res, width in channels.items() if width < most)])
    for candidate in (base, 16384, most * max(channels)):
        if all(min(candidate // res, most) == width for res, width in channels.items()):
            return {"channel_base": candidate, "channel_max": most, "channels": None}
    return {"channel_base": 32768, "channel_max": most, "channels": dict(channels)}


def _discriminator_in(
    source: Source, records: dict[str, TensorRecord], prefix: str
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    log2 = 2
    while f"convs.{log2 - 1}.conv1.0.weight" in records and log2 < _MAX_LOG2:
        log2 += 1
    first = records.get("convs.0.0.weight")
    if first is None or len(first.size) != 4 or log2 < 3:
        source.fail("is no discriminator of this layout", f"{prefix}convs.0.0.weight")
    channels = {1 << log2: first.size[0]}
    for k in range(1, log2 - 1):
        record = records.get(f"convs.{k}.conv2.1.weight")
        if record is None or len(record.size) != 4:
            source.fail("is missing, or has another number of axes", f"{prefix}convs.{k}.conv2")
        channels[1 << (log2 - k)] = record.size[0]
    if not all(0 < width <= 1 << 16 for width in (*channels.values(), first.size[1])):
        source.fail("no channels, or too many", f"{prefix}convs")
    config = {
        "c_dim": 0,
        "img_resolution": 1 << log2,
        "img_channels": first.size[1],
        **_widths(channels),
        "architecture": "resnet",
        "resample_filter": list(DEFAULT_TAPS),
        "activation": "lrelu",
        "conv_clamp": None,
        "num_fp16_res": 0,
        "cmap_dim": None,
        "mbstd_group_size": 4,
        "mbstd_num_channels": 1,
        "num_mapping_layers": 8,
        "mapping_layer_features": None,
        "embed_features": None,
        "mapping_activation": "lrelu",
        "mapping_lr_multiplier": _LR_MULTIPLIER,
    }
    kind = "stylegan2-discriminator"
    config["resample_filter"] = _filters(source, records, kind, config, prefix, {})
    return config, _renamed(source, records, discriminator_names(config), kind, config, prefix)


def _filters(
    source: Source,
    records: dict[str, TensorRecord],
    kind: str,
    config: Mapping[str, Any],
    prefix: str,
    notes: dict[str, str],
) -> list[float]:
    """The taps that all filters of the file have in common; takes the filters out of `records`."""
    gains = kernel_gains(kind, config)
    found = {name: records.pop(name) for name in gains if name in records}
    if not found:
        if gains:
            notes["filters"] = "not in the file; the default [1, 3, 3, 1]"
        return list(DEFAULT_TAPS)
    taps: list[float] | None = None
    for name, gain in gains.items():
        record = found.get(name)
        if record is None:
            source.fail("is missing; other filters are there", prefix + name)
        side = record.size[0] if record.size else 0
        if record.size != (side, side) or not 1 <= side <= 7:
            source.fail(f"a filter of shape {list(record.size)}", prefix + name)
        kernel = record.values(source, prefix + name).double() / gain
        check_finite(source, prefix + name, kernel)
        if taps is None:
            taps = _taps_of(kernel)
        expected = outer(taps).double()
        if expected.shape != kernel.shape or not float((kernel - expected).abs().max()) <= 1e-5:
            source.fail("is not the filter of the others, or not separable", prefix + name)
    assert taps is not None
    return taps


def _taps_of(kernel: Tensor) -> list[float]:
    """Taps whose outer product is `kernel` [k, k] with sum 1, as small integers if they are."""
    line = kernel.sum(1)
    smallest = line.abs()[line != 0].min() if bool(line.any()) else line.new_ones(())
    whole = (line / smallest).round()
    if bool((line / smallest - whole).abs().max() < 1e-4):
        line = whole
    return [float(tap) for tap in line]


def _renamed(
    source: Source,
    records: Mapping[str, TensorRecord],
    names: Names,
    kind: str,
    config: Mapping[str, Any],
    prefix: str,
) -> dict[str, Tensor]:
    """Our name -> tensor, with the filters that our networks hold."""
    found = {theirs: record.size for theirs, record in records.items()}
    check_shapes(source, dict(names.values()), found, prefix)
    shapes = expected_tensors(kind, config)
    own = {theirs: ours for ours, (theirs, _) in names.items()}
    read = materialise(source, records, prefix)
    out = {own[theirs]: tensor.reshape(shapes[own[theirs]]) for theirs, tensor in read.items()}
    return out | stored_filters(kind, config)


# Writing


def write_rosinality(path: str | os.PathLike[str], checkpoint: Checkpoint) -> list[str]:
    """Write a generator as rosinality's convert_weight.py does: `g_ema`, `latent_avg`.

    Args:
        path: the file; replaced if it exists.
        checkpoint: a StyleGAN2 generator as read; tensors are stored as float32.

    Returns:
        Sentences on what the format cannot say, empty if nothing is lost.

    Raises:
        CheckpointError: the network is of another kind, or one that this layout has no names for.
    """
    source = Source(os.fspath(path), b"")
    config = checkpoint.config
    if checkpoint.kind != "stylegan2-generator":
        source.fail(f"{checkpoint.file} holds a {checkpoint.kind}; only generators can be written")
    rules: dict[str, tuple[Any, ...]] = {
        "c_dim": (0,),
        "architecture": ("skip",),
        "activation": ("lrelu",),
        "mapping_activation": ("lrelu",),
        "use_noise": (True,),
        "mapping_layer_features": (None, config.get("w_dim")),
    }
    for field, allowed in rules.items():
        if field in config and config[field] not in allowed:
            source.fail(
                f"{shown(config[field])}; rosinality's layout has {shown(allowed[0])} only", field
            )
    if config["num_mapping_layers"] < 1:
        source.fail("no layers; rosinality's layout has 1 at least", "num_mapping_layers")
    notes = []
    if config.get("conv_clamp") is not None:
        notes.append(
            f"the clamp of activations at {config['conv_clamp']:g} is not part of this format; "
            "pictures differ where it acts"
        )
    # Stored weights of the mapping are scaled by the multiplier when they are used.
    scale = config["mapping_lr_multiplier"] / _LR_MULTIPLIER
    state: dict[str, Tensor] = {}
    for ours, (theirs, shape) in generator_names(config).items():
        value = checkpoint.tensors[ours].float()
        if ours.startswith("mapping.") and not math.isclose(scale, 1.0):
            value = value * scale
        state[theirs] = value.reshape(shape).clone()
    for name, gain in kernel_gains(checkpoint.kind, config).items():
        state[name] = outer(config["resample_filter"]) * gain
    content: dict[str, Any] = {"g_ema": state}
    if "mapping.w_avg" in checkpoint.tensors:
        content["latent_avg"] = checkpoint.tensors["mapping.w_avg"].float().clone()
    else:
        notes.append("the network has no average of w, so latent_avg is left out")
    buffer = io.BytesIO()
    torch.save(content, buffer)
    write_atomically(path, buffer.getvalue())
    return notes
