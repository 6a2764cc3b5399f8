"""What the attributes of a pickled NVIDIA module say about the network's hyperparameters.

Two sources describe a network: `_init_kwargs`, what its constructor was called with, and the plain
attributes of its layers, what the original code computes with. Defaults differ between the
StyleGAN2-ADA and the StyleGAN3 repository (conv_clamp None or 256, w_avg_beta 0.995 or 0.998), so a
layer's own attribute counts where there is one; sizes must agree in both, and with the tensors.

Every value is checked for type and range here, before anything is allocated from it.
"""

from __future__ import annotations

from typing import Any

from .options import (
    ABSENT,
    ACTIVATION,
    ARCHITECTURE,
    CLAMP,
    COLOURS,
    DECAY,
    DEVIATION_MAPS,
    DIMENSION,
    FLAG,
    FP16,
    GROUP,
    LAYERS,
    MULTIPLIER,
    OPTIONAL_WIDTH,
    RESOLUTION,
    TAPS,
    WIDTH,
    Check,
    Table,
    checked,
    integer,
    take,
)
from .records import InertDict, ModuleRecord
from .source import Source, shown

__all__ = ["discriminator_config", "generator_config"]

_SIZES: Table = {
    "c_dim": ("c_dim", DIMENSION, ABSENT),
    "img_resolution": ("img_resolution", RESOLUTION, ABSENT),
    "img_channels": ("img_channels", COLOURS, ABSENT),
}
_CHANNELS: Table = {
    "channel_base": ("channel_base", integer(1, 1 << 24), 32768),
    "channel_max": ("channel_max", WIDTH, 512),
    "num_fp16_res": ("num_fp16_res", FP16, 0),
    "conv_clamp": ("conv_clamp", CLAMP, None),
}
_BLOCK: Table = {
    "activation": ("activation", ACTIVATION, "lrelu"),
    "resample_filter": ("resample_filter", TAPS, [1.0, 3.0, 3.0, 1.0]),
}
_GENERATOR: Table = {
    "z_dim": ("z_dim", DIMENSION, ABSENT),
    "w_dim": ("w_dim", WIDTH, ABSENT),
    **_SIZES,
}
_SYNTHESIS: Table = {
    **_CHANNELS,
    **_BLOCK,
    "architecture": ("architecture", ARCHITECTURE, "skip"),
    "use_noise": ("use_noise", FLAG, True),
}
_MAPPING: Table = {
    "num_layers": ("num_mapping_layers", LAYERS, 8),
    "embed_features": ("embed_features", OPTIONAL_WIDTH, None),
    "layer_features": ("mapping_layer_features", OPTIONAL_WIDTH, None),
    "activation": ("mapping_activation", ACTIVATION, "lrelu"),
    "lr_multiplier": ("mapping_lr_multiplier", MULTIPLIER, 0.01),
}
_AVERAGE: Table = {"w_avg_beta": ("w_avg_beta", DECAY, 0.995)}
_DISCRIMINATOR: Table = {
    **_SIZES,
    **_CHANNELS,
    "architecture": ("architecture", ARCHITECTURE, "resnet"),
    "cmap_dim": ("cmap_dim", OPTIONAL_WIDTH, None),
}
_EPILOGUE: Table = {
    "mbstd_group_size": ("mbstd_group_size", GROUP, 4),
    "mbstd_num_channels": ("mbstd_num_channels", DEVIATION_MAPS, 1),
}
# Choose an implementation, or matter in training only.
_IGNORED = frozenset(
    "class_name epochs fp16_channels_last fused_modconv_default freeze_layers freeze_embed".split()
)


class _Reader:
    """Reads checked values out of kwargs dicts and module attributes of one network."""

    def __init__(self, source: Source, name: str) -> None:
        self.source = source
        self.name = name

    def take(self, kwargs: Any, table: Table, place: str, known: set[str]) -> dict[str, Any]:
        """Fields of `table` from a kwargs dict; `known` lists kwargs that someone else reads."""
        return take(self.source, kwargs, table, place, known | _IGNORED)

    def kwargs(self, module: ModuleRecord, positional: tuple[str, ...]) -> dict[str, Any]:
        """The constructor call of `module` as one dict."""
        place = f"{self.name}._init_kwargs"
        kwargs: Any = module.state.get("_init_kwargs")
        args = module.state.get("_init_args", ())
        if type(kwargs) not in (dict, InertDict) or type(args) is not tuple:
            self.source.fail("the record of the constructor's arguments is missing", place)
        if len(args) > len(positional) or len(kwargs) > 64:
            self.source.fail("more constructor arguments than the published network has", place)
        out = dict(zip(positional, args, strict=False))
        for key, value in kwargs.items():
            if key in out:
                self.source.fail(f"{shown(key)} is given twice", place)
            out[key] = value
        return out

    def child(self, module: ModuleRecord, *path: str) -> ModuleRecord | None:
        """Submodule by names; None when it is absent."""
        for name in path:
            children: Any = module.state.get("_modules")
            found = children.get(name) if type(children) in (dict, InertDict) else None
            if type(found) is not ModuleRecord:
                return None
            module = found
        return module

    def attribute(
        self, modules: list[tuple[str, ModuleRecord | None]], name: str, check: Check, default: Any
    ) -> Any:
        """The common value of an attribute of several layers; `default` where none has it."""
        out, first = ABSENT, ""
        for place, module in modules:
            if module is None or name not in module.state:
                continue
            where = f"{self.name}.{place}.{name}"
            value = checked(self.source, where, check, module.state[name])
            if out is not ABSENT and value != out:
                self.source.fail(
                    f"is {shown(value)} here and {shown(out)} in {first}; only networks whose "
                    "layers agree are supported",
                    f"{self.name}.{place}.{name}",
                )
            out, first = value, first or place
        return default if out is ABSENT else out

    def mapping(self, config: dict[str, Any], mapping: ModuleRecord | None) -> None:
        """Let the layers of the mapping network correct what the kwargs say."""
        if mapping is None:
            return
        layers = [
            (f"mapping.fc{i}", self.child(mapping, f"fc{i}"))
            for i in range(config["num_mapping_layers"])
        ]
        for name, field, check in (
            ("activation", "mapping_activation", ACTIVATION),
            ("bias_gain", "mapping_lr_multiplier", MULTIPLIER),
        ):
            config[field] = self.attribute(layers, name, check, config[field])

    def fp16_blocks(self, blocks: list[tuple[str, ModuleRecord | None]], default: int) -> int:
        flags = [b.state["use_fp16"] for _, b in blocks if b is not None and "use_fp16" in b.state]
        return sum(flag is True for flag in flags) if flags else default


def _block_names(config: dict[str, Any], first: int) -> list[str]:
    return [f"b{2**i}" for i in range(first, config["img_resolution"].bit_length())]


def generator_config(source: Source, name: str, module: ModuleRecord) -> dict[str, Any]:
    """Fields of `GeneratorConfig` for the generator that `module` records.

    Both ways of nesting are read: synthesis options under `synthesis_kwargs` (StyleGAN2-ADA) or
    beside the sizes (StyleGAN3's StyleGAN2).

    Raises:
        CheckpointError: an option is unknown, missing, of a wrong type or out of range, or layers
            contradict each other or the kwargs.
    """
    read = _Reader(source, name)
    nested = ("mapping_kwargs", "synthesis_kwargs")
    kwargs = read.kwargs(
        module, ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", *nested)
    )
    place = f"{name}._init_kwargs"
    synthesis_kwargs = kwargs.get("synthesis_kwargs")
    config = read.take(
        kwargs,
        _GENERATOR,
        place,
        known={*nested, *(() if synthesis_kwargs else (*_SYNTHESIS, "kernel_size"))},
    )
    if synthesis_kwargs:
        synthesis_place = f"{place}.synthesis_kwargs"
    else:
        synthesis_kwargs, synthesis_place = kwargs, place
    known = {*_GENERATOR, *nested, "kernel_size"}
    config |= read.take(synthesis_kwargs, _SYNTHESIS, synthesis_place, known)
    if synthesis_kwargs.get("kernel_size", 3) != 3:
        source.fail("only kernels of 3 are supported", f"{synthesis_place}.kernel_size")
    mapping_kwargs = kwargs.get("mapping_kwargs", {})
    config |= read.take(mapping_kwargs, _MAPPING | _AVERAGE, f"{place}.mapping_kwargs", set())
    config["channels"] = None

    for field in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels"):
        value = module.state.get(field, config[field])
        if type(value) is not int or value != config[field]:
            source.fail(
                f"is {shown(value)}, the constructor was called with {config[field]}",
                f"{name}.{field}",
            )
    synthesis = read.child(module, "synthesis")
    mapping = read.child(module, "mapping")
    read.mapping(config, mapping)
    beta_check, beta = _AVERAGE["w_avg_beta"][1], config["w_avg_beta"]
    config["w_avg_beta"] = read.attribute([("mapping", mapping)], "w_avg_beta", beta_check, beta)
    if synthesis is not None:
        names = _block_names(config, 2)
        blocks = [(f"synthesis.{b}", read.child(synthesis, b)) for b in names]
        convs = [
            (f"synthesis.{b}.{layer}", read.child(synthesis, b, layer))
            for b in names
            for layer in ("conv0", "conv1")
        ]
        colours = [(f"synthesis.{b}.torgb", read.child(synthesis, b, "torgb")) for b in names]
        for field, layers in (
            ("architecture", blocks),
            ("activation", convs),
            ("use_noise", convs),
            ("conv_clamp", convs + colours),
        ):
            config[field] = read.attribute(layers, field, _SYNTHESIS[field][1], config[field])
        config["num_fp16_res"] = read.fp16_blocks(blocks, config["num_fp16_res"])
    return config


def discriminator_config(source: Source, name: str, module: ModuleRecord) -> dict[str, Any]:
    """Fields of `DiscriminatorConfig` for the discriminator that `module` records.

    Raises:
        CheckpointError: as `generator_config`.
    """
    read = _Reader(source, name)
    nested = ("block_kwargs", "mapping_kwargs", "epilogue_kwargs")
    positional = (*_SIZES, "architecture", "channel_base", "channel_max", "num_fp16_res")
    kwargs = read.kwargs(module, (*positional, "conv_clamp", "cmap_dim", *nested))
    place = f"{name}._init_kwargs"
    config = read.take(kwargs, _DISCRIMINATOR, place, set(nested))
    parts = {key: kwargs.get(key, {}) for key in nested}
    config |= read.take(parts["block_kwargs"], _BLOCK, f"{place}.block_kwargs", set())
    config |= read.take(
        parts["epilogue_kwargs"], _EPILOGUE, f"{place}.epilogue_kwargs", {"activation"}
    )
    config |= read.take(
        parts["mapping_kwargs"], _MAPPING, f"{place}.mapping_kwargs", {"w_avg_beta"}
    )
    config["channels"] = None
    if config["img_resolution"] < 8:
        source.fail("a discriminator needs at least 8", f"{place}.img_resolution")

    read.mapping(config, read.child(module, "mapping"))
    names = _block_names(config, 3)
    blocks = [(b, read.child(module, b)) for b in names]
    convs = [
        (f"{b}.{layer}", read.child(module, b, layer))
        for b in names
        for layer in ("fromrgb", "conv0", "conv1")
    ]
    epilogue = [("b4.conv", read.child(module, "b4", "conv"))]
    for field, layers, check in (
        ("architecture", blocks, _DISCRIMINATOR["architecture"][1]),
        ("activation", convs + epilogue, ACTIVATION),
        ("conv_clamp", convs + epilogue, CLAMP),
    ):
        config[field] = read.attribute(layers, field, check, config[field])
    deviation = [("b4.mbstd", read.child(module, "b4", "mbstd"))]
    config["mbstd_group_size"] = read.attribute(
        deviation, "group_size", _EPILOGUE["mbstd_group_size"][1], config["mbstd_group_size"]
    )
    config["num_fp16_res"] = read.fp16_blocks(blocks, config["num_fp16_res"])
    return config
