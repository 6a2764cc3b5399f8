"""DECA's deca_model.tar: a file of torch.save with the state dicts of its three networks."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from torch import Tensor

from .layout import Records, Shapes, batch_norm, conv, dense
from .records import InertDict
from .source import Source, shown
from .statedicts import take_exactly
from .storages import TensorRecord
from .torchfile import read_torch_object
from .vision import resnet_tensors

__all__ = ["read_deca"]


def read_deca(path: str | os.PathLike[str]) -> dict[str, dict[str, Tensor]]:
    """Read deca_model.tar: the networks of DECA (Feng et al. 2021, arXiv:2012.04012).

    Returns:
        "E_flame", "E_detail" (ResNet-50 encoders with two dense layers) and "D_detail" (the
        generator of displacement maps), each name -> tensor, in the names of the file.

    Raises:
        CheckpointError: the file is malformed or hostile, or a tensor is missing, unexpected, of a
            wrong shape, or not finite.
        FileNotFoundError: there is no such file.
    """
    source = Source.open(path)
    value: Any = read_torch_object(source)
    if type(value) not in (dict, InertDict) or "E_flame" not in value:
        source.fail("is no checkpoint of DECA: it has no E_flame")
    out: dict[str, dict[str, Tensor]] = {}
    for entry, table in _DECA.items():
        state = value.get(entry)
        if type(state) not in (dict, InertDict):
            source.fail(f"is {shown(state)}, not a state dict", entry)
        records: dict[str, TensorRecord] = {}
        for name, record in state.items():
            if type(record) is not TensorRecord:
                source.fail(f"is {shown(record)}, not a tensor", f"{entry}.{shown(name)}")
            # The classifier of the ResNet, where somebody kept it, takes no part.
            if not str(name).startswith("encoder.fc."):
                records[str(name)] = record
        prefix = f"{entry}."
        out[entry] = take_exactly(source, records, table(source, records, prefix), prefix)
    return out


def _deca_encoder(source: Source, found: Records, prefix: str) -> Shapes:
    out: Shapes = {
        f"encoder.{name}": shape
        for name, shape in resnet_tensors({"blocks": (3, 4, 6, 3), "width": 64}).items()
    }
    dense(out, "layers.0", 2048, 1024)
    dense(out, "layers.2", 1024, _side(source, found, "layers.2.weight", 0, prefix))
    return out


def _deca_decoder(source: Source, found: Records, prefix: str) -> Shapes:
    out: Shapes = {}
    dense(out, "l1.0", _side(source, found, "l1.0.weight", 1, prefix), 128 * 8 * 8)
    batch_norm(out, "conv_blocks.0", 128)
    widths = (128, 128, 64, 64, 32, 16)
    for index, (fan_in, fan_out) in enumerate(zip(widths, widths[1:], strict=False)):
        # Each block: upsampling, convolution, norm, activation.
        conv(out, f"conv_blocks.{4 * index + 2}", fan_in, fan_out, 3)
        batch_norm(out, f"conv_blocks.{4 * index + 3}", fan_out)
    conv(out, "conv_blocks.21", 16, 1, 3)
    return out


_DECA: dict[str, Callable[[Source, Records, str], Shapes]] = {
    "E_flame": _deca_encoder,
    "E_detail": _deca_encoder,
    "D_detail": _deca_decoder,
}


def _side(source: Source, found: Records, name: str, axis: int, prefix: str) -> int:
    """The one side of a dense layer's weight that a config may choose."""
    if name not in found or len(found[name].shape) != 2:
        source.fail("is missing, or no matrix", prefix + name)
    return found[name].shape[axis]
