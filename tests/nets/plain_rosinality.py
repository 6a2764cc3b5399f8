"""StyleGAN2 in rosinality's layout: a state dict of that layout, and what it computes.

Written from the papers and the layout's names, with nothing of pyfacelat: weights are scaled,
modulated and demodulated for each item, upsampling layers are transposed convolutions followed by
a blur, and noise is read from the state dict.
"""

import math

import torch
import torch.nn.functional as F


def channels(size, multiplier=2, cap=512):
    table = {4: 512, 8: 512, 16: 512, 32: 512}
    table |= {64 << i: (256 >> i) * multiplier for i in range(5)}
    return {r: max(1, c * cap // 512) for r, c in table.items() if r <= size}


def kernel(taps, gain=1.0):
    line = torch.tensor(taps, dtype=torch.float32)
    return torch.outer(line, line) / line.sum() ** 2 * gain


def generator_state(
    size, dim=8, layers=3, widths=None, taps=(1, 3, 3, 1), seed=0, colours=3, noises=True
):
    random = torch.Generator().manual_seed(seed)
    widths = widths or channels(size, cap=8)
    state = {}

    def draw(name, *shape, scale=1.0):
        state[name] = torch.randn(shape, generator=random) * scale

    def modulated(name, fan_in, fan_out, k):
        draw(f"{name}.conv.weight", 1, fan_out, fan_in, k, k)
        draw(f"{name}.conv.modulation.weight", fan_in, dim)
        draw(f"{name}.conv.modulation.bias", fan_in)

    def styled(name, fan_in, fan_out):
        modulated(name, fan_in, fan_out, 3)
        draw(f"{name}.noise.weight", 1, scale=0.3)
        draw(f"{name}.activate.bias", fan_out)

    def colour(name, fan_in):
        draw(f"{name}.bias", 1, colours, 1, 1)
        modulated(name, fan_in, colours, 1)

    for i in range(layers):
        draw(f"style.{i + 1}.weight", dim, dim, scale=100.0)
        draw(f"style.{i + 1}.bias", dim, scale=10.0)
    draw("input.input", 1, widths[4], 4, 4)
    styled("conv1", widths[4], widths[4])
    colour("to_rgb1", widths[4])
    k, res = 0, 8
    while res <= size:
        state[f"convs.{2 * k}.conv.blur.kernel"] = kernel(taps, 4.0)
        styled(f"convs.{2 * k}", widths[res // 2], widths[res])
        styled(f"convs.{2 * k + 1}", widths[res], widths[res])
        state[f"to_rgbs.{k}.upsample.kernel"] = kernel(taps, 4.0)
        colour(f"to_rgbs.{k}", widths[res])
        k, res = k + 1, res * 2
    for i in range(2 * k + 1 if noises else 0):
        side = 4 << ((i + 1) // 2)
        draw(f"noises.noise_{i}", 1, 1, side, side)
    return state


def leaky(x):
    return torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)


def linear(s, name, x, lr=1.0):
    weight = s[f"{name}.weight"]
    return x @ (weight * (lr / math.sqrt(weight.shape[1]))).t() + s[f"{name}.bias"] * lr


def mapping(s, z):
    x = z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8)
    i = 1
    while f"style.{i}.weight" in s:
        x = leaky(linear(s, f"style.{i}", x, lr=0.01))
        i += 1
    return x


def blur(x, f, before, after):
    """Convolve every channel with f after padding; f is flipped for torch's correlation."""
    x = F.pad(x, (before, after, before, after))
    return F.conv2d(x, f.flip(0, 1).expand(x.shape[1], 1, *f.shape), groups=x.shape[1])


def modulated(s, name, x, w, demodulate=True, up=False):
    weight = s[f"{name}.conv.weight"]
    k = weight.shape[-1]
    style = linear(s, f"{name}.conv.modulation", w)
    out = []
    for item, row in zip(x, style, strict=True):
        v = weight[0] / math.sqrt(weight.shape[2] * k * k) * row[None, :, None, None]
        if demodulate:
            v = v * torch.rsqrt(v.square().sum((1, 2, 3), keepdim=True) + 1e-8)
        if up:
            f = s[f"{name}.conv.blur.kernel"]
            room = f.shape[0] - 2 - (k - 1)
            y = F.conv_transpose2d(item[None], v.transpose(0, 1), stride=2)
            y = blur(y, f, (room + 1) // 2 + 1, room // 2 + 1)
        else:
            y = F.conv2d(item[None], v, padding=k // 2)
        out.append(y)
    return torch.cat(out)


def styled(s, name, x, w, noise, up=False):
    y = modulated(s, name, x, w, up=up) + s[f"{name}.noise.weight"] * noise
    return leaky(y + s[f"{name}.activate.bias"][:, None, None])


def colour(s, name, x, w, below):
    y = modulated(s, name, x, w, demodulate=False) + s[f"{name}.bias"]
    if below is None:
        return y
    n, c, h, _ = below.shape
    stuffed = below.new_zeros(n, c, h * 2, h * 2)
    stuffed[:, :, ::2, ::2] = below
    f = s[f"{name}.upsample.kernel"]
    room = f.shape[0] - 2
    return y + blur(stuffed, f, (room + 1) // 2 + 1, room // 2)


def synthesize(s, ws):
    x = s["input.input"].repeat(len(ws), 1, 1, 1)
    x = styled(s, "conv1", x, ws[:, 0], s["noises.noise_0"])
    image = colour(s, "to_rgb1", x, ws[:, 1], None)
    k = 0
    while f"to_rgbs.{k}.bias" in s:
        noise = (s[f"noises.noise_{2 * k + 1}"], s[f"noises.noise_{2 * k + 2}"])
        x = styled(s, f"convs.{2 * k}", x, ws[:, 2 * k + 1], noise[0], up=True)
        x = styled(s, f"convs.{2 * k + 1}", x, ws[:, 2 * k + 2], noise[1])
        image = colour(s, f"to_rgbs.{k}", x, ws[:, 2 * k + 3], image)
        k += 1
    return image


def discriminator_state(size, widths, taps=(1, 3, 3, 1), seed=5):
    random = torch.Generator().manual_seed(seed)
    state = {}

    def draw(name, *shape):
        state[name] = torch.randn(shape, generator=random)

    draw("convs.0.0.weight", widths[size], 3, 1, 1)
    draw("convs.0.1.bias", widths[size])
    k, res = 1, size
    while res > 4:
        here, after = widths[res], widths[res // 2]
        draw(f"convs.{k}.conv1.0.weight", here, here, 3, 3)
        draw(f"convs.{k}.conv1.1.bias", here)
        state[f"convs.{k}.conv2.0.kernel"] = kernel(taps)
        draw(f"convs.{k}.conv2.1.weight", after, here, 3, 3)
        draw(f"convs.{k}.conv2.2.bias", after)
        state[f"convs.{k}.skip.0.kernel"] = kernel(taps)
        draw(f"convs.{k}.skip.1.weight", after, here, 1, 1)
        k, res = k + 1, res // 2
    draw("final_conv.0.weight", widths[4], widths[4] + 1, 3, 3)
    draw("final_conv.1.bias", widths[4])
    draw("final_linear.0.weight", widths[4], widths[4] * 16)
    draw("final_linear.0.bias", widths[4])
    draw("final_linear.1.weight", 1, widths[4])
    draw("final_linear.1.bias", 1)
    return state


def discriminate(s, image):
    def conv(name, x, down=None):
        weight = s[f"{name}.weight"]
        k = weight.shape[-1]
        weight = weight / math.sqrt(weight.shape[1] * k * k)
        if down is None:
            return F.conv2d(x, weight, padding=k // 2)
        f = s[down]
        room = f.shape[0] - 2 + k - 1
        return F.conv2d(blur(x, f, (room + 1) // 2, room // 2), weight, stride=2)

    x = leaky(conv("convs.0.0", image) + s["convs.0.1.bias"][:, None, None])
    k = 1
    while f"convs.{k}.conv1.0.weight" in s:
        n = f"convs.{k}"
        y = leaky(conv(f"{n}.conv1.0", x) + s[f"{n}.conv1.1.bias"][:, None, None])
        y = conv(f"{n}.conv2.1", y, down=f"{n}.conv2.0.kernel")
        y = leaky(y + s[f"{n}.conv2.2.bias"][:, None, None])
        x = (y + conv(f"{n}.skip.1", x, down=f"{n}.skip.0.kernel")) / math.sqrt(2)
        k += 1
    group = min(len(x), 4)
    parts = x.reshape(group, -1, *x.shape[1:])
    deviation = (parts.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3), keepdim=True)
    x = torch.cat([x, deviation.repeat(group, 1, x.shape[2], x.shape[3])], 1)
    x = leaky(conv("final_conv.0", x) + s["final_conv.1.bias"][:, None, None])
    return linear(s, "final_linear.1", leaky(linear(s, "final_linear.0", x.flatten(1))))
