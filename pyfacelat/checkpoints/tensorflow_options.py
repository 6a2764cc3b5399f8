"""Options of NVIDIA's networks for TensorFlow (static_kwargs), and the values that are known."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .options import (
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
    Table,
    integer,
    take,
)
from .source import Source, shown

__all__ = ["DISCRIMINATOR", "FIXED", "GENERATOR", "STYLEGAN1", "STYLEGAN1_FIXED", "taken"]

_FMAPS: Table = {
    "num_channels": ("img_channels", COLOURS, 3),
    "resolution": ("img_resolution", RESOLUTION, 1024),
    "label_size": ("c_dim", DIMENSION, 0),
    "fmap_base": ("channel_base", integer(1, 1 << 23), 16384),
    "fmap_max": ("channel_max", WIDTH, 512),
    "nonlinearity": ("activation", ACTIVATION, "lrelu"),
    "resample_kernel": ("resample_filter", TAPS, [1.0, 3.0, 3.0, 1.0]),
    "num_fp16_res": ("num_fp16_res", FP16, 0),
    "conv_clamp": ("conv_clamp", CLAMP, None),
}
_MAPPING: Table = {
    "mapping_layers": ("num_mapping_layers", LAYERS, 8),
    "mapping_fmaps": ("mapping_layer_features", OPTIONAL_WIDTH, None),
    "mapping_lrmul": ("mapping_lr_multiplier", MULTIPLIER, 0.01),
    "mapping_nonlinearity": ("mapping_activation", ACTIVATION, "lrelu"),
    "label_fmaps": ("embed_features", OPTIONAL_WIDTH, None),
}
GENERATOR: Table = {
    **_FMAPS,
    **_MAPPING,
    "latent_size": ("z_dim", WIDTH, 512),
    "dlatent_size": ("w_dim", WIDTH, 512),
    "architecture": ("architecture", ARCHITECTURE, "skip"),
    "use_noise": ("use_noise", FLAG, True),
    "w_avg_beta": ("w_avg_beta", DECAY, 0.995),
}
DISCRIMINATOR: Table = {
    **_FMAPS,
    "mapping_layers": ("num_mapping_layers", integer(0, 64), 0),
    "mapping_fmaps": ("cmap_dim", OPTIONAL_WIDTH, None),
    "mapping_lrmul": ("mapping_lr_multiplier", MULTIPLIER, 0.1),
    "architecture": ("architecture", ARCHITECTURE, "resnet"),
    # ADA always says it; 4 is what StyleGAN2 before it does.
    "mbstd_group_size": ("mbstd_group_size", GROUP, 4),
    "mbstd_num_features": ("mbstd_num_channels", DEVIATION_MAPS, 1),
}
# Options that change what is computed, with the only value for which it is known here.
FIXED: dict[str, Any] = {
    "fmap_min": 1,
    "fmap_decay": 1.0,
    "normalize_latents": True,
    "normalize_labels": True,
    "normalize_w": False,
    "pixelnorm_epsilon": 1e-8,
    "use_wscale": True,
    "use_pixel_norm": False,
    "use_instance_norm": False,
    "blur_filter": None,
}
# StyleGAN (2019): sizes follow from the variables, so that few options are left to look at.
STYLEGAN1: Table = {
    key: ("", check, default)
    for key, check, default in (
        ("resolution", RESOLUTION, 1024),
        ("num_channels", COLOURS, 3),
        ("latent_size", WIDTH, 512),
        ("dlatent_size", WIDTH, 512),
        ("mapping_layers", LAYERS, 8),
        ("mapping_fmaps", WIDTH, 512),
        ("fmap_base", integer(1, 1 << 23), 8192),
        ("fmap_max", WIDTH, 512),
    )
}
STYLEGAN1_FIXED: dict[str, Any] = {
    "label_size": 0,
    "mapping_lrmul": 0.01,
    "mapping_nonlinearity": "lrelu",
    "nonlinearity": "lrelu",
    "normalize_latents": True,
    "use_wscale": True,
    "use_styles": True,
    "const_input_layer": True,
    "use_noise": True,
    "use_pixel_norm": False,
    "use_instance_norm": True,
    "fused_scale": "auto",
    "blur_filter": [1, 2, 1],
    "fmap_decay": 1.0,
}
# They choose an implementation, or matter in training or for other outputs only.
IGNORED = frozenset(
    "truncation_psi truncation_cutoff truncation_psi_val truncation_cutoff_val style_mixing_prob "
    "dlatent_avg_beta randomize_noise is_training is_validation dtype fused_modconv structure "
    "force_clean_graph is_template_graph impl gpu_impl return_dlatents epsilon freeze_layers "
    "func_name name synthesis_func mapping_func dlatent_broadcast".split()
)


def taken(
    source: Source, options: Any, table: Table, fixed: Mapping[str, Any], place: str
) -> dict[str, Any]:
    """Fields of `table` from a network's options.

    Args:
        source: the file.
        options: its static_kwargs.
        table: what is read.
        fixed: options that may have one value only.
        place: where the options are.

    Raises:
        CheckpointError: an option is unknown, of a wrong type, out of range, or has another value
            than the fixed one.
    """
    out = take(source, options, table, place, fixed.keys() | IGNORED)
    for key in sorted(fixed.keys() & options.keys()):
        value, expected = options[key], fixed[key]
        # Numbers may be 1 or 1.0; a list is compared as a whole, items of which cannot be long.
        number_like = type(value) in (int, float) and type(expected) in (int, float)
        if not (number_like or type(value) is type(expected)) or value != expected:
            source.fail(f"is {shown(value)}; only {expected} is supported", f"{place}.{key}")
    return out
