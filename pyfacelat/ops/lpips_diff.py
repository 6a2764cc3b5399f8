"""LPIPS's comparison of two feature maps, with its gradient, in one pass (arXiv:1801.03924).

    u = x / (|x| + 1e-10), |x| the length along the channels; 0 where x is 0
    value[n] = sum over pixels p of m[n,p] * sum over channels c of lin[c] * (u - t)^2

t is a target that `lpips_unit` has brought to unit length once, m a weight per pixel (the mean, by
default). With e = 2 m lin (u - t), the gradient to u, and s = 1 / (|x| + 1e-10):

    d value / dx = s e - (sum over channels of e u) u / |x|, and 0 where x is 0
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import (
    accumulated,
    check_float,
    check_same,
    define,
    define_triton,
    kernels,
    memory_format,
    once_differentiable,
)

__all__ = ["lpips_diff", "lpips_unit"]

EPS = 1e-10


def _lengths(wide: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Where x is not zero, its length there (else 1), and what x is scaled by; [N,1,H,W] each."""
    squared = wide.square().sum(dim=1, keepdim=True)
    there = squared > 0
    length = torch.where(there, squared, 1.0).sqrt()
    return there, length, torch.where(there, 1.0 / (length + EPS), 0.0)


def unit_reference(x: Tensor) -> Tensor:
    """Plain torch form, with derivative 0 (not NaN) where x is 0."""
    wide = x.to(accumulated(x.dtype))
    u = wide * _lengths(wide)[2]
    return u.contiguous(memory_format=memory_format(x))


def reference(
    x: Tensor, target: Tensor, lin: Tensor, weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Plain torch form: value [N], and its gradient to x."""
    wide = x.to(accumulated(x.dtype))
    there, length, scale = _lengths(wide)
    u = wide * scale
    share = 1 / max(1, x.shape[2] * x.shape[3]) if weights is None else weights[:, None]
    apart = u - target
    weighted = lin[:, None, None] * apart
    value = ((weighted * apart).sum(1, keepdim=True) * share).sum((1, 2, 3))
    e = 2 * share * weighted
    along = (e * u).sum(1, keepdim=True)
    gradient = torch.where(there, scale * e - along * u / length, 0.0).to(x.dtype)
    return value, gradient.contiguous(memory_format=memory_format(x))


def _unit_fake(x: Tensor) -> Tensor:
    u = x.new_empty(x.shape, dtype=accumulated(x.dtype))
    return u.contiguous(memory_format=memory_format(x))


def _save_unit(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.save_for_backward(inputs[0], output)


@once_differentiable
def _unit_backward(ctx, du: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
    x, u = ctx.saved_tensors
    there, length, scale = _lengths(x.to(u.dtype))
    along = (du * u).sum(1, keepdim=True)
    return torch.where(there, scale * du - along * u / length, 0.0).to(x.dtype)


def _fake(x: Tensor, target: Tensor, lin: Tensor, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    gradient = x.new_empty(x.shape).contiguous(memory_format=memory_format(x))
    return x.new_empty(x.shape[0], dtype=accumulated(x.dtype)), gradient


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


@once_differentiable
def _backward(ctx, dvalue: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
    (gradient,) = ctx.saved_tensors
    return gradient * dvalue.to(gradient.dtype)[:, None, None, None], None, None, None


define("lpips_unit(Tensor x) -> Tensor", unit_reference, _unit_fake, _unit_backward, _save_unit)
define(
    "lpips_diff(Tensor x, Tensor target, Tensor lin, Tensor? weights) -> (Tensor, Tensor)",
    reference,
    _fake,
    _backward,
    _save,
)
define_triton("lpips_unit", lambda x: kernels("lpips_diff").lpips_unit(x))
define_triton("lpips_diff", lambda *a: kernels("lpips_diff").lpips_diff(*a))


def lpips_unit(x: Tensor) -> Tensor:
    """Features of unit length along the channels; what `lpips_diff` takes as its target.

    Differentiable once.

    Args:
        x: features [N,C,H,W], any float dtype, NCHW or (faster) NHWC.

    Returns:
        The shape and layout of x, float32 for 16-bit dtypes, else x's. Length 1, or 0 where x is 0.

    Raises:
        ValueError: a wrong shape or dtype.
    """
    check_float("x", x)
    return _extension.call("lpips_unit", unit_reference, x)


def lpips_diff(x: Tensor, target: Tensor, lin: Tensor, weights: Tensor | None = None) -> Tensor:
    """Weighted squared difference of features of unit length, one value an image.

    Differentiable once, to x alone.

    Args:
        x: features [N,C,H,W] as the network gives them, any float dtype.
        target: [N or 1,C,H,W], of `lpips_unit`; in x's layout it is read where it lies.
        lin: weight of each channel, [C], dtype of the target.
        weights: of each pixel, [N or 1,H,W], dtype of the target; None: the mean over pixels.

    Returns:
        [N], dtype of the target.

    Raises:
        ValueError: a wrong shape, dtype or device.
    """
    check_float("x", x)
    n, c, h, w = x.shape
    wide = x.new_empty(0, dtype=accumulated(x.dtype))
    images = 1 if target.shape[:1] == (1,) else n
    check_same("target", target, wide, (images, c, h, w))
    check_same("lin", lin, wide, (c,))
    if weights is not None:
        rows = 1 if weights.shape[:1] == (1,) else n
        check_same("weights", weights, wide, (rows, h, w))
    value, _ = _extension.call("lpips_diff", reference, x, target, lin, weights)
    return value
