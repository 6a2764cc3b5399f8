"""What a file is, without making its tensors: `pyfacelat inspect`.

The readers do all their checks on names, shapes and options; tensors come on the device "meta", so
that no weight is copied, looked at or checked for NaN.
"""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from pyfacelat.errors import CheckpointError

from .arrays import read_arrays
from .checkpoint import Checkpoint
from .reading import LEGACY_MAGIC_BYTES, PARTS, read_source
from .source import Source

__all__ = ["Part", "Summary", "inspect"]

_SHOWN_ARRAYS = 64


@dataclasses.dataclass(frozen=True)
class Part:
    """One network, or the arrays, of a file.

    Attributes:
        part: "generator", "discriminator", "encoder", or "arrays" for latents and the like.
        kind: what it would be read as: one of `checkpoint.KINDS`, or "arrays".
        facts: the hyperparameters that people ask for, by name; for arrays their shapes.
        config: all hyperparameters, JSON values.
        metadata: producer, entry in the file, and what had to be assumed; texts.
        tensors: how many.
        values: how many numbers they hold.
        nbytes: their size in memory, in the dtypes of the file.
        dtypes: dtype -> how many tensors have it.
    """

    part: str
    kind: str
    facts: dict[str, Any]
    config: dict[str, Any]
    metadata: dict[str, str]
    tensors: int
    values: int
    nbytes: int
    dtypes: dict[str, int]


@dataclasses.dataclass(frozen=True)
class Summary:
    """What a file is.

    Attributes:
        file: its name.
        nbytes: its size.
        container: how it is packed.
        parts: what can be read from it; empty for a file that is refused.
        refused: part -> why it cannot be read.
    """

    file: str
    nbytes: int
    container: str
    parts: tuple[Part, ...]
    refused: dict[str, str]

    @property
    def readable(self) -> bool:
        """Whether anything can be read from the file."""
        return bool(self.parts)


def inspect(path: str | os.PathLike[str]) -> Summary:
    """Say what a file is and what would be refused, running nothing in it.

    Every check is made but those of the numbers themselves: checksums and finiteness.

    Args:
        path: a weight file or a file of latents.

    Raises:
        CheckpointError: the file cannot be opened or is no regular file.
        FileNotFoundError: there is no such file.
    """
    source = Source.open(path, values=False)
    parts: list[Part] = []
    refused: dict[str, str] = {}
    for name in PARTS:
        # Every part has the whole allowance of the file.
        again = Source(source.name, source.data.obj, values=False)  # type: ignore[arg-type]
        try:
            checkpoint = read_source(again, part=name)
        except CheckpointError as error:
            refused[name] = f"{error.place}: {error.reason}" if error.place else error.reason
            continue
        if all(checkpoint.kind != part.kind for part in parts):
            # A file with one network is read as that whatever part is asked for.
            parts.append(_network(checkpoint, name))
    if not parts:
        again = Source(source.name, source.data.obj, values=False)  # type: ignore[arg-type]
        try:
            parts.append(_arrays(read_arrays(again)))
            refused = {}
        except CheckpointError as error:
            reason = f"{error.place}: {error.reason}" if error.place else error.reason
            if _container(source).startswith("numpy"):
                refused = {"arrays": reason}
    return Summary(source.name, len(source.data), _container(source), tuple(parts), refused)


def _container(source: Source) -> str:
    start = bytes(source.data[:64])
    if start[:2] == b"PK":
        return "zip of torch.save" if b"/data.pkl" in start else "numpy archive (npz)"
    if start[:6] == b"\x93NUMPY":
        return "numpy array (npy)"
    if start[:1] == b"\x80" and len(start) > 1:
        legacy = LEGACY_MAGIC_BYTES in start[:24]
        kind = "legacy stream of torch.save" if legacy else "pickle"
        return f"{kind}, protocol {start[1]}"
    return "safetensors" if start[8:9] == b"{" else "unknown"


def _counts(tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    dtypes = Counter(str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values())
    return {
        "tensors": len(tensors),
        "values": sum(tensor.numel() for tensor in tensors.values()),
        "nbytes": sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()),
        "dtypes": dict(dtypes.most_common()),
    }


def _network(checkpoint: Checkpoint, part: str) -> Part:
    config = checkpoint.config
    known = part if checkpoint.kind.endswith(part) or checkpoint.kind == "e4e" else checkpoint.kind
    return Part(
        known,
        checkpoint.kind,
        _facts(checkpoint),
        dict(config),
        checkpoint.metadata,
        **_counts(checkpoint.tensors),
    )


def _facts(checkpoint: Checkpoint) -> dict[str, Any]:
    config = checkpoint.config
    if not checkpoint.kind.startswith("stylegan"):
        return {k: v for k, v in config.items() if isinstance(v, (int, float, str))}
    size = config.get("img_resolution")
    out: dict[str, Any] = {"resolution": size, "image channels": config.get("img_channels")}
    if checkpoint.kind.endswith("generator"):
        out |= {"z": config.get("z_dim"), "w": config.get("w_dim")}
        if isinstance(size, int):
            out["rows of w+"] = 2 * (size.bit_length() - 1) - 2
    out["label classes"] = config.get("c_dim", 0)
    if "architecture" in config:
        out["architecture"] = config["architecture"]
    if checkpoint.kind.endswith("generator"):
        out["mapping layers"] = config.get("num_mapping_layers")
        out["noise"] = config.get("use_noise", True)
        out["truncation"] = "mapping.w_avg" in checkpoint.tensors
    out["conv clamp"] = config.get("conv_clamp")
    out["fp16 resolutions"] = config.get("num_fp16_res", 0)
    return out


def _arrays(arrays: Mapping[str, Tensor]) -> Part:
    shown = list(arrays.items())[:_SHOWN_ARRAYS]
    facts = {name or "(no name)": list(tensor.shape) for name, tensor in shown}
    return Part("arrays", "arrays", facts, {}, {}, **_counts(arrays))
