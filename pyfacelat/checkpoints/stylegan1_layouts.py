"""What the layouts of StyleGAN (2019) call its tensors, and the way back; see `stylegan1`."""

from __future__ import annotations

import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .source import Source
from .storages import TensorRecord

__all__ = ["LAYOUTS", "Layout", "Rule"]

# From this resolution on, the first convolution has the upsampling in it, transposed.
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


def _map(x: Tensor) -> Tensor:
    return x[0, 0]


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


def _layer_index(res: int, layer: str) -> int:
    """Number of a layer, two for each resolution: 0 and 1 for 4, 2 and 3 for 8, ..."""
    return 2 * res.bit_length() - 6 + int(layer == "conv1")


class Layout(ABC):
    """What the layouts have in common: sizes from shapes, and names from tables."""

    sign = ""  # a name that only this layout has
    producer = ""
    average = ""  # their name of the mean of w
    constant = ""  # their name of the first layer's input
    out_axis = 0  # of a convolution's weight; dense ones then have their outputs first, too
    without: tuple[str, ...] = ("resample_filter",)  # how names of ours end that are not there

    def __init__(self, source: Source, records: dict[str, TensorRecord]) -> None:
        self.source = source
        self.records = records

    @abstractmethod
    def dense(self, i: int, leaf: str) -> str:
        """Their name of a layer of the mapping."""

    @abstractmethod
    def convolution(self, res: int, layer: str) -> str:
        """Their name of the weight of a convolution; layer is conv0 or conv1."""

    @abstractmethod
    def colours(self, res: int, leaf: str) -> str:
        """Their name of what makes colours of the last maps, at the full resolution `res`."""

    @abstractmethod
    def layer_rule(self, res: int, layer: str, leaf: str, shape: _Shape) -> Rule:
        """How a tensor of a layer at resolution `res` is made; layer is conv0 or conv1."""

    @abstractmethod
    def drop(self, config: Mapping[str, Any]) -> None:
        """Take out of the records what a finished network does not use, after checking it."""

    def rules(self, shapes: Mapping[str, _Shape], config: Mapping[str, Any]) -> dict[str, Rule]:
        """Our name -> rule, of everything but filters and maps of noise that are not there."""
        last = config["img_resolution"]
        return {
            ours: self._rule(ours, shape, last)
            for ours, shape in shapes.items()
            if not ours.endswith(self.without)
        }

    def _rule(self, ours: str, shape: _Shape, last: int) -> Rule:
        if ours == "mapping.w_avg":
            return Rule(self.average, shape, _same)
        mapping = re.fullmatch(r"mapping\.fc(\d+)\.(weight|bias)", ours)
        if mapping:
            name = self.dense(int(mapping[1]), mapping[2])
            return Rule(name, shape, _smaller) if mapping[2] == "bias" else self.matrix(name, shape)
        _, block, *rest = ours.split(".")
        if block == "torgb":
            name = self.colours(last, rest[0])
            return Rule(name, shape, _same) if rest[0] == "bias" else self.kernel(name, shape)
        if rest == ["const"]:
            return Rule(self.constant, (1, *shape), _first)
        return self.layer_rule(int(block[1:]), rest[0], ".".join(rest[1:]), shape)

    def matrix(self, name: str, shape: _Shape) -> Rule:
        """The rule of a dense layer's weight."""
        if self.out_axis == 0:
            return Rule(name, shape, _same)
        return Rule(name, shape[::-1], Tensor.t)

    def kernel(self, name: str, shape: _Shape) -> Rule:
        """The rule of the weight of a convolution that has no upsampling in it."""
        if self.out_axis == 0:
            return Rule(name, shape, _same)
        return Rule(name, _hwio(shape), _oihw)

    def config(self) -> dict[str, Any]:
        """Fields of `StyleGAN1Config`, from names and shapes."""
        log2 = 2
        while self.convolution(2 << log2, "conv1") in self.records and log2 < _MAX_LOG2:
            log2 += 1
        colours = self.size(self.colours(1 << log2, "weight"), 4)[self.out_axis]
        layers = 1
        while self.dense(layers, "weight") in self.records and layers < 64:
            layers += 1
        # Both channels of the second convolution of a resolution are its width.
        channels = {
            1 << k: self.size(self.convolution(1 << k, "conv1"), 4)[self.out_axis]
            for k in range(2, log2 + 1)
        }
        # Out and in, or in and out.
        order = 1 if self.out_axis == 0 else -1
        w_dim = self.size(self.dense(layers - 1, "weight"), 2)[::order][0]
        hidden, z_dim = self.size(self.dense(0, "weight"), 2)[::order]
        return {
            "z_dim": z_dim,
            "c_dim": 0,
            "w_dim": w_dim,
            "img_resolution": 1 << log2,
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
            "w_avg_beta": 0.995 if self.average in self.records else None,
        }

    def size(self, name: str, dims: int) -> _Shape:
        """The shape of a tensor that must be there, with `dims` axes."""
        record = self.records.get(name)
        if record is None:
            self.source.fail("is missing; every StyleGAN of this layout has it", name)
        if len(record.size) != dims or not all(0 < side <= 1 << 16 for side in record.size):
            self.source.fail(f"has shape {list(record.size)}, expected {dims} axes", name)
        return record.size

    def level_of_detail(self, name: str) -> None:
        """Take out the level of detail, which is 0 once the network has grown to its size."""
        level = self.records.pop(name, None)
        if level is not None and not (
            level.size == () and float(level.values(self.source, name)) == 0.0
        ):
            self.source.fail("is not 0: the network has not grown to the end", name)

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
    average = "truncation.avg_latent"
    constant = "g_synthesis.blocks.4x4.const"
    without = ("resample_filter", "noise_const")

    def dense(self, i: int, leaf: str) -> str:
        return f"g_mapping.dense{i}.{leaf}"

    def convolution(self, res: int, layer: str) -> str:
        name = {"conv0": "conv0_up", "conv1": "conv1" if res > 4 else "conv"}[layer]
        return f"g_synthesis.blocks.{res}x{res}.{name}.weight"

    def colours(self, res: int, leaf: str) -> str:
        return f"g_synthesis.torgb.{leaf}"

    def layer_rule(self, res: int, layer: str, leaf: str, shape: _Shape) -> Rule:
        scope = f"g_synthesis.blocks.{res}x{res}"
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
    average = "truncation.w_avg"
    constant = "synthesis.layer0.first_layer"

    def dense(self, i: int, leaf: str) -> str:
        return f"mapping.dense{i}." + {"weight": "linear.weight", "bias": "wscale.bias"}[leaf]

    def layer(self, res: int, layer: str) -> str:
        return f"synthesis.layer{_layer_index(res, layer)}"

    def convolution(self, res: int, layer: str) -> str:
        fused = layer == "conv0" and res >= _FUSED_FROM
        return f"{self.layer(res, layer)}.{'weight' if fused else 'conv.weight'}"

    def colours(self, res: int, leaf: str) -> str:
        names = {"weight": "conv.weight", "bias": "bias"}
        return f"synthesis.output{res.bit_length() - 3}.{names[leaf]}"

    def layer_rule(self, res: int, layer: str, leaf: str, shape: _Shape) -> Rule:
        scope = self.layer(res, layer)
        if leaf == "weight":
            name = self.convolution(res, layer)
            if name.endswith(".conv.weight"):
                return Rule(name, shape, _same)
            return Rule(name, _hwio(shape), _fused)
        if leaf == "noise_const":
            return Rule(f"{scope}.epilogue.apply_noise.noise", (1, 1, *shape), _map)
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
        for res, width in config["channels"].items():
            if res < config["img_resolution"]:
                for leaf in ("weight", "bias"):
                    self.records.pop(self.colours(res, leaf), None)
            if res > 4:
                self.blur(f"{self.layer(res, 'conv0')}.blur.kernel", width)


class _Official(Layout):
    sign = "synthesis/4x4/Const/StyleMod/weight"
    producer = "NVIDIA StyleGAN"
    average = "dlatent_avg"
    constant = "synthesis/4x4/Const/const"
    out_axis = 3

    def dense(self, i: int, leaf: str) -> str:
        return f"mapping/Dense{i}/{leaf}"

    def scope(self, res: int, layer: str) -> str:
        names = ("Const", "Conv") if res == 4 else ("Conv0_up", "Conv1")
        return f"synthesis/{res}x{res}/{names[layer == 'conv1']}"

    def convolution(self, res: int, layer: str) -> str:
        return f"{self.scope(res, layer)}/weight"

    def colours(self, res: int, leaf: str) -> str:
        return f"synthesis/ToRGB_lod0/{leaf}"

    def layer_rule(self, res: int, layer: str, leaf: str, shape: _Shape) -> Rule:
        scope = self.scope(res, layer)
        if leaf == "weight":
            name = self.convolution(res, layer)
            fused = layer == "conv0" and res >= _FUSED_FROM
            return Rule(name, _hwio(shape), _fused) if fused else self.kernel(name, shape)
        if leaf == "noise_const":
            return Rule(f"synthesis/noise{_layer_index(res, layer)}", (1, 1, *shape), _map)
        if leaf == "affine.weight":
            return self.matrix(f"{scope}/StyleMod/weight", shape)
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
