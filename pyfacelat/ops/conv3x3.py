"""3x3 convolution with frozen weights, stride 1, zeros around: y = act(conv(v, W) + b) * gain.

The input v is x, or max(x * in_scale + in_shift, 0) by channel: a frozen batch normalisation and
relu before the convolution. For networks that are only looked through: gradients reach the input,
never the weights, so that what can be computed from the weights is computed once, in
`pack_conv3x3`. The CPU kernel runs Winograd's F(4x4, 3x3) (Lavin and Gray 2016), 36 products
instead of 144 for a 4x4 tile,

    y = A^T [(G g G^T) * (B^T d B)] A,

which is multiplication of polynomials by their values at 0, +-5/8, +-3/2 and infinity. The packed
weight is G g G^T; that of the backward belongs to the flipped and transposed kernel. Rounding is
1.2 to 2.5 times that of oneDNN's direct sum (docs/measurements.md).

The backward keeps y: the activation's slope is chosen by its sign. It keeps x only to find again
where v is positive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import check_float, check_same, define
from pyfacelat.ops.bias_act import DEFAULT_ALPHA

__all__ = ["Conv3x3Weight", "conv3x3", "pack_conv3x3"]

ACTIVATIONS = ("linear", "relu", "lrelu")
# As in csrc/conv3x3/winograd.h.
_POINTS = (0.0, 0.625, -0.625, 1.5, -1.5)
_PANEL = 32


@dataclass(frozen=True)
class Conv3x3Weight:
    """A frozen kernel in the forms that `conv3x3` reads; `pack_conv3x3` makes it.

    Attributes:
        weight: [O, I, 3, 3].
        packed: opaque, for the forward; empty where no kernel reads it.
        packed_back: opaque, for the backward; likewise, and where it was not asked for.

    """

    weight: Tensor
    packed: Tensor
    packed_back: Tensor


def _evaluation() -> Tensor:
    """G: values of a kernel's polynomial at the points, over the derivative of their product."""
    rows = []
    for p in _POINTS:
        norm = 1.0
        for other in _POINTS:
            norm *= p - other if other != p else 1.0
        rows.append([1 / norm, p / norm, p * p / norm])
    return torch.tensor([*rows, [0.0, 0.0, 1.0]], dtype=torch.float64)


def reference_pack(weight: Tensor, transposed: bool) -> Tensor:
    """Plain torch form: values of the kernels at 6x6 points, panels of 32 output channels.

    [O, I, 3, 3] -> [ceil(O / 32), 36, I, 32]; with `transposed` those of the flipped kernels from
    O to I channels. Computed in double, stored in the dtype of weight.
    """
    kernel = weight.flip([2, 3]).transpose(0, 1) if transposed else weight
    g = _evaluation().to(weight.device)
    out = []
    for panel in kernel.split(_PANEL) if len(kernel) else ():
        values = torch.einsum("ai,ocij,bj->abco", g, panel.double(), g).flatten(0, 1)
        out.append(F.pad(values, (0, _PANEL - len(panel))).to(weight.dtype))
    return torch.stack(out) if out else weight.new_empty(_packed_shape(weight, transposed))


def _packed_shape(weight: Tensor, transposed: bool) -> tuple[int, int, int, int]:
    o, i = weight.shape[:2]
    out, depth = (i, o) if transposed else (o, i)
    return (out + _PANEL - 1) // _PANEL, 36, depth, _PANEL


def _prepared(x: Tensor, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    if scale is None or shift is None:
        return x
    return (x * scale[:, None, None] + shift[:, None, None]).relu()


def reference(
    x: Tensor,
    weight: Tensor,
    packed: Tensor,
    packed_back: Tensor,
    bias: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    in_scale: Tensor | None = None,
    in_shift: Tensor | None = None,
) -> Tensor:
    """Plain torch form; the packed weights are for compiled kernels alone."""
    z = F.conv2d(_prepared(x, in_scale, in_shift), weight, bias, padding=1)
    if act == "relu":
        z = z.relu()
    elif act == "lrelu":
        z = torch.where(z > 0, z, z * alpha)
    return (z * gain).contiguous(memory_format=torch.channels_last)


def backward_reference(
    dy: Tensor,
    y: Tensor,
    weight: Tensor,
    packed_back: Tensor,
    act: str,
    alpha: float,
    gain: float,
    x: Tensor | None = None,
    in_scale: Tensor | None = None,
    in_shift: Tensor | None = None,
) -> Tensor:
    """dL/dx from dL/dy; x is read beside an in_scale only."""
    low = {"linear": 1.0, "relu": 0.0, "lrelu": alpha}[act]
    dz = torch.where(y > 0, dy * gain, dy * (gain * low))
    dx = F.conv_transpose2d(dz, weight, padding=1)
    if x is not None and in_scale is not None:
        dx = dx * in_scale[:, None, None] * (_prepared(x, in_scale, in_shift) > 0)
    return dx.contiguous(memory_format=torch.channels_last)


def _fake(x: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    y = x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]))
    return y.contiguous(memory_format=torch.channels_last)


def _backward_fake(dy: Tensor, y: Tensor, weight: Tensor, *rest: Any) -> Tensor:
    x = dy.new_empty((dy.shape[0], weight.shape[1], *dy.shape[2:]))
    return x.contiguous(memory_format=torch.channels_last)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, weight, _, packed_back, _, *config, in_scale, in_shift = inputs
    before = (None if in_scale is None else x, in_scale, in_shift)
    ctx.save_for_backward(output, weight, packed_back, *before)
    ctx.config = config


def _backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
    need_x, *others = ctx.needs_input_grad
    if any(others):
        raise RuntimeError("conv3x3: all but x is frozen; other gradients are not defined")
    if not need_x:
        return (None,) * 10
    y, weight, packed_back, *before = ctx.saved_tensors
    run = backward_reference if torch.is_grad_enabled() else torch.ops.pyfacelat.conv3x3_backward
    return run(dy, y, weight, packed_back, *ctx.config, *before), *[None] * 9


define(
    "conv3x3_pack(Tensor weight, bool transposed) -> Tensor",
    reference_pack,
    lambda weight, transposed: weight.new_empty(_packed_shape(weight, transposed)),
)
define(
    "conv3x3(Tensor x, Tensor weight, Tensor packed, Tensor packed_back, Tensor? bias, str act,"
    " float alpha, float gain, Tensor? in_scale=None, Tensor? in_shift=None) -> Tensor",
    reference,
    _fake,
    _backward,
    _save,
)
define(
    "conv3x3_backward(Tensor dy, Tensor y, Tensor weight, Tensor packed_back, str act,"
    " float alpha, float gain, Tensor? x=None, Tensor? in_scale=None, Tensor? in_shift=None)"
    " -> Tensor",
    backward_reference,
    _backward_fake,
)


def pack_conv3x3(weight: Tensor, *, gradient: bool = True) -> Conv3x3Weight:
    """Prepare a frozen kernel for `conv3x3`, once for a network.

    Each packed form takes 4 times the memory of the weight. They are made for float32 on a CPU with
    a compiled kernel; elsewhere there is nothing to prepare. They do not follow later changes of
    the weight.

    Args:
        weight: [O, I, 3, 3], any float dtype, frozen.
        gradient: also pack for the backward; without, that runs torch's convolution.

    Raises:
        ValueError: another shape or dtype, or a weight that requires a gradient.

    """
    _check_frozen("weight", weight)
    check_float("weight", weight)
    if tuple(weight.shape[2:]) != (3, 3):
        raise ValueError(f"weight: expected a 3x3 kernel, got shape {list(weight.shape)}")
    compiled = weight.device.type == "cpu" and "cpp" in _extension.available("conv3x3", "cpu")
    forms = [weight.new_empty(0), weight.new_empty(0)]
    if compiled and weight.dtype == torch.float32:
        for i in range(1 + gradient):
            forms[i] = torch.ops.pyfacelat.conv3x3_pack(weight, bool(i))
    return Conv3x3Weight(weight, *forms)


def _check_frozen(name: str, t: Tensor) -> None:
    if isinstance(t, Tensor) and t.requires_grad:
        raise ValueError(f"{name}: conv3x3 has no gradient for it; freeze it, or pass .detach()")


def conv3x3(
    x: Tensor,
    weight: Conv3x3Weight,
    *,
    bias: Tensor | None = None,
    act: str = "linear",
    alpha: float = DEFAULT_ALPHA,
    gain: float = 1.0,
    in_scale: Tensor | None = None,
    in_shift: Tensor | None = None,
) -> Tensor:
    """Correlate with a frozen 3x3 kernel, stride 1, one row of zeros around; bias, activation.

    Args:
        x: [N, I, H, W], dtype and device of the weight; channels_last needs no copy.
        weight: from `pack_conv3x3`.
        bias: [O], dtype of x, frozen.
        act: "linear", "relu" or "lrelu".
        alpha: slope of lrelu below zero, >= 0.
        gain: factor after the activation, > 0 (1 by default, unlike that of `bias_act`).
        in_scale: [I], dtype of x, frozen: convolve max(x * in_scale + in_shift, 0) instead of x.
        in_shift: [I], beside in_scale.

    Returns:
        [N, O, H, W], dtype of x, channels_last. Only x gets a gradient.

    Raises:
        ValueError: a wrong shape, dtype, device or activation; a vector that requires a gradient;
            one of in_scale and in_shift without the other.

    """
    check_float("x", x)
    if not isinstance(weight, Conv3x3Weight):
        raise ValueError(f"weight: expected pack_conv3x3(weight), got {type(weight).__name__}")
    w = weight.weight
    check_same("weight", w, x, (w.shape[0], x.shape[1], 3, 3))
    vectors = {"bias": (bias, 0), "in_scale": (in_scale, 1), "in_shift": (in_shift, 1)}
    for name, (t, axis) in vectors.items():
        if t is not None:
            check_same(name, t, x, (w.shape[axis],))
            _check_frozen(name, t)
    if (in_scale is None) != (in_shift is None):
        raise ValueError("in_shift: expected exactly where there is an in_scale")
    if act not in ACTIVATIONS:
        raise ValueError(f"act: expected one of {', '.join(ACTIVATIONS)}, got {act!r}")
    if not alpha >= 0:
        raise ValueError(f"alpha: expected a number >= 0, got {alpha}")
    if not gain > 0:
        raise ValueError(f"gain: expected a number > 0, got {gain}")
    kernel = (w, weight.packed, weight.packed_back)
    config = (act, float(alpha), float(gain))
    return _extension.call("conv3x3", reference, x, *kernel, bias, *config, in_scale, in_shift)
