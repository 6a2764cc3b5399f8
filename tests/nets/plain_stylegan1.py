"""StyleGAN (2019) written a second time: one source of weights, two layouts, and the maths.

The weights are in the order of axes of NVIDIA's TensorFlow code (HWIO, [in, out]); the maths
follows the paper and that code's fused doubling from 128 pixels on, with nothing of pyfacelat.
"""

import math

import torch
import torch.nn.functional as F


def resolutions(size):
    return [2**i for i in range(2, size.bit_length())]


def weights(size, widths, z_dim=6, w_dim=7, hidden=9, layers=3, colours=3, seed=0):
    random = torch.Generator().manual_seed(seed)
    s = {}

    def draw(name, *shape, scale=1.0):
        s[name] = torch.randn(shape, generator=random) * scale

    draw("dlatent_avg", w_dim)
    sizes = [z_dim] + [hidden] * (layers - 1) + [w_dim]
    for i in range(layers):
        draw(f"Dense{i}/weight", sizes[i], sizes[i + 1], scale=100.0)
        draw(f"Dense{i}/bias", sizes[i + 1], scale=10.0)
    draw("4x4/Const/const", 1, widths[4], 4, 4)
    for i, res in enumerate(resolutions(size)):
        here = widths[res]
        names = ("Const", "Conv") if res == 4 else ("Conv0_up", "Conv1")
        for j, name in enumerate(names):
            if name != "Const":
                below = widths[res // 2] if name == "Conv0_up" else here
                draw(f"{res}x{res}/{name}/weight", 3, 3, below, here)
            draw(f"{res}x{res}/{name}/bias", here)
            draw(f"{res}x{res}/{name}/Noise/weight", here)
            draw(f"{res}x{res}/{name}/StyleMod/weight", w_dim, 2 * here)
            draw(f"{res}x{res}/{name}/StyleMod/bias", 2 * here)
            draw(f"noise{2 * i + j}", 1, 1, res, res)
        lod = int(math.log2(size // res))
        draw(f"ToRGB_lod{lod}/weight", 1, 1, here, colours)
        draw(f"ToRGB_lod{lod}/bias", colours)
    s["lod"] = torch.zeros(())
    return s


def oihw(weight):
    return weight.permute(3, 2, 0, 1).contiguous()


def blur_kernel(width):
    line = torch.tensor([1.0, 2.0, 1.0]) / 4
    return torch.outer(line, line).expand(width, 1, 3, 3).contiguous()


def lernapparat(s, size, average=False):
    out = {}
    for name, value in s.items():
        scope, _, leaf = name.rpartition("/")
        if scope.startswith("Dense"):
            out[f"g_mapping.dense{scope[5:]}.{leaf}"] = value.t() if leaf == "weight" else value
    for res in resolutions(size):
        block = f"g_synthesis.blocks.{res}x{res}"
        names = ("Const", "Conv") if res == 4 else ("Conv0_up", "Conv1")
        for j, name in enumerate(names):
            scope, epilogue = f"{res}x{res}/{name}", f"{block}.epi{j + 1}"
            if name == "Const":
                out[f"{block}.const"], out[f"{block}.bias"] = (
                    s[f"{scope}/const"],
                    s[f"{scope}/bias"],
                )
            else:
                out[f"{block}.{name.lower()}.weight"] = oihw(s[f"{scope}/weight"])
                out[f"{block}.{name.lower()}.bias"] = s[f"{scope}/bias"]
            if name == "Conv0_up":
                out[f"{block}.conv0_up.intermediate.kernel"] = blur_kernel(1)
            out[f"{epilogue}.top_epi.noise.weight"] = s[f"{scope}/Noise/weight"]
            out[f"{epilogue}.style_mod.lin.weight"] = s[f"{scope}/StyleMod/weight"].t()
            out[f"{epilogue}.style_mod.lin.bias"] = s[f"{scope}/StyleMod/bias"]
    out["g_synthesis.torgb.weight"] = oihw(s["ToRGB_lod0/weight"])
    out["g_synthesis.torgb.bias"] = s["ToRGB_lod0/bias"]
    if average:
        out["truncation.avg_latent"] = s["dlatent_avg"]
    return out


def genforce(s, size):
    out = {"truncation.w_avg": s["dlatent_avg"], "synthesis.lod": s["lod"]}
    for name, value in s.items():
        scope, _, leaf = name.rpartition("/")
        if scope.startswith("Dense"):
            end = ".linear.weight" if leaf == "weight" else ".wscale.bias"
            out[f"mapping.dense{scope[5:]}{end}"] = value.t() if leaf == "weight" else value
        if scope.startswith("ToRGB_lod"):
            k = len(resolutions(size)) - 1 - int(scope[9:])
            end = "conv.weight" if leaf == "weight" else "bias"
            out[f"synthesis.output{k}.{end}"] = oihw(value) if leaf == "weight" else value
    for i, res in enumerate(resolutions(size)):
        names = ("Const", "Conv") if res == 4 else ("Conv0_up", "Conv1")
        for j, name in enumerate(names):
            scope, layer = f"{res}x{res}/{name}", f"synthesis.layer{2 * i + j}"
            if name == "Const":
                out[f"{layer}.first_layer"] = s[f"{scope}/const"]
            elif name == "Conv0_up" and res >= 128:
                out[f"{layer}.weight"] = s[f"{scope}/weight"]
            else:
                out[f"{layer}.conv.weight"] = oihw(s[f"{scope}/weight"])
            if name == "Conv0_up":
                out[f"{layer}.blur.kernel"] = blur_kernel(s[f"{scope}/weight"].shape[3])
            out[f"{layer}.epilogue.apply_noise.noise"] = s[f"noise{2 * i + j}"]
            out[f"{layer}.epilogue.apply_noise.weight"] = s[f"{scope}/Noise/weight"]
            out[f"{layer}.epilogue.bias"] = s[f"{scope}/bias"]
            style = f"{layer}.epilogue.style_mod.dense"
            out[f"{style}.linear.weight"] = s[f"{scope}/StyleMod/weight"].t()
            out[f"{style}.wscale.bias"] = s[f"{scope}/StyleMod/bias"]
    return out


def double(s):
    return {name: value.double() for name, value in s.items()}


def lrelu(x):
    return torch.where(x > 0, x, 0.2 * x)


def mapping(s, z):
    x = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    i = 0
    while f"Dense{i}/weight" in s:
        weight = s[f"Dense{i}/weight"]
        x = x @ (weight * (math.sqrt(2 / weight.shape[0]) * 0.01)) + s[f"Dense{i}/bias"] * 0.01
        x, i = lrelu(x), i + 1
    return x


def doubled(x, weight, res):
    """Double the size, convolve, blur; fused to one transposed convolution from 128 on."""
    if res < 128:
        x = F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), oihw(weight), padding=1)
    else:
        w = F.pad(weight, (0, 0, 0, 0, 1, 1, 1, 1))
        w = w[1:, 1:] + w[:-1, 1:] + w[1:, :-1] + w[:-1, :-1]
        x = F.conv_transpose2d(x, w.permute(2, 3, 0, 1), stride=2, padding=1)
    return F.conv2d(x, blur_kernel(x.shape[1]).to(x), padding=1, groups=x.shape[1])


def epilogue(s, scope, x, w, noise):
    if noise is not None:
        x = x + s[f"{scope}/Noise/weight"][:, None, None] * noise
    x = lrelu(x + s[f"{scope}/bias"][:, None, None])
    mean = x.mean((2, 3), keepdim=True)
    x = (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-8).sqrt()
    style = w @ s[f"{scope}/StyleMod/weight"] / math.sqrt(w.shape[1]) + s[f"{scope}/StyleMod/bias"]
    style = style.reshape(len(w), 2, -1, 1, 1)
    return x * (style[:, 0] + 1) + style[:, 1]


def synthesize(s, size, ws, noise=True):
    x = None
    for i, res in enumerate(resolutions(size)):
        scale = {}
        for name in ("Conv", "Conv0_up", "Conv1"):
            weight = s.get(f"{res}x{res}/{name}/weight")
            if weight is not None:
                scale[name] = weight * math.sqrt(2 / (9 * weight.shape[2]))
        maps = [s[f"noise{2 * i + j}"] if noise else None for j in range(2)]
        if res == 4:
            x = s["4x4/Const/const"].repeat(len(ws), 1, 1, 1)
            x = epilogue(s, "4x4/Const", x, ws[:, 0], maps[0])
            x = F.conv2d(x, oihw(scale["Conv"]), padding=1)
            x = epilogue(s, "4x4/Conv", x, ws[:, 1], maps[1])
        else:
            x = doubled(x, scale["Conv0_up"], res)
            x = epilogue(s, f"{res}x{res}/Conv0_up", x, ws[:, 2 * i], maps[0])
            x = F.conv2d(x, oihw(scale["Conv1"]), padding=1)
            x = epilogue(s, f"{res}x{res}/Conv1", x, ws[:, 2 * i + 1], maps[1])
    weight = s["ToRGB_lod0/weight"]
    image = F.conv2d(x, oihw(weight / math.sqrt(weight.shape[2])))
    return image + s["ToRGB_lod0/bias"][:, None, None]
