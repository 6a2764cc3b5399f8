"""Names and shapes of StyleGAN2's tensors in rosinality's stylegan2-pytorch.

They differ from ours (NVIDIA's) in name and in axes of length one only. Filters are stored as outer
products, times 4 where they upsample.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .names import expected_tensors

__all__ = ["Names", "discriminator_names", "generator_names", "kernel_gains"]

Names = dict[str, tuple[str, tuple[int, ...]]]


def generator_names(config: Mapping[str, Any]) -> Names:
    """Our name -> (their name, their shape) of every tensor but filters and the average of w."""
    shapes = expected_tensors("stylegan2-generator", config)
    out: Names = {}

    def add(ours: str, theirs: str, before: int = 0, after: int = 0) -> None:
        out[ours] = theirs, (1,) * before + shapes[ours] + (1,) * after

    for i in range(config["num_mapping_layers"]):
        for leaf in ("weight", "bias"):
            add(f"mapping.fc{i}.{leaf}", f"style.{i + 1}.{leaf}")
    add("synthesis.b4.const", "input.input", 1)
    for log2 in range(2, config["img_resolution"].bit_length()):
        block, k = f"synthesis.b{2**log2}", log2 - 3
        layers = {"conv1": f"convs.{2 * k + 1}", "conv0": f"convs.{2 * k}"}
        if log2 == 2:
            layers = {"conv1": "conv1"}
        for ours, theirs in layers.items():
            add(f"{block}.{ours}.weight", f"{theirs}.conv.weight", 1)
            add(f"{block}.{ours}.bias", f"{theirs}.activate.bias")
            add(f"{block}.{ours}.noise_strength", f"{theirs}.noise.weight", 1)
            noise = 2 * k + (1 if ours == "conv0" else 2)
            add(f"{block}.{ours}.noise_const", f"noises.noise_{noise}", 2)
        layers["torgb"] = f"to_rgbs.{k}" if log2 > 2 else "to_rgb1"
        add(f"{block}.torgb.weight", f"{layers['torgb']}.conv.weight", 1)
        add(f"{block}.torgb.bias", f"{layers['torgb']}.bias", 1, 2)
        for ours, theirs in layers.items():
            for leaf in ("weight", "bias"):
                add(f"{block}.{ours}.affine.{leaf}", f"{theirs}.conv.modulation.{leaf}")
    return out


def discriminator_names(config: Mapping[str, Any]) -> Names:
    """Our name -> (their name, their shape) of every tensor but the filters."""
    shapes = expected_tensors("stylegan2-discriminator", config)
    top = config["img_resolution"]
    out: dict[str, str] = {
        f"b{top}.fromrgb.weight": "convs.0.0.weight",
        f"b{top}.fromrgb.bias": "convs.0.1.bias",
        "b4.conv.weight": "final_conv.0.weight",
        "b4.conv.bias": "final_conv.1.bias",
    }
    for i, layer in enumerate(("fc", "out")):
        for leaf in ("weight", "bias"):
            out[f"b4.{layer}.{leaf}"] = f"final_linear.{i}.{leaf}"
    for k in range(1, top.bit_length() - 2):
        block = f"b{top >> (k - 1)}"
        out[f"{block}.conv0.weight"] = f"convs.{k}.conv1.0.weight"
        out[f"{block}.conv0.bias"] = f"convs.{k}.conv1.1.bias"
        out[f"{block}.conv1.weight"] = f"convs.{k}.conv2.1.weight"
        out[f"{block}.conv1.bias"] = f"convs.{k}.conv2.2.bias"
        out[f"{block}.skip.weight"] = f"convs.{k}.skip.1.weight"
    return {ours: (theirs, shapes[ours]) for ours, theirs in out.items()}


def kernel_gains(kind: str, config: Mapping[str, Any]) -> dict[str, float]:
    """Their name of every filter -> the gain that is in it."""
    log2 = config["img_resolution"].bit_length() - 1
    out: dict[str, float] = {}
    for k in range(log2 - 2):
        if kind == "stylegan2-generator":
            out[f"convs.{2 * k}.conv.blur.kernel"] = 4.0
            out[f"to_rgbs.{k}.upsample.kernel"] = 4.0
        else:
            out[f"convs.{k + 1}.conv2.0.kernel"] = 1.0
            out[f"convs.{k + 1}.skip.0.kernel"] = 1.0
    return out
