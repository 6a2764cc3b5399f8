"""Add a bias, apply an activation, scale, clamp: y = clip(act(x + b) * gain, -clamp, clamp).

Activations, with the gain that StyleGAN2 gives each (about one over the RMS of act(N(0, 1))):

    linear 1 | relu sqrt 2 | lrelu sqrt 2 (slope alpha, 0.2, below zero) | sigmoid 1 | tanh 1
    swish x * sigmoid(x), sqrt 2 | softplus log(1 + e^x), 1

The derivative passes where |act(x + b) * gain| < clamp strictly; at a kink (x + b = 0) relu has
slope 0 and lrelu slope alpha. The backward is an op of its own, linear in the incoming gradient;
its own derivative is built from it and from the second derivative of the activation.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import check_float, check_same, define, memory_format

__all__ = ["ACTIVATIONS", "bias_act", "default_gain"]

_SQRT2 = math.sqrt(2.0)
ACTIVATIONS: dict[str, float] = {
    "linear": 1.0,
    "relu": _SQRT2,
    "lrelu": _SQRT2,
    "sigmoid": 1.0,
    "tanh": 1.0,
    "swish": _SQRT2,
    "softplus": 1.0,
}
"""Activation name -> default gain."""

DEFAULT_ALPHA = 0.2


def default_gain(act: str) -> float:
    """Gain that StyleGAN2 uses with `act`; ValueError names the known ones."""
    if act not in ACTIVATIONS:
        raise ValueError(f"act: expected one of {', '.join(ACTIVATIONS)}, got {act!r}")
    return ACTIVATIONS[act]


def _biased(x: Tensor, b: Tensor | None, dim: int) -> Tensor:
    if b is None:
        return x
    return x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])


def _act(v: Tensor, act: str, alpha: float) -> Tensor:
    if act == "linear":
        return v
    if act == "relu":
        return v.relu()
    if act == "lrelu":
        return torch.where(v > 0, v, v * alpha)
    if act == "sigmoid":
        return v.sigmoid()
    if act == "tanh":
        return v.tanh()
    if act == "swish":
        return v * v.sigmoid()
    if act == "softplus":
        # torch's softplus becomes linear at 20, which is 2e-9 away from the truth.
        return v.clamp(min=0) + torch.log1p(torch.exp(-v.abs()))
    raise ValueError(f"act: expected one of {', '.join(ACTIVATIONS)}, got {act!r}")


def _slope(v: Tensor, act: str, alpha: float) -> Tensor:
    """First derivative of the activation at v."""
    if act == "linear":
        return torch.ones_like(v)
    if act == "relu":
        return (v > 0).to(v.dtype)
    if act == "lrelu":
        return torch.where(v > 0, torch.ones_like(v), torch.full_like(v, alpha))
    s = v.sigmoid()
    if act == "sigmoid":
        return s * (1 - s)
    if act == "tanh":
        return 1 - v.tanh().square()
    if act == "swish":
        return s * (1 + v * (1 - s))
    return s  # softplus


def _curvature(v: Tensor, act: str) -> Tensor | None:
    """Second derivative of the activation at v; None where it is zero everywhere."""
    if act in ("linear", "relu", "lrelu"):
        return None
    if act == "tanh":
        t = v.tanh()
        return -2 * t * (1 - t.square())
    s = v.sigmoid()
    ds = s * (1 - s)
    if act == "sigmoid":
        return ds * (1 - 2 * s)
    if act == "swish":
        return ds * (2 + v * (1 - 2 * s))
    return ds  # softplus


def reference(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float
) -> Tensor:
    """Plain torch form, in the dtype of x."""
    y = _act(_biased(x, b, dim), act, alpha) * gain
    if clamp >= 0:
        y = y.clamp(-clamp, clamp)
    y = y.clone() if y is x else y
    return y.contiguous(memory_format=_layout(x))


def grad_reference(
    dy: Tensor,
    x: Tensor,
    b: Tensor | None,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
) -> Tensor:
    """dL/dx from dL/dy and the inputs of the forward; plain torch, differentiable."""
    v = _biased(x, b, dim)
    dx = dy * (_slope(v, act, alpha) * gain)
    if clamp >= 0:
        dx = torch.where((_act(v, act, alpha) * gain).abs() < clamp, dx, torch.zeros_like(dx))
    return dx.contiguous(memory_format=_layout(x))


def _layout(x: Tensor) -> torch.memory_format:
    return memory_format(x) if x.ndim == 4 else torch.contiguous_format


def _fake(
    x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float
) -> Tensor:
    return x.new_empty(x.shape).contiguous(memory_format=_layout(x))


def _grad_fake(dy: Tensor, x: Tensor, b: Tensor | None, *config: Any) -> Tensor:
    return x.new_empty(x.shape).contiguous(memory_format=_layout(x))


def _bias_grad(dx: Tensor, dim: int) -> Tensor:
    others = [i for i in range(dx.ndim) if i != dim]
    return dx.sum(others) if others else dx  # torch reads an empty list as all axes


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    x, b, *ctx.config = inputs
    ctx.save_for_backward(x, b)


def _backward(ctx, dy: Tensor):  # type: ignore[no-untyped-def]
    x, b = ctx.saved_tensors
    dx = torch.ops.pyfacelat.bias_act_grad(dy, x, b, *ctx.config)
    db = _bias_grad(dx, ctx.config[0]) if ctx.needs_input_grad[1] else None
    return dx if ctx.needs_input_grad[0] else None, db, None, None, None, None, None


def _save_grad(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    dy, x, b, *ctx.config = inputs
    ctx.save_for_backward(dy, x, b)


def _backward_grad(ctx, g: Tensor):  # type: ignore[no-untyped-def]
    dy, x, b = ctx.saved_tensors
    dim, act, alpha, gain, clamp = ctx.config
    d_dy = torch.ops.pyfacelat.bias_act_grad(g, x, b, *ctx.config)
    d_x = d_b = None
    v = _biased(x, b, dim)
    curvature = _curvature(v, act)
    if curvature is not None and (ctx.needs_input_grad[1] or ctx.needs_input_grad[2]):
        d_x = g * dy * curvature * gain
        if clamp >= 0:
            inside = (_act(v, act, alpha) * gain).abs() < clamp
            d_x = torch.where(inside, d_x, torch.zeros_like(d_x))
        d_b = _bias_grad(d_x, dim) if ctx.needs_input_grad[2] else None
    return d_dy, d_x, d_b, None, None, None, None, None


_INPUTS = "Tensor x, Tensor? b, int dim, str act, float alpha, float gain, float clamp"
define(f"bias_act({_INPUTS}) -> Tensor", reference, _fake, _backward, _save)
define(
    f"bias_act_grad(Tensor dy, {_INPUTS}) -> Tensor",
    grad_reference,
    _grad_fake,
    _backward_grad,
    _save_grad,
)


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
) -> Tensor:
    """Bias, activation, gain and clamp in one pass.

    Args:
        x: any shape of rank >= 1, any float dtype.
        b: [x.shape[dim]], dtype and device of x; None adds nothing.
        dim: axis of x that b runs along (negative counts from the end).
        act: a key of `ACTIVATIONS`.
        alpha: slope of lrelu below zero; None is 0.2; the others ignore it.
        gain: factor after the activation; None is the activation's default.
        clamp: bound of |y|, >= 0; None is none.

    Returns:
        Shape, dtype and device of x.

    Raises:
        ValueError: unknown act, a wrong shape, dtype, device or dim, or clamp < 0.
    """
    if not isinstance(x, Tensor) or x.ndim < 1:
        raise ValueError("x: expected a tensor of rank >= 1")
    check_float("x", x, (x.ndim,))
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim: expected -{x.ndim} <= dim < {x.ndim}, got {dim}")
    dim %= x.ndim
    if b is not None:
        check_float("b", b, (1,))
        check_same("b", b, x, (x.shape[dim],))
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp: expected a number >= 0 or None, got {clamp}")
    default = default_gain(act)
    return _extension.call(
        "bias_act",
        reference,
        x,
        b,
        dim,
        act,
        DEFAULT_ALPHA if alpha is None else float(alpha),
        default if gain is None else float(gain),
        -1.0 if clamp is None else float(clamp),
    )
