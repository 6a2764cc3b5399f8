"""StyleGAN2's styled convolution as one op: modulate, convolve, demodulate, noise, bias, activate.

    d[n, o] = (sum_{i, k} (W[o, i, k] s[n, i])^2 + 1e-8)^(-1/2)          (1 without demodulation)
    z       = R(x * s[n, i], W)                R: `conv2d_resample`, up and down included
    y       = clip(act(d * z + noise + b) * gain, -clamp, clamp)

(Karras et al. 2020, section 2.2, equations 1-3.) The paper scales the weights for each item; since
the map is linear in every input channel, scaling the activations instead gives the same numbers,
works on whole batches, and leaves the weights constant, so that projection never forms a weight
gradient. d needs only the kernel energies E[o, i] = sum_k W^2: d = rsqrt(E @ s^2 + 1e-8).

The backward keeps x, y and the small inputs. The pre-activation comes back from y, which is
possible for linear, relu and lrelu with a positive gain (where relu or the clamp lose it, the
gradient is zero anyway); other activations run as `bias_act` after a linear op.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import check_float, check_same, define
from pyfacelat.ops.bias_act import DEFAULT_ALPHA, bias_act, default_gain
from pyfacelat.ops.bias_act import reference as bias_act_reference
from pyfacelat.ops.conv2d_resample import (
    Conv,
    Fir,
    conv2d_resample,
    filter_taps,
    resample_steps,
    resampled_size,
)
from pyfacelat.ops.upfirdn2d import reference as upfirdn2d_reference
from pyfacelat.ops.upfirdn2d import transposed_pad

__all__ = ["demodulation", "modulated_conv2d", "weight_energy"]

_NEEDS = ("x", "weight", "styles", "demod", "noise", "bias")  # bits of `needs`, low to high


def _plan(
    w: Tensor, f: Tensor | None, up: int, down: int, padding: int, flip_weight: bool
) -> list[Fir | Conv]:
    kernel = (w.shape[2], w.shape[3])
    return resample_steps(kernel, filter_taps(f), up, down, [padding] * 4, flip_weight)


def _fir(step: Fir, x: Tensor, f: Tensor | None) -> Tensor:
    g = f if f is not None and step.filtered else x.new_ones(1, 1)
    return upfirdn2d_reference(x, g, step.up, step.down, list(step.pad), False, step.gain)


def _scale(t: Tensor) -> Tensor:
    return t[:, :, None, None]


def reference(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: int,
    flip_weight: bool,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    packed: Tensor | None = None,
) -> Tensor:
    """Plain torch form, step by step, in the dtype of x; `packed` is for compiled kernels alone."""
    z = x * _scale(styles)
    for step in _plan(weight, f, up, down, padding, flip_weight):
        z = step.apply(z, weight) if isinstance(step, Conv) else _fir(step, z, f)
    if demod is not None:
        z = z * _scale(demod)
    if noise is not None:
        z = z + noise
    y = bias_act_reference(z, bias, 1, act, alpha, gain, clamp)
    return y.contiguous(memory_format=torch.channels_last)


def backward_reference(
    dy: Tensor,
    y: Tensor,
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: int,
    flip_weight: bool,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    needs: int,
    packed_back: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, styles, demod, noise and bias; [0] where the bit of needs is off."""
    need = {name: bool(needs >> i & 1) for i, name in enumerate(_NEEDS)}
    grads = {name: x.new_empty(0) for name in _NEEDS}  # outputs of an op may not alias

    # The pre-activation p = d * z + noise + b, and dL/dp.
    low = {"linear": 1.0, "relu": 0.0, "lrelu": alpha}[act]
    p = y / gain
    dp = torch.where(p > 0, dy * gain, dy * (gain * low))
    if low not in (0.0, 1.0):
        p = torch.where(p > 0, p, p / low)
    if clamp >= 0:
        dp = torch.where(y.abs() < clamp, dp, torch.zeros_like(dp))

    if need["bias"] and bias is not None:
        grads["bias"] = dp.sum([0, 2, 3])
    if need["noise"] and noise is not None:
        grads["noise"] = dp.sum(1, keepdim=True).sum_to_size(noise.shape)
    dz = dp
    if demod is not None:
        if need["demod"]:
            dz_sum = p - (0 if noise is None else noise)
            dz_sum = dz_sum - (0 if bias is None else bias[:, None, None])
            grads["demod"] = (dp * dz_sum).sum([2, 3]) / demod
        dz = dp * _scale(demod)
    if not (need["x"] or need["styles"] or need["weight"]):
        return tuple(grads.values())  # type: ignore[return-value]

    # The linear map transposed, last step first. Inputs of the steps are rebuilt for the weight
    # gradient; without it only their sizes matter.
    steps = _plan(weight, f, up, down, padding, flip_weight)
    inputs = [x * _scale(styles) if need["weight"] else x]
    for step in steps[:-1]:
        last = inputs[-1]
        inputs.append(step.apply(last, weight) if isinstance(step, Conv) else _fir(step, last, f))
    for step, entry in zip(reversed(steps), reversed(inputs), strict=True):
        if isinstance(step, Fir):
            g = f if f is not None and step.filtered else x.new_ones(1, 1)
            pad = transposed_pad(entry.shape, dz.shape, g, step.up, step.down, step.pad)
            dz = upfirdn2d_reference(dz, g, step.down, step.up, pad, True, step.gain)
            continue
        mask = [True, need["weight"], False]
        dz, dw, _ = torch.ops.aten.convolution_backward(
            dz,
            entry,
            step.kernel(weight),
            None,
            [step.stride] * 2,
            list(step.pad),
            [1, 1],
            step.transposed,
            [0, 0],
            1,
            mask,
        )
        if need["weight"]:
            dw = dw.transpose(0, 1) if step.transposed else dw
            grads["weight"] = (dw.flip([2, 3]) if step.flip else dw).contiguous()
    if need["styles"]:
        grads["styles"] = (dz * x).sum([2, 3])
    if need["x"]:
        grads["x"] = (dz * _scale(styles)).contiguous(memory_format=torch.channels_last)
    return tuple(grads.values())  # type: ignore[return-value]


def _fake(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: int,
    *rest: Any,
) -> Tensor:
    size = resampled_size(
        (x.shape[2], x.shape[3]),
        (weight.shape[2], weight.shape[3]),
        filter_taps(f),
        up,
        down,
        [padding] * 4,
    )
    y = x.new_empty((x.shape[0], weight.shape[0], *size))
    return y.contiguous(memory_format=torch.channels_last)


def _backward_fake(dy: Tensor, y: Tensor, x: Tensor, *rest: Any) -> tuple[Tensor, ...]:
    needs = rest[14]
    out = []
    for i, t in enumerate((x, *rest[:5])):
        wanted = t is not None and needs >> i & 1
        out.append(x.new_empty(t.shape) if wanted else x.new_empty(0))
    if needs & 1:
        out[0] = out[0].contiguous(memory_format=torch.channels_last)
    return tuple(out)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(output, *inputs[:7])
    ctx.config = inputs[7:15]  # not `packed`, whose backward would be another one


def _backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
    y, *tensors = ctx.saved_tensors
    asked = zip(ctx.needs_input_grad[:6], tensors[:6], strict=True)
    wanted = [bool(need) and t is not None for need, t in asked]
    if torch.is_grad_enabled():  # create_graph: the result must be differentiable in turn
        out = _differentiable_backward(dy, tensors, ctx.config, wanted)
    else:
        needs = sum(1 << i for i, w in enumerate(wanted) if w)
        out = torch.ops.pyfacelat.modulated_conv2d_backward(dy, y, *tensors, *ctx.config, needs)
    grads = [g if w else None for g, w in zip(out, wanted, strict=True)]
    return (*grads, *[None] * 10)


def _differentiable_backward(
    dy: Tensor, tensors: list[Any], config: tuple[Any, ...], wanted: list[bool]
) -> list[Tensor | None]:
    """The same gradients out of ops that are differentiable to any order."""
    y = composite(*tensors, *config)
    asked = [t for t, w in zip(tensors[:6], wanted, strict=True) if w]
    grads = iter(torch.autograd.grad(y, asked, dy, create_graph=True))
    return [next(grads) if w else None for w in wanted]


_INPUTS = (
    "Tensor x, Tensor weight, Tensor styles, Tensor? demod, Tensor? noise, Tensor? bias,"
    " Tensor? f, int up, int down, int padding, bool flip_weight, str act, float alpha,"
    " float gain, float clamp"
)
# `packed`, `packed_back`: forms of a frozen 3x3 weight (`pack_conv3x3`) that make layers without
# resampling faster on CPUs.
define(
    f"modulated_conv2d({_INPUTS}, Tensor? packed=None) -> Tensor",
    reference,
    _fake,
    _backward,
    _save,
)
define(
    f"modulated_conv2d_backward(Tensor dy, Tensor y, {_INPUTS}, int needs,"
    " Tensor? packed_back=None) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    backward_reference,
    _backward_fake,
)


def composite(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    bias: Tensor | None,
    f: Tensor | None,
    up: int,
    down: int,
    padding: int,
    flip_weight: bool,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """The op out of the other ops of this package; arguments as in the schema."""
    z = conv2d_resample(
        x * _scale(styles), weight, f, up=up, down=down, padding=padding, flip_weight=flip_weight
    )
    if demod is not None:
        z = z * _scale(demod)
    if noise is not None:
        z = z + noise
    limit = None if clamp < 0 else clamp
    return bias_act(z, bias, act=act, alpha=alpha, gain=gain, clamp=limit)


def weight_energy(weight: Tensor) -> Tensor:
    """Energy of every kernel, sum of its squares: [O, I, kh, kw] -> [O, I], dtype of weight."""
    return weight.square().sum([2, 3])


def demodulation(weight: Tensor, styles: Tensor, energy: Tensor | None = None) -> Tensor:
    """Factors that give every output channel unit expected norm.

    Args:
        weight: [O, I, kh, kw].
        styles: [N, I].
        energy: `weight_energy(weight)` if it is at hand (it is constant for frozen weights).

    Returns:
        [N, O]: (sum over i and k of (W s)^2 + 1e-8)^(-1/2).
    """
    if energy is None:
        energy = weight_energy(weight)
    return torch.rsqrt(styles.square() @ energy.t() + 1e-8)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    energy: Tensor | None = None,
) -> Tensor:
    """Styled convolution with its noise, bias and activation (formulas at the top of this file).

    Args:
        x: [N, I, H, W], any float dtype; channels_last is the layout that needs no copy.
        weight: [O, I, kh, kw], dtype of x, used as it is (no equalised learning rate inside).
        styles: [N, I], dtype of x; the factor on every input channel.
        noise: broadcastable to [N, 1, H', W'], dtype of x, strength already applied; added after
            demodulation and before the bias.
        up: upsampling factor >= 1, with `resample_filter` as `conv2d_resample` does.
        down: downsampling factor >= 1, likewise.
        padding: zeros on every side, in pixels of the upsampled image.
        resample_filter: filter of `upfirdn2d`; unused when up and down are 1.
        demodulate: scale every output channel to unit expected norm.
        flip_weight: True correlates, False convolves.
        bias: [O], dtype of x.
        act: activation, as in `bias_act`.
        alpha: slope of lrelu, as in `bias_act`.
        gain: factor after the activation, as in `bias_act`; None is the activation's default.
        clamp: bound of the result, as in `bias_act`.
        energy: `weight_energy(weight)`, [O, I], to spare its computation for frozen weights.

    Returns:
        [N, O, H', W'], dtype of x, in channels_last layout (on every device: the layout in which
        convolutions are fastest); H' = H * up // down for padding k // 2.

    Raises:
        ValueError: a wrong rank, shape, dtype, device, factor or activation; an empty output; an
            energy beside a weight that requires a gradient (it would be a constant to autograd).
    """
    check_float("x", x)
    n, i = x.shape[:2]
    check_float("weight", weight)
    o = weight.shape[0]
    check_same("weight", weight, x, (o, i, weight.shape[2], weight.shape[3]))
    check_same("styles", styles, x, (n, i))
    if bias is not None:
        check_same("bias", bias, x, (o,))
    if energy is not None:
        check_same("energy", energy, x, (o, i))
        if weight.requires_grad and torch.is_grad_enabled():
            raise ValueError("energy: not with a weight that requires a gradient; pass None")
    if up < 1 or down < 1:
        raise ValueError(f"up, down: expected whole numbers >= 1, got {up} and {down}")
    if padding < 0:
        raise ValueError(f"padding: expected a whole number >= 0, got {padding}")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: expected a number >= 0 or None, got {clamp}")
    f = resample_filter if up > 1 or down > 1 else None
    if f is not None:
        check_float("resample_filter", f, (1, 2))
        if f.requires_grad:
            raise ValueError("resample_filter: its gradient is not defined; detach it")
        if f.device != x.device:
            raise ValueError(f"resample_filter: expected device {x.device}, got {f.device}")
    h, w = resampled_size(
        (x.shape[2], x.shape[3]), (weight.shape[2], weight.shape[3]), filter_taps(f), up, down,
        [padding] * 4,
    )  # fmt: skip
    if h < 1 or w < 1:
        raise ValueError(
            f"weight: {weight.shape[2]}x{weight.shape[3]} exceeds the padded image; "
            f"the output would be {h}x{w}"
        )
    if noise is not None:
        noise = _expand_noise(noise, x, (n, 1, h, w))

    default = default_gain(act)
    alpha = DEFAULT_ALPHA if alpha is None else float(alpha)
    gain = default if gain is None else float(gain)
    demod = demodulation(weight, styles, energy) if demodulate else None
    linear_map = (x, weight, styles, demod, noise)
    resampling = (f, up, down, int(padding), bool(flip_weight))
    rebuilds = act in ("linear", "relu") or (act == "lrelu" and alpha > 0)
    if rebuilds and gain > 0:
        limit = -1.0 if clamp is None else float(clamp)
        return _extension.call(
            "modulated_conv2d", reference, *linear_map, bias, *resampling, act, alpha, gain, limit
        )
    z = _extension.call(
        "modulated_conv2d", reference, *linear_map, None, *resampling, "linear", 0.0, 1.0, -1.0
    )
    return bias_act(z, bias, act=act, alpha=alpha, gain=gain, clamp=clamp)


def _expand_noise(noise: Tensor, x: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    """[1 or N, 1, H', W'] out of anything broadcastable to `shape`."""
    check_float("noise", noise, (0, 1, 2, 3, 4))
    full = (1,) * (4 - noise.ndim) + tuple(noise.shape)
    if any(have not in (1, want) for have, want in zip(full, shape, strict=True)):
        raise ValueError(
            f"noise: expected a shape broadcastable to {list(shape)}, got {list(noise.shape)}"
        )
    check_same("noise", noise, x, tuple(noise.shape))
    return noise.reshape(full).expand(full[0], 1, *shape[2:])
