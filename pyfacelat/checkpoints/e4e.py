"""Checkpoints of e4e and pSp: an encoder, the generator it was trained for, and the average w.

A file is a dict with `state_dict` (names begin with "encoder." or "decoder."), `opts` (the options
of the training run, a dict or an argparse.Namespace), and `latent_avg` unless `opts` says that
latents do not start from it. The decoder is rosinality's generator.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from .checkpoint import Checkpoint
from .irse import e4e_layout
from .records import InertDict, NamespaceRecord
from .rosinality import average_in, generator_in, records_of
from .source import Source, shown
from .statedicts import take, without_prefix
from .storages import Storage, TensorRecord

__all__ = ["holds_e4e", "read_e4e"]

# Class of the encoder -> whether rows are differences from row 0.
_ENCODERS = {"Encoder4Editing": True, "GradualStyleEncoder": False}

_FLOAT = torch.float32


def holds_e4e(value: object) -> bool:
    """Whether the top object of a file is such a checkpoint."""
    return type(value) in (dict, InertDict) and {"state_dict", "opts"} <= value.keys()  # type: ignore[attr-defined]


def read_e4e(source: Source, value: Mapping[Any, Any], part: str, form: str) -> Checkpoint:
    """Read the encoder, or the generator that is its decoder.

    Args:
        source: the file.
        value: its top object, for which `holds_e4e` is true.
        part: "encoder" or "generator".
        form: the container, for the metadata.

    Raises:
        CheckpointError: the file has no such part, its encoder is of another architecture, or its
            tensors, options and average do not fit together.
    """
    state, opts = value["state_dict"], value["opts"]
    if type(opts) is NamespaceRecord:
        opts = opts.state
    for name, item in (("state_dict", state), ("opts", opts)):
        if type(item) not in (dict, InertDict):
            source.fail(f"is {shown(item)}, not a dict", name)
    average = average_in(source, value)
    parts: dict[str, dict[str, Any]] = {"encoder": {}, "decoder": {}}
    for name, record in without_prefix(state).items():
        head, _, rest = name.partition(".") if type(name) is str else ("", "", "")
        if head not in parts:
            source.fail("is neither of the encoder nor of the decoder", shown(name))
        parts[head][rest] = record
    entry = {"encoder": "encoder", "generator": "decoder"}.get(part, "")
    if not parts.get(entry):
        source.fail(f"is a checkpoint of e4e or pSp without a {part}", "state_dict")
    prefix = f"state_dict.{entry}."
    records = parts[entry]
    metadata = {"format": form, "producer": "e4e or pSp", "entry": f"state_dict.{entry}"}
    if part == "generator":
        row = None if average is None else _row(source, average)
        config, tensors, notes = generator_in(
            source, records_of(source, records, prefix), row, prefix
        )
        return Checkpoint(
            "stylegan2-generator", config, tensors, {**metadata, **notes}, source.name
        )
    for name, record in records.items():
        if type(record) is not TensorRecord:
            source.fail(f"is {shown(record)}, not a tensor", prefix + shown(name))
        if name == "latent_avg":
            source.fail("is a tensor that no encoder has", prefix + name)
    kind = opts.get("encoder_type")
    if type(kind) is not str or kind not in _ENCODERS:
        source.fail(
            f"is an encoder of type {shown(kind)}; known are {', '.join(_ENCODERS)}",
            "opts.encoder_type",
        )
    layout = e4e_layout(source, records, prefix, relative=_ENCODERS[kind])
    rows = layout.config["num_ws"]
    for option in ("stylegan_size", "output_size"):
        size = opts.get(option)
        if type(size) is int and 2 * (size.bit_length() - 1) - 2 != rows:
            source.fail(f"is {size}, while the encoder has {rows} rows", f"opts.{option}")
    records["latent_avg"] = _average(source, average, opts, rows, layout.config["w_dim"])
    tensors = take(source, records, layout, prefix)
    return Checkpoint(
        layout.kind, layout.config, tensors, {**metadata, "encoder": kind}, source.name
    )


def _row(source: Source, average: TensorRecord) -> TensorRecord:
    """The average w, which is stored once or once for every row."""
    if not 1 <= len(average.size) <= 2 or not average.numel:
        reason = f"has shape {list(average.size)}, expected [w_dim] or [rows, w_dim]"
        source.fail(reason, "latent_avg")
    return TensorRecord(average.storage, average.offset, average.size[-1:], average.stride[-1:])


def _average(
    source: Source, average: TensorRecord | None, opts: Mapping[Any, Any], rows: int, w_dim: int
) -> TensorRecord:
    """What is added to every latent, [rows, w_dim]: the average, or zeros."""
    start = opts.get("start_from_latent_avg", True)
    if type(start) is not bool:
        source.fail(f"is {shown(start)}, not True or False", "opts.start_from_latent_avg")
    if not start:
        storage = Storage("zero", _FLOAT, 1)
        storage.data = memoryview(bytes(_FLOAT.itemsize))
        return TensorRecord(storage, 0, (rows, w_dim), (0, 0))
    if average is None:
        source.fail(
            "is missing, and opts say that latents start from it (start_from_latent_avg)",
            "latent_avg",
        )
    if average.size == (rows, w_dim):
        return average
    if average.size not in ((w_dim,), (1, w_dim)):
        source.fail(
            f"has shape {list(average.size)}, expected [{w_dim}] or [{rows}, {w_dim}]",
            "latent_avg",
        )
    # The same numbers in every row.
    return TensorRecord(average.storage, average.offset, (rows, w_dim), (0, average.stride[-1]))
