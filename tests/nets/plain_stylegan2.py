"""StyleGAN2 written a second time, from the papers' formulas, as plainly as possible.

Takes a config and a state dict, computes in their dtype (float64 in the tests), and uses nothing
of pyfacelat: weights are modulated and demodulated explicitly for each item and applied by a
grouped convolution; upsampling stuffs zeros, pads and filters, one step at a time.
"""

import math

import torch
import torch.nn.functional as F

ACTIVATIONS = {
    "linear": (lambda x: x, 1.0),
    "relu": (torch.relu, math.sqrt(2)),
    "lrelu": (lambda x: torch.maximum(x, 0.2 * x), math.sqrt(2)),
    "tanh": (torch.tanh, 1.0),
    "sigmoid": (torch.sigmoid, 1.0),
    "swish": (lambda x: x * torch.sigmoid(x), math.sqrt(2)),
    "softplus": (F.softplus, 1.0),
}


def act(x, name, gain=1.0, clamp=None):
    function, default = ACTIVATIONS[name]
    y = function(x) * (default * gain)
    return y if clamp is None else y.clamp(-clamp * gain, clamp * gain)


def dense(s, name, x, activation="linear", lr=1.0):
    weight = s[f"{name}.weight"] * (lr / math.sqrt(x.shape[1]))
    return act(x @ weight.t() + s[f"{name}.bias"] * lr, activation)


def unit_moment(x):
    return x / (x.square().mean(1, keepdim=True) + 1e-8).sqrt()


def mapping(s, prefix, z, c, layers, activation, lr):
    parts = []
    if z is not None:
        parts.append(unit_moment(z))
    if c is not None:
        parts.append(unit_moment(dense(s, f"{prefix}.embed", c)))
    x = torch.cat(parts, 1)
    for i in range(layers):
        x = dense(s, f"{prefix}.fc{i}", x, activation, lr)
    return x


def fir(x, f):
    """Filter without padding; f [k, k] convolves (it is flipped for torch's correlation)."""
    kernel = f.flip(0, 1).expand(x.shape[1], 1, *f.shape)
    return F.conv2d(x, kernel, groups=x.shape[1])


def stuff(x):
    """Zeros between the pixels and behind the last: [.., H, W] -> [.., 2H, 2W]."""
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, h, 2, w, 2)
    y[:, :, :, 0, :, 0] = x
    return y.reshape(n, c, 2 * h, 2 * w)


def upsample(x, f, extra=0):
    """Double the size; `extra` more pixels of padding for a following convolution."""
    k = f.shape[0]
    before, after = (k + 1) // 2 + extra, (k - 2) // 2 + extra
    return fir(F.pad(stuff(x), (before, after, before, after)), f) * 4


def modulated(x, weight, style, demodulate, up, f):
    """Equations 1 and 3 of the StyleGAN2 paper; upsampling layers convolve, others correlate."""
    n, o, k = x.shape[0], weight.shape[0], weight.shape[2]
    w = weight[None] * style[:, None, :, None, None]
    if demodulate:
        w = w / (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).sqrt()
    pad = k // 2
    if up:
        x, pad, w = upsample(x, f, extra=pad), 0, w.flip(3, 4)
    y = F.conv2d(x.reshape(1, -1, *x.shape[2:]), w.reshape(-1, *w.shape[2:]), padding=pad, groups=n)
    return y.reshape(n, o, *y.shape[2:])


def synthesis_layer(cfg, s, name, x, w, noise, up=False, gain=1.0):
    style = dense(s, f"{name}.affine", w)
    y = modulated(x, s[f"{name}.weight"], style, True, up, s[f"{name}.resample_filter"])
    if noise is not None:
        y = y + noise * s[f"{name}.noise_strength"]
    return act(y + s[f"{name}.bias"][:, None, None], cfg.activation, gain, cfg.conv_clamp)


def synthesize(cfg, s, ws, noise=None, mode="const"):
    """`noise`: map name -> tensor broadcastable to [N, 1, H, W]; replaces noise_const."""

    def noise_of(name):
        if mode == "none" or not cfg.use_noise:
            return None
        return (noise or {}).get(f"{name}.noise_const", s[f"{name}.noise_const"])

    x = image = None
    row = 0
    for res in cfg.resolutions:
        b = f"synthesis.b{res}"
        f = s[f"{b}.resample_filter"]
        if res == 4:
            x = s[f"{b}.const"][None].repeat(len(ws), 1, 1, 1)
            x = synthesis_layer(cfg, s, f"{b}.conv1", x, ws[:, 0], noise_of(f"{b}.conv1"))
            row = 1
        else:
            resnet = cfg.architecture == "resnet"
            gain = math.sqrt(0.5) if resnet else 1.0
            if resnet:
                weight = s[f"{b}.skip.weight"]
                side = F.conv2d(upsample(x, f), weight / math.sqrt(weight.shape[1])) * gain
            names = (f"{b}.conv0", f"{b}.conv1")
            x = synthesis_layer(cfg, s, names[0], x, ws[:, row], noise_of(names[0]), up=True)
            x = synthesis_layer(cfg, s, names[1], x, ws[:, row + 1], noise_of(names[1]), gain=gain)
            x = x + side if resnet else x
            row += 2
        image = None if image is None else upsample(image, f)
        if cfg.architecture == "skip" or res == cfg.img_resolution:
            weight = s[f"{b}.torgb.weight"]
            style = dense(s, f"{b}.torgb.affine", ws[:, row]) / math.sqrt(weight.shape[1])
            rgb = modulated(x, weight, style, False, False, f)
            rgb = act(rgb + s[f"{b}.torgb.bias"][:, None, None], "linear", 1.0, cfg.conv_clamp)
            image = rgb if image is None else image + rgb
    return image


def conv_layer(s, name, x, activation="linear", down=False, gain=1.0, clamp=None):
    weight = s[f"{name}.weight"]
    k = weight.shape[2]
    weight = weight / math.sqrt(weight.shape[1] * k * k)
    if down:
        f = s[f"{name}.resample_filter"]
        taps = f.shape[0]
        before, after = (taps - 1) // 2 + k // 2, (taps - 2) // 2 + k // 2
        y = F.conv2d(fir(F.pad(x, (before, after, before, after)), f), weight)[:, :, ::2, ::2]
    else:
        y = F.conv2d(x, weight, padding=k // 2)
    bias = s.get(f"{name}.bias")
    return act(y if bias is None else y + bias[:, None, None], activation, gain, clamp)


def discriminate(cfg, s, image, c=None):
    clamp, a = cfg.conv_clamp, cfg.activation
    x = None
    for res in reversed(cfg.resolutions[1:]):
        b = f"b{res}"
        if f"{b}.fromrgb.weight" in s:
            y = conv_layer(s, f"{b}.fromrgb", image, a, clamp=clamp)
            x = y if x is None else x + y
            if cfg.architecture == "skip":
                image = fir(F.pad(image, (1, 1, 1, 1)), s[f"{b}.resample_filter"])[:, :, ::2, ::2]
        resnet = cfg.architecture == "resnet"
        gain = math.sqrt(0.5) if resnet else 1.0
        y = conv_layer(s, f"{b}.conv0", x, a, clamp=clamp)
        y = conv_layer(s, f"{b}.conv1", y, a, down=True, gain=gain, clamp=clamp)
        x = y + conv_layer(s, f"{b}.skip", x, down=True, gain=gain) if resnet else y
    if cfg.architecture == "skip":
        x = x + conv_layer(s, "b4.fromrgb", image, a)
    if cfg.mbstd_num_channels:
        x = torch.cat([x, deviation(x, cfg.mbstd_group_size, cfg.mbstd_num_channels)], 1)
    x = conv_layer(s, "b4.conv", x, a, clamp=clamp)
    x = dense(s, "b4.out", dense(s, "b4.fc", x.flatten(1), a))
    if c is not None:
        lr = cfg.mapping_lr_multiplier
        label = mapping(s, "mapping", None, c, cfg.num_mapping_layers, cfg.mapping_activation, lr)
        x = (x * label).sum(1, keepdim=True) / math.sqrt(label.shape[1])
    return x


def deviation(x, group_size, parts):
    """Group by group with Python loops: item i is in group i mod (N / G)."""
    n, c, h, w = x.shape
    size = n if group_size is None else min(group_size, n)
    groups = n // size
    out = x.new_zeros(n, parts, h, w)
    for g in range(groups):
        members = list(range(g, n, groups))
        std = (x[members].var(0, unbiased=False) + 1e-8).sqrt()  # [C, H, W]
        for p in range(parts):
            value = std[p * c // parts : (p + 1) * c // parts].mean()
            for i in members:
                out[i, p] = value
    return out
