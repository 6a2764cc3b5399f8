"""Names and shapes of the tensors of known networks.

The StyleGAN2 tables are computed from a config, so that a file's tensors can be compared with what
its config implies before anything is allocated. Names are those of NVIDIA's network files, which
this package uses as its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = [
    "LPIPS_VGG_CHANNELS",
    "VGG16_CONVS",
    "discriminator_tensors",
    "generator_tensors",
    "resolutions",
]

Shapes = dict[str, tuple[int, ...]]

# Taps that a layer gets when the published code does not pass the config's filter on to it.
_DEFAULT_TAPS = 4

# torchvision's VGG16: index of every convolution in `features` -> (in, out) channels.
VGG16_CONVS: dict[int, tuple[int, int]] = {
    0: (3, 64), 2: (64, 64),
    5: (64, 128), 7: (128, 128),
    10: (128, 256), 12: (256, 256), 14: (256, 256),
    17: (256, 512), 19: (512, 512), 21: (512, 512),
    24: (512, 512), 26: (512, 512), 28: (512, 512),
}  # fmt: skip

# Channels of the five taps that LPIPS weighs (relu1_2, 2_2, 3_3, 4_3, 5_3).
LPIPS_VGG_CHANNELS = (64, 128, 256, 512, 512)


def resolutions(img_resolution: int) -> list[int]:
    """[4, 8, ..., img_resolution]."""
    return [2**i for i in range(2, img_resolution.bit_length())]


def _channels(config: Mapping[str, Any], resolution: int) -> int:
    if config.get("channels"):
        return int(config["channels"][resolution])
    return int(min(config["channel_base"] // resolution, config["channel_max"]))


def _filter_shape(taps: int) -> tuple[int, ...]:
    return taps, taps


def _dense(out: Shapes, name: str, fan_in: int, fan_out: int) -> None:
    out[f"{name}.weight"] = (fan_out, fan_in)
    out[f"{name}.bias"] = (fan_out,)


def _mapping(
    out: Shapes, config: Mapping[str, Any], z_dim: int, w_dim: int, *, average: bool
) -> None:
    c_dim = config["c_dim"]
    embed = 0
    if c_dim > 0:
        embed = config["embed_features"] or w_dim
        _dense(out, "mapping.embed", c_dim, embed)
    hidden = config["mapping_layer_features"] or w_dim
    count = config["num_mapping_layers"]
    widths = [z_dim + embed, *[hidden] * (count - 1), w_dim]
    for i in range(count):
        _dense(out, f"mapping.fc{i}", widths[i], widths[i + 1])
    if average:
        out["mapping.w_avg"] = (w_dim,)


def generator_tensors(config: Mapping[str, Any]) -> Shapes:
    """Name -> shape for a StyleGAN2 generator, from the fields of `GeneratorConfig`."""
    out: Shapes = {}
    w_dim, colours = config["w_dim"], config["img_channels"]
    taps = len(config["resample_filter"])
    _mapping(out, config, config["z_dim"], w_dim, average=config["w_avg_beta"] is not None)
    previous = 0
    for res in resolutions(config["img_resolution"]):
        width = _channels(config, res)
        block = f"synthesis.b{res}"
        out[f"{block}.resample_filter"] = _filter_shape(taps)
        if not previous:
            out[f"{block}.const"] = (width, res, res)
        # Only the layer that resamples is given the config's filter.
        layers = [("conv0", previous, taps)] if previous else []
        for layer, fan_in, layer_taps in [*layers, ("conv1", width, _DEFAULT_TAPS)]:
            name = f"{block}.{layer}"
            out[f"{name}.resample_filter"] = _filter_shape(layer_taps)
            _dense(out, f"{name}.affine", w_dim, fan_in)
            out[f"{name}.weight"] = (width, fan_in, 3, 3)
            out[f"{name}.bias"] = (width,)
            if config["use_noise"]:
                out[f"{name}.noise_const"] = (res, res)
                out[f"{name}.noise_strength"] = ()
        if res == config["img_resolution"] or config["architecture"] == "skip":
            _dense(out, f"{block}.torgb.affine", w_dim, width)
            out[f"{block}.torgb.weight"] = (colours, width, 1, 1)
            out[f"{block}.torgb.bias"] = (colours,)
        if previous and config["architecture"] == "resnet":
            out[f"{block}.skip.weight"] = (width, previous, 1, 1)
            out[f"{block}.skip.resample_filter"] = _filter_shape(taps)
        previous = width
    return out


def discriminator_tensors(config: Mapping[str, Any]) -> Shapes:
    """Name -> shape for a StyleGAN2 discriminator, from the fields of `DiscriminatorConfig`."""
    out: Shapes = {}
    colours, architecture = config["img_channels"], config["architecture"]
    taps = len(config["resample_filter"])

    def conv(
        name: str,
        fan_in: int,
        fan_out: int,
        size: int,
        taps: int = _DEFAULT_TAPS,
        bias: bool = True,
    ) -> None:
        out[f"{name}.resample_filter"] = _filter_shape(taps)
        out[f"{name}.weight"] = (fan_out, fan_in, size, size)
        if bias:
            out[f"{name}.bias"] = (fan_out,)

    for res in reversed(resolutions(config["img_resolution"])[1:]):
        width, after = _channels(config, res), _channels(config, res // 2)
        block = f"b{res}"
        out[f"{block}.resample_filter"] = _filter_shape(taps)
        if res == config["img_resolution"] or architecture == "skip":
            conv(f"{block}.fromrgb", colours, width, 1)
        conv(f"{block}.conv0", width, width, 3)
        conv(f"{block}.conv1", width, after, 3, taps)
        if architecture == "resnet":
            conv(f"{block}.skip", width, after, 1, taps, bias=False)
    width = _channels(config, 4)
    label = (config["cmap_dim"] or width) if config["c_dim"] > 0 else 0
    if label:
        _mapping(out, config, 0, label, average=False)
    if architecture == "skip":
        conv("b4.fromrgb", colours, width, 1)
    conv("b4.conv", width + config["mbstd_num_channels"], width, 3)
    _dense(out, "b4.fc", width * 16, width)
    _dense(out, "b4.out", width, label or 1)
    return out
