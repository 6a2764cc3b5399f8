"""Tensors of face recognition networks (`nets.irse`, `nets.arcface`) and what files call them.

Two layouts are shared: that of InsightFace_Pytorch and face.evoLVe (input_layer, body.N.res_layer,
output_layer), which e4e and pSp use too, and that of insightface's IResNet (layer1.N.prelu).
"""

from __future__ import annotations

import itertools
import math
from typing import Any

from .layout import Config, Layout, Records, Shapes, batch_norm, conv, dense
from .source import Source

__all__ = ["arcface", "arcface_tensors", "e4e_layout", "e4e_tensors"]

_MAX_UNITS = 400
_MAX_ROWS = 64

# Our names of the parts of a unit -> those of the two layouts.
_BODY_PARTS = {
    "norm1": "res_layer.0",
    "conv1": "res_layer.1",
    "act": "res_layer.2",
    "conv2": "res_layer.3",
    "norm3": "res_layer.4",
    "squeeze.reduce": "res_layer.5.fc1",
    "squeeze.expand": "res_layer.5.fc2",
    "shortcut.conv": "shortcut_layer.0",
    "shortcut.norm": "shortcut_layer.1",
}
_BODY_ENDS = {
    "trunk.stem.conv": "input_layer.0",
    "trunk.stem.norm": "input_layer.1",
    "trunk.stem.act": "input_layer.2",
    "head_norm": "output_layer.0",
    "dense": "output_layer.3",
    "embed_norm": "output_layer.4",
}
_IRESNET_PARTS = {
    "norm1": "bn1",
    "conv1": "conv1",
    "norm2": "bn2",
    "act": "prelu",
    "conv2": "conv2",
    "norm3": "bn3",
    "shortcut.conv": "downsample.0",
    "shortcut.norm": "downsample.1",
}
_IRESNET_ENDS = {
    "trunk.stem.conv": "conv1",
    "trunk.stem.norm": "bn1",
    "trunk.stem.act": "prelu",
    "head_norm": "bn2",
    "dense": "fc",
    "embed_norm": "features",
}


def _trunk(out: Shapes, config: Config) -> None:
    """Add the tensors of an `IRTrunk` called "trunk"; `config` has the fields of `IRConfig`."""
    widths, variant = config["widths"], config["variant"]
    conv(out, "trunk.stem.conv", 3, widths[0], 3, bias=False)
    batch_norm(out, "trunk.stem.norm", widths[0])
    out["trunk.stem.act.weight"] = (widths[0],)
    below, index = widths[0], 0
    for count, width in zip(config["blocks"], widths, strict=True):
        for first in [True, *[False] * (count - 1)]:
            unit = f"trunk.units.{index}"
            batch_norm(out, f"{unit}.norm1", below)
            conv(out, f"{unit}.conv1", below, width, 3, bias=False)
            if variant == "iresnet":
                batch_norm(out, f"{unit}.norm2", width)
            out[f"{unit}.act.weight"] = (width,)
            conv(out, f"{unit}.conv2", width, width, 3, bias=False)
            batch_norm(out, f"{unit}.norm3", width)
            if variant == "ir-se":
                inside = width // config["reduction"]
                conv(out, f"{unit}.squeeze.reduce", width, inside, 1, bias=False)
                conv(out, f"{unit}.squeeze.expand", inside, width, 1, bias=False)
            if below != width or (first and variant == "iresnet"):
                conv(out, f"{unit}.shortcut.conv", below, width, 1, bias=False)
                batch_norm(out, f"{unit}.shortcut.norm", width)
            below, index = width, index + 1


def arcface_tensors(config: Config) -> Shapes:
    """Name -> shape for an `ArcFace`, from the fields of `ArcFaceConfig`."""
    out: Shapes = {}
    _trunk(out, config)
    width, side = config["widths"][-1], config["input_size"] >> len(config["blocks"])
    batch_norm(out, "head_norm", width)
    dense(out, "dense", width * side**2, config["embed_dim"])
    batch_norm(out, "embed_norm", config["embed_dim"])
    return out


def e4e_tensors(config: Config) -> Shapes:
    """Name -> shape for an `E4E`, from the fields of `E4EConfig`."""
    out: Shapes = {"latent_avg": (config["num_ws"], config["w_dim"])}
    _trunk(out, config)
    widths, w_dim = config["widths"], config["w_dim"]
    conv(out, "lateral.0", widths[2], widths[-1], 1)
    conv(out, "lateral.1", widths[1], widths[-1], 1)
    for row in range(config["num_ws"]):
        side = config["input_size"] // (16 if row < 3 else 8 if row < 7 else 4)
        for index in range(side.bit_length() - 1):
            conv(out, f"heads.{row}.convs.{index}", w_dim if index else widths[-1], w_dim, 3)
        dense(out, f"heads.{row}.dense", w_dim, w_dim)
    return out


def _body_name(own: str) -> str:
    """Our name -> the name in the layout with input_layer, body and output_layer."""
    module, _, leaf = own.rpartition(".")
    if module in _BODY_ENDS:
        return f"{_BODY_ENDS[module]}.{leaf}"
    index, part = _unit(module)
    return f"body.{index}.{_BODY_PARTS[part]}.{leaf}"


def _body_config(source: Source, records: Records, prefix: str = "") -> dict[str, Any]:
    """The fields of `IRConfig` of a trunk in that layout; a stage is a run of units of one width.

    Raises:
        CheckpointError: the names or shapes are those of no such trunk.
    """
    widths: list[int] = []
    while f"body.{len(widths)}.res_layer.3.weight" in records:
        widths.append(_width(source, records, f"body.{len(widths)}.res_layer.3.weight", prefix))
    stages = [(width, len(list(run))) for width, run in itertools.groupby(widths)]
    config: dict[str, Any] = {
        "variant": "ir",
        "blocks": [count for _, count in stages],
        "widths": [width for width, _ in stages],
        "reduction": 16,
    }
    squeeze = "body.0.res_layer.5.fc1.weight"
    if squeeze in records and widths:
        inside = _width(source, records, squeeze, prefix)
        if not 1 <= inside <= widths[0]:
            source.fail(f"squeezes {widths[0]} channels to {inside}", prefix + squeeze)
        config |= {"variant": "ir-se", "reduction": widths[0] // inside}
    return config


def arcface(source: Source, records: Records) -> Layout | None:
    """Recognise an `ArcFace` in either layout."""
    if "input_layer.0.weight" in records and "output_layer.3.weight" in records:
        config = _body_config(source, records)
        config |= _head_config(source, records, config, "output_layer.3.weight")
        return Layout("arcface", config, _body_name)
    if "layer1.0.prelu.weight" not in records or "fc.weight" not in records:
        return None
    blocks: list[int] = []
    widths: list[int] = []
    while f"layer{len(blocks) + 1}.0.conv2.weight" in records and len(blocks) < 8:
        stage, count = f"layer{len(blocks) + 1}", 0
        while f"{stage}.{count}.conv2.weight" in records:
            count += 1
        blocks.append(count)
        widths.append(_width(source, records, f"{stage}.0.conv2.weight"))
    config = {"variant": "iresnet", "blocks": blocks, "widths": widths, "reduction": 16}
    config |= _head_config(source, records, config, "fc.weight")
    starts = [0, *itertools.accumulate(blocks)]

    def name(own: str) -> str:
        module, _, leaf = own.rpartition(".")
        if module in _IRESNET_ENDS:
            return f"{_IRESNET_ENDS[module]}.{leaf}"
        index, part = _unit(module)
        stage = max(k for k, start in enumerate(starts) if start <= index)
        return f"layer{stage + 1}.{index - starts[stage]}.{_IRESNET_PARTS[part]}.{leaf}"

    return Layout("arcface", config, name)


def e4e_layout(source: Source, records: Records, prefix: str, *, relative: bool) -> Layout:
    """The encoder of an e4e or pSp checkpoint, whose names have lost `prefix`.

    Raises:
        CheckpointError: it is another encoder, such as ReStyle's.
    """
    rows, convs = 0, 0
    while f"styles.{rows}.linear.weight" in records:
        rows += 1
    while f"styles.0.convs.{2 * convs}.weight" in records:
        convs += 1
    if "latlayer1.weight" not in records or not 1 <= rows <= _MAX_ROWS or not 1 <= convs <= 6:
        source.fail(
            "is no encoder of e4e or pSp with a feature pyramid (styles, latlayer1, latlayer2); "
            "ReStyle's encoders are not supported",
            prefix.rstrip("."),
        )
    first = records.get("input_layer.0.weight")
    if first is not None and tuple(first.shape[1:2]) != (3,):
        source.fail(
            f"has shape {list(first.shape)}: it takes something else than RGB images, such as "
            "ReStyle's six channels, sketches or label maps; not supported",
            f"{prefix}input_layer.0.weight",
        )
    config = _body_config(source, records, prefix)
    if len(config["blocks"]) != 4:
        source.fail(f"a trunk of {len(config['blocks'])} stages; expected 4", f"{prefix}body")
    w_dim = records["styles.0.linear.weight"].shape
    if len(w_dim) != 2 or not 1 <= w_dim[0] <= 1 << 16:
        source.fail(f"has shape {list(w_dim)}", f"{prefix}styles.0.linear.weight")
    config |= {
        "num_ws": rows, "w_dim": w_dim[0], "input_size": 16 << convs, "relative": relative
    }  # fmt: skip
    return Layout("e4e", config, _e4e_name)


def _e4e_name(own: str) -> str:
    """Our name -> the name in e4e's and pSp's encoders."""
    first, *rest = own.split(".")
    if first == "lateral":
        return f"latlayer{int(rest[0]) + 1}.{rest[1]}"
    if first == "heads":
        row, part, *more = rest
        layer = f"convs.{2 * int(more[0])}" if part == "convs" else "linear"
        return f"styles.{row}.{layer}.{more[-1]}"
    return own if first == "latent_avg" else _body_name(own)


def _head_config(source: Source, records: Records, config: Config, name: str) -> dict[str, Any]:
    """Input size and embedding width, from the dense layer behind the trunk."""
    size = records[name].shape
    widths, stages = config["widths"], len(config["blocks"])
    if len(size) != 2 or not widths or not 1 <= stages <= 8 or sum(config["blocks"]) > _MAX_UNITS:
        source.fail(f"a head of shape {list(size)} behind {stages} stages is not ArcFace's", name)
    side = math.isqrt(size[1] // max(1, widths[-1]))
    if not side or side * side * widths[-1] != size[1]:
        source.fail(f"{size[1]} features are no square map of {widths[-1]} channels", name)
    return {"input_size": side << stages, "embed_dim": size[0]}


def _unit(module: str) -> tuple[int, str]:
    """Index and part: 7 and squeeze.reduce for trunk.units.7.squeeze.reduce."""
    _, _, index, part = module.split(".", 3)
    return int(index), part


def _width(source: Source, records: Records, name: str, prefix: str = "") -> int:
    """Output channels of a convolution."""
    size = records[name].shape
    if len(size) != 4 or not 1 <= size[0] <= 4096:
        source.fail(f"has shape {list(size)}, which is no convolution's here", prefix + name)
    return size[0]
