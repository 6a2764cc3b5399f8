"""Network pickles of the TensorFlow era, and what the networks in them compute.

Variables have the names, shapes and order of axes of NVIDIA's TensorFlow code. The maths is written
from the papers on these variables, with nothing of pyfacelat: convolutions are HWIO, upsampling
layers stuff zeros, correlate and blur, and styles get their 1 when they are used.
"""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from tests.nets.plain_rosinality import blur, kernel, leaky

from .nvidia_writer import SOURCE_TEXT, named

SMALL: dict[str, Any] = {"resolution": 16, "fmap_base": 64, "fmap_max": 12, "latent_size": 10}
SMALL |= {"dlatent_size": 11, "mapping_layers": 3, "num_channels": 3, "label_size": 0}


def width(options: dict[str, Any], res: int) -> int:
    return min(2 * options["fmap_base"] // res, options["fmap_max"])


def resolutions(options: dict[str, Any]) -> list[int]:
    return [2**i for i in range(2, options["resolution"].bit_length())]


class Draw:
    """Named random variables, in numpy."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.found: dict[str, Any] = {}

    def __call__(self, name: str, *shape: int, scale: float = 1.0) -> None:
        self.found[name] = np.float32(self.random.normal(size=shape) * scale)


def generator_variables(options: dict[str, Any], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Component ("" for the network itself) -> variables."""
    o, w = options, options["dlatent_size"]
    own, mapping, synthesis = Draw(seed), Draw(seed + 1), Draw(seed + 2)
    own("dlatent_avg", w)
    below = o["latent_size"]
    if o["label_size"]:
        fmaps = o.get("label_fmaps") or w
        mapping("LabelEmbed/weight", o["label_size"], fmaps)
        mapping("LabelEmbed/bias", fmaps)
        below += fmaps
    hidden = o.get("mapping_fmaps") or w
    for i in range(o["mapping_layers"]):
        above = w if i == o["mapping_layers"] - 1 else hidden
        mapping(f"Dense{i}/weight", below, above, scale=1 / o.get("mapping_lrmul", 0.01))
        mapping(f"Dense{i}/bias", above, scale=10.0)
        below = above

    def layer(scope: str, fan_in: int, fan_out: int, k: int) -> None:
        synthesis(f"{scope}/weight", k, k, fan_in, fan_out)
        synthesis(f"{scope}/mod_weight", w, fan_in)
        synthesis(f"{scope}/mod_bias", fan_in, scale=0.1)
        if k == 3 and o.get("use_noise", True):
            synthesis(f"{scope}/noise_strength")
        synthesis(f"{scope}/bias", fan_out)

    architecture = o.get("architecture", "skip")
    synthesis("4x4/Const/const", 1, width(o, 4), 4, 4)
    for res in resolutions(o):
        here, before = width(o, res), width(o, max(4, res // 2))
        if res == 4:
            layer("4x4/Conv", here, here, 3)
        else:
            layer(f"{res}x{res}/Conv0_up", before, here, 3)
            layer(f"{res}x{res}/Conv1", here, here, 3)
        if architecture == "resnet" and res > 4:
            synthesis(f"{res}x{res}/Skip/weight", 1, 1, before, here)
        if architecture == "skip" or res == o["resolution"]:
            layer(f"{res}x{res}/ToRGB", here, o["num_channels"], 1)
    for i in range(2 * len(resolutions(o)) - 1):
        side = 4 << ((i + 1) // 2)
        synthesis(f"noise{i}", 1, 1, side, side)
    return {"": own.found, "mapping": mapping.found, "synthesis": synthesis.found}


def discriminator_variables(options: dict[str, Any], seed: int = 9) -> dict[str, dict[str, Any]]:
    o, draw = options, Draw(seed)
    architecture = o.get("architecture", "resnet")
    for res in reversed(resolutions(o)[1:]):
        here, after = width(o, res), width(o, res // 2)
        if res == o["resolution"] or architecture == "skip":
            draw(f"{res}x{res}/FromRGB/weight", 1, 1, o["num_channels"], here)
            draw(f"{res}x{res}/FromRGB/bias", here)
        for name, above in (("Conv0", here), ("Conv1_down", after)):
            draw(f"{res}x{res}/{name}/weight", 3, 3, here, above)
            draw(f"{res}x{res}/{name}/bias", above)
        if architecture == "resnet":
            draw(f"{res}x{res}/Skip/weight", 1, 1, here, after)
    last = width(o, 4)
    draw("4x4/Conv/weight", 3, 3, last + 1, last)
    draw("4x4/Conv/bias", last)
    draw("4x4/Dense0/weight", last * 16, last)
    draw("4x4/Dense0/bias", last)
    draw("Output/weight", last, 1)
    draw("Output/bias", 1)
    return {"": draw.found}


def dump(
    networks: list[tuple[dict[str, Any], dict[str, dict[str, Any]]]],
    *,
    protocol: int = 4,
    version: Any = 4,
    numpy_one: bool = False,
) -> bytes:
    """Pickle networks given as (options, variables by component); one alone is not in a tuple."""
    with named("dnnlib.tflib.network.Network", "dnnlib.util.EasyDict") as (network, easy):

        def build(name: str, options: dict[str, Any], parts: dict[str, dict[str, Any]]) -> Any:
            out = network()
            kwargs, components = easy(), easy()
            kwargs.update(options)
            for part in parts:
                if part:
                    components[part] = build(f"{name}_{part}", {}, {"": parts[part]})
            out.__dict__ = {
                "version": version,
                "name": name,
                "static_kwargs": kwargs,
                "components": components,
                "build_module_src": SOURCE_TEXT,
                "build_func_name": "G_main",
                "variables": list(parts[""].items()),
            }
            return out

        built = [build("G", *pair) for pair in networks]
        data = pickle.dumps(built[0] if len(built) == 1 else tuple(built), protocol=protocol)
    # Numpy 1 called the module numpy.core; in protocol 2 and 3 names are lines of text.
    return data.replace(b"numpy._core", b"numpy.core") if numpy_one else data


# What they compute


def tensors(parts: dict[str, Any]) -> dict[str, torch.Tensor]:
    return {name: torch.as_tensor(np.asarray(v, np.float64)) for name, v in parts.items()}


def mapping(options: dict[str, Any], parts: dict[str, Any], z: Any, c: Any) -> Any:
    v, lr = tensors(parts["mapping"]), options.get("mapping_lrmul", 0.01)
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    if options["label_size"]:
        y = c @ v["LabelEmbed/weight"] / math.sqrt(options["label_size"]) + v["LabelEmbed/bias"]
        x = torch.cat([x, y * (y.square().mean(1, keepdim=True) + 1e-8).rsqrt()], 1)
    for i in range(options["mapping_layers"]):
        weight = v[f"Dense{i}/weight"]
        x = leaky(x @ weight * (lr / math.sqrt(weight.shape[0])) + v[f"Dense{i}/bias"] * lr)
    return x


def _stuff(x: Any) -> Any:
    n, c, h, w = x.shape
    out = x.new_zeros(n, c, 2 * h, 2 * w)
    out[:, :, ::2, ::2] = x
    return out


def synthesize(options: dict[str, Any], parts: dict[str, Any], ws: Any) -> Any:
    v, clamp = tensors(parts["synthesis"]), options.get("conv_clamp")
    f = kernel(options.get("resample_kernel", (1, 3, 3, 1)), 4.0).double()
    architecture = options.get("architecture", "skip")
    orig = architecture == "orig"
    taps = f.shape[0]

    def upsampled(x: Any, weight: Any = None) -> Any:
        """Zeros between pixels, correlation with weight [k, k, I, O], low-pass filter."""
        x, k = _stuff(x), 1
        if weight is not None and weight.shape[0] > 1:
            k = weight.shape[0]
            x = F.pad(x, (k - 1, k - 2, k - 1, k - 2))
        if weight is not None:
            x = F.conv2d(x, weight.permute(3, 2, 0, 1))
        room = taps - 2 - (k - 1)
        # A correlation of more than one tap has left one pixel more than twice the size.
        return blur(x, f, (room + 1) // 2 + 1, room // 2 + (k > 1))

    def layer(scope: str, x: Any, w: Any, index: int | None, up: bool = False) -> Any:
        weight = v[f"{scope}/weight"]
        style = w @ v[f"{scope}/mod_weight"] / math.sqrt(w.shape[1]) + v[f"{scope}/mod_bias"] + 1
        out = []
        for item, row in zip(x, style, strict=True):
            m = weight / math.sqrt(weight[..., 0].numel()) * row[None, None, :, None]
            if index is not None:
                m = m / (m.square().sum((0, 1, 2)) + 1e-8).sqrt()
            if up:
                y = upsampled(item[None], m)
            else:
                y = F.conv2d(item[None], m.permute(3, 2, 0, 1), padding=m.shape[0] // 2)
            out.append(y)
        y = torch.cat(out)
        if index is not None and options.get("use_noise", True):
            y = y + v[f"noise{index}"] * v[f"{scope}/noise_strength"]
        return y + v[f"{scope}/bias"][:, None, None]

    def act(x: Any, gain: float = 1.0) -> Any:
        x = leaky(x) * gain
        return x if clamp is None else x.clamp(-clamp * gain, clamp * gain)

    x = act(layer("4x4/Conv", v["4x4/Const/const"].repeat(len(ws), 1, 1, 1), ws[:, 0], 0))
    image = None
    for log2 in range(2, options["resolution"].bit_length()):
        res, row = 1 << log2, 2 * log2 - 5
        if log2 > 2:
            side = None
            if architecture == "resnet":
                weight = v[f"{res}x{res}/Skip/weight"]
                side = upsampled(x, weight / math.sqrt(weight.shape[2]))
            gain = math.sqrt(0.5) if side is not None else 1.0
            x = act(layer(f"{res}x{res}/Conv0_up", x, ws[:, row], row, up=True))
            x = act(layer(f"{res}x{res}/Conv1", x, ws[:, row + 1], row + 1), gain)
            x = x if side is None else x + side * gain
        if image is not None:
            image = upsampled(image)
        name = "ToRGB_lod0" if orig and "ToRGB_lod0/weight" in v else f"{res}x{res}/ToRGB"
        if architecture == "skip" or res == options["resolution"]:
            rgb = layer(name, x, ws[:, row + 2], None)
            rgb = rgb if clamp is None else rgb.clamp(-clamp, clamp)
            image = rgb if image is None else image + rgb
    return image
