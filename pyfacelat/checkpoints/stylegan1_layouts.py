"""What the layouts of StyleGAN (2019) call its tensors, and the way back; see `stylegan1`."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .source import Source
from .storages import TensorRecord

__all__ = ["LAYOUTS", "Layout", "Rule"]

_FUSED_FROM = 128
_MAX_LOG2 = 12
_BLUR = (1.0, 2.0, 1.0)

_Shape = tuple[int, ...]


class Rule(NamedTuple):
    """How one of our tensors is made: its name and shape in the file, and the way back."""

    name: str
    shape: _Shape
    make: Callable[[Tensor], Tensor]


def _same(x: Tensor) -> Tensor:
    return x


def _first(x: Tensor) -> Tensor:
    return x[0]


def _turned(x: Tensor) -> Tensor:
    return x.flip(2, 3)


def _oihw(x: Tensor) -> Tensor:
    return x.permute(3, 2, 0, 1)


def _hwio(shape: _Shape) -> _Shape:
    return shape[2], shape[3], shape[1], shape[0]


def _fused(x: Tensor) -> Tensor:
    """HWIO, turned."""
    return _oihw(x).flip(2, 3)


def _smaller(x: Tensor) -> Tensor:
    return x / math.sqrt(2)


class Layout:
    """What the layouts have in common: sizes from shapes, and names from tables."""

    sign = ""  # a name that only this layout has
    producer = ""
    out_axis = 0  # of a convolution's weight

    def __init__(self, source: Source, records: dict[str, TensorRecord]) -> None:
        self.source = source
        self.records = records

    def size(self, name: str, dims: int) -> _Shape:
        """The shape of a tensor that must be there, with `dims` axes."""
        record = self.records.get(name)
        if record is None:
            self.source.fail("is missing; every StyleGAN of this layout has it", name)
        if len(record.size) != dims or not all(0 < side <= 1 << 16 for side in record.size):
            self.source.fail(f"has shape {list(record.size)}, expected {dims} axes", name)
        return record.size

    def dense(self, i: int, leaf: str) -> str:
        """Their name of a layer of the mapping."""
        raise NotImplementedError

    def convolution(self, res: int, layer: str) -> str:
        """Their name of the weight of a convolution; layer is conv0 or conv1."""
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """Fields of `StyleGAN1Config`."""
        raise NotImplementedError

    def rules(self, shapes: Mapping[str, _Shape], config: Mapping[str, Any]) -> dict[str, Rule]:
        """Our name -> rule, of everything but filters and maps of noise that are not there."""
        raise NotImplementedError

    def drop(self, config: Mapping[str, Any]) -> None:
        """Take out of the records what a finished network does not use, after checking it."""
        raise NotImplementedError

    def level_of_detail(self, name: str) -> None:
        """Take out the level of detail, which is 0 once the network has grown to its size."""
        level = self.records.pop(name, None)
        if level is not None and not (
            level.size == () and float(level.values(self.source, name)) == 0.0
        ):
            self.source.fail("is not 0: the network has not grown to the end", name)

    def common_config(self, res: int, colours: int, average: bool) -> dict[str, Any]:
        """Fields of `StyleGAN1Config`, the widths and the mapping from shapes."""
        layers = 1
        while self.dense(layers, "weight") in self.records and layers < 64:
            layers += 1
        # Both channels of the second convolution of a resolution are its width.
        channels = {
            1 << log2: self.size(self.convolution(1 << log2, "conv1"), 4)[self.out_axis]
            for log2 in range(2, res.bit_length())
        }
        # Out and in, or in and out.
        order = 1 if self.out_axis == 0 else -1
        w_dim = self.size(self.dense(layers - 1, "weight"), 2)[::order][0]
        hidden, z_dim = self.size(self.dense(0, "weight"), 2)[::order]
        return {
            "z_dim": z_dim,
            "c_dim": 0,
            "w_dim": w_dim,
            "img_resolution": res,
            "img_channels": colours,
            "channel_base": 16384,
            "channel_max": 512,
            "channels": channels,
            "architecture": "orig",
            "activation": "lrelu",
            "resample_filter": list(_BLUR),
            "conv_clamp": None,
            "num_fp16_res": 0,
            "use_noise": True,
            "num_mapping_layers": layers,
            "mapping_layer_features": hidden if layers > 1 else None,
            "embed_features": None,
            "mapping_activation": "lrelu",
            "mapping_lr_multiplier": 0.01,
            "w_avg_beta": 0.995 if average else None,
        }

    def blur(self, name: str, width: int) -> None:
        """Take a blur's kernel out of the records, after comparing it."""
        record = self.records.pop(name, None)
        if record is None:
            return
        if record.size != (width, 1, 3, 3):
            self.source.fail(f"has shape {list(record.size)}, expected [{width}, 1, 3, 3]", name)
        line = torch.tensor(_BLUR) / 4
        kernel = record.values(self.source, name).float()
        if not float((kernel - line[:, None] * line).abs().max()) <= 1e-5:
            self.source.fail("is not the blur [1, 2, 1] of StyleGAN", name)


class _Lernapparat(Layout):
    sign = "g_synthesis.blocks.4x4.const"
    producer = "lernapparat's port of StyleGAN"

    def dense(self, i: int, leaf: str) -> str:
        return f"g_mapping.dense{i}.{leaf}"

    def convolution(self, res: int, layer: str) -> str:
        name = {"conv0": "conv0_up", "conv1": "conv1" if res > 4 else "conv"}[layer]
        return f"g_synthesis.blocks.{res}x{res}.{name}.weight"

    def config(self) -> dict[str, Any]:
        log2 = 2
        while self.convolution(2 << log2, "conv1") in self.records and log2 < _MAX_LOG2:
            log2 += 1
        colours = self.size("g_synthesis.torgb.weight", 4)[0]
        return self.common_config(1 << log2, colours, "truncation.avg_latent" in self.records)

    def rules(self, shapes: Mapping[str, _Shape], config: Mapping[str, Any]) -> dict[str, Rule]:
        out = {}
        for ours, shape in shapes.items():
            if ours.endswith(("resample_filter", "noise_const")):
                continue
            out[ours] = self._rule(ours, shape)
        return out

    def _rule(self, ours: str, shape: _Shape) -> Rule:
        if ours == "mapping.w_avg":
            return Rule("truncation.avg_latent", shape, _same)
        mapping = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", ours)
        if mapping:
            make = _smaller if mapping[2] == "bias" else _same
            return Rule(self.dense(int(mapping[1]), mapping[2]), shape, make)
        if ours.startswith("synthesis.torgb."):
            return Rule(f"g_{ours}", shape, _same)
        _, block, *rest = ours.split(".")
        res = int(block[1:])
        scope = f"g_synthesis.blocks.{res}x{res}"
        if rest == ["const"]:
            return Rule(f"{scope}.const", (1, *shape), _first)
        layer, leaf = rest[0], ".".join(rest[1:])
        if leaf == "weight":
            fused = layer == "conv0" and res >= _FUSED_FROM
            return Rule(self.convolution(res, layer), shape, _turned if fused else _same)
        if leaf == "bias":
            first = res == 4 and layer == "conv0"
            name = f"{scope}.bias" if first else self.convolution(res, layer)[:-6] + "bias"
            return Rule(name, shape, _same)
        epilogue = f"{scope}.epi{1 if layer == 'conv0' else 2}"
        if leaf == "noise_strength":
            return Rule(f"{epilogue}.top_epi.noise.weight", shape, _same)
        return Rule(f"{epilogue}.style_mod.lin.{leaf.removeprefix('affine.')}", shape, _same)

    def drop(self, config: Mapping[str, Any]) -> None:
        for res in config["channels"]:
            self.blur(f"g_synthesis.blocks.{res}x{res}.conv0_up.intermediate.kernel", 1)


class _Genforce(Layout):
    sign = "synthesis.layer0.first_layer"
    producer = "genforce's port of StyleGAN"

    def dense(self, i: int, leaf: str) -> str:
        return f"mapping.dense{i}." + {"weight": "linear.weight", "bias": "wscale.bias"}[leaf]

    def layer(self, res: int, layer: str) -> str:
        return f"synthesis.layer{2 * res.bit_length() - 6 + int(layer == 'conv1')}"

    def convolution(self, res: int, layer: str) -> str:
        fused = layer == "conv0" and res >= _FUSED_FROM
        return f"{self.layer(res, layer)}.{'weight' if fused else 'conv.weight'}"

    def config(self) -> dict[str, Any]:
        log2 = 2
        while self.convolution(2 << log2, "conv1") in self.records and log2 < _MAX_LOG2:
            log2 += 1
        colours = self.size(f"synthesis.output{log2 - 2}.conv.weight", 4)[0]
        return self.common_config(1 << log2, colours, "truncation.w_avg" in self.records)

    def rules(self, shapes: Mapping[str, _Shape], config: Mapping[str, Any]) -> dict[str, Rule]:
        names = [name for name in shapes if not name.endswith("resample_filter")]
        last = config["img_resolution"].bit_length() - 3
        return {ours: self._rule(ours, shapes[ours], last) for ours in names}

    def _rule(self, ours: str, shape: _Shape, last: int) -> Rule:
        if ours == "mapping.w_avg":
            return Rule("truncation.w_avg", shape, _same)
        mapping = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", ours)
        if mapping:
            make = _smaller if mapping[2] == "bias" else _same
            return Rule(self.dense(int(mapping[1]), mapping[2]), shape, make)
        if ours == "synthesis.torgb.weight":
            return Rule(f"synthesis.output{last}.conv.weight", shape, _same)
        if ours == "synthesis.torgb.bias":
            return Rule(f"synthesis.output{last}.bias", shape, _same)
        _, block, *rest = ours.split(".")
        res = int(block[1:])
        if rest == ["const"]:
            return Rule("synthesis.layer0.first_layer", (1, *shape), _first)
        layer, leaf = rest[0], ".".join(rest[1:])
        scope = self.layer(res, layer)
        if leaf == "weight":
            name = self.convolution(res, layer)
            if name.endswith(".conv.weight"):
                return Rule(name, shape, _same)
            return Rule(name, (*shape[2:], shape[1], shape[0]), _fused)
        if leaf == "noise_const":
            return Rule(f"{scope}.epilogue.apply_noise.noise", (1, 1, *shape), lambda x: x[0, 0])
        name = {
            "bias": "bias",
            "noise_strength": "apply_noise.weight",
            "affine.weight": "style_mod.dense.linear.weight",
            "affine.bias": "style_mod.dense.wscale.bias",
        }[leaf]
        return Rule(f"{scope}.epilogue.{name}", shape, _same)

    def drop(self, config: Mapping[str, Any]) -> None:
        self.level_of_detail("synthesis.lod")
        self.records.pop("truncation.truncation", None)
        last = config["img_resolution"].bit_length() - 3
        for k in range(last):
            for leaf in ("conv.weight", "bias"):
                self.records.pop(f"synthesis.output{k}.{leaf}", None)
        for res, width in config["channels"].items():
            if res > 4:
                self.blur(f"{self.layer(res, 'conv0')}.blur.kernel", width)


class _Official(Layout):
    sign = "synthesis/4x4/Const/StyleMod/weight"
    producer = "NVIDIA StyleGAN"
    out_axis = 3

    def dense(self, i: int, leaf: str) -> str:
        return f"mapping/Dense{i}/{leaf}"

    def scope(self, res: int, layer: str) -> str:
        names = ("Const", "Conv") if res == 4 else ("Conv0_up", "Conv1")
        return f"synthesis/{res}x{res}/{names[layer == 'conv1']}"

    def convolution(self, res: int, layer: str) -> str:
        return f"{self.scope(res, layer)}/weight"

    def config(self) -> dict[str, Any]:
        log2 = 2
        while self.convolution(2 << log2, "conv1") in self.records and log2 < _MAX_LOG2:
            log2 += 1
        colours = self.size("synthesis/ToRGB_lod0/weight", 4)[3]
        return self.common_config(1 << log2, colours, "dlatent_avg" in self.records)

    def rules(self, shapes: Mapping[str, _Shape], config: Mapping[str, Any]) -> dict[str, Rule]:
        names = [name for name in shapes if not name.endswith("resample_filter")]
        return {ours: self._rule(ours, shapes[ours]) for ours in names}

    def _rule(self, ours: str, shape: _Shape) -> Rule:
        if ours == "mapping.w_avg":
            return Rule("dlatent_avg", shape, _same)
        mapping = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", ours)
        if mapping:
            name = self.dense(int(mapping[1]), mapping[2])
            return Rule(name, shape[::-1], _smaller if mapping[2] == "bias" else Tensor.t)
        if ours.startswith("synthesis.torgb."):
            name = f"synthesis/ToRGB_lod0/{ours.rsplit('.', 1)[1]}"
            return Rule(name, _hwio(shape), _oihw) if len(shape) == 4 else Rule(name, shape, _same)
        _, block, *rest = ours.split(".")
        res = int(block[1:])
        if rest == ["const"]:
            return Rule("synthesis/4x4/Const/const", (1, *shape), _first)
        layer, leaf = rest[0], ".".join(rest[1:])
        scope = self.scope(res, layer)
        if leaf == "weight":
            fused = layer == "conv0" and res >= _FUSED_FROM
            return Rule(f"{scope}/weight", _hwio(shape), _fused if fused else _oihw)
        if leaf == "noise_const":
            index = 2 * res.bit_length() - 6 + int(layer == "conv1")
            return Rule(f"synthesis/noise{index}", (1, 1, *shape), lambda x: x[0, 0])
        if leaf == "affine.weight":
            return Rule(f"{scope}/StyleMod/weight", shape[::-1], Tensor.t)
        names = {"bias": "bias", "noise_strength": "Noise/weight", "affine.bias": "StyleMod/bias"}
        return Rule(f"{scope}/{names[leaf]}", shape, _same)

    def drop(self, config: Mapping[str, Any]) -> None:
        self.level_of_detail("synthesis/lod")
        self.records.pop("lod", None)
        for k in range(1, len(config["channels"])):
            for leaf in ("weight", "bias"):
                self.records.pop(f"synthesis/ToRGB_lod{k}/{leaf}", None)


LAYOUTS: dict[str, type[Layout]] = {
    "lernapparat": _Lernapparat,
    "genforce": _Genforce,
    "official": _Official,
}
