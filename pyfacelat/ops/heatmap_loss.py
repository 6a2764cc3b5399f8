"""Weighted distance of two stacks of landmark heat maps, with its gradient, in one pass.

With d = maps - target and one weight w per landmark:

    l2            sqrt(max(sum((w d)^2), 1e-16)): one norm over everything
    l1            sum(w |d|)
    mse           mean(w d^2)
    per_landmark  sum_k(w_k sqrt(sum(d_k^2) + 1e-8)) / max(sum(w), 1e-8)

Zero distance has zero gradient. The target is given as maps, or as points: then it is a Gaussian of
height 1 around each, exp(-|cell centre - point|^2 / (2 sigma^2)), made on the way and never stored.

The gradient to a map is a number, which the sums decide, times the direction d (l1: its sign). So
one pass over the maps writes the direction and the sums, and the backward multiplies.
"""

from __future__ import annotations

from typing import Literal, get_args

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

__all__ = ["Reduction", "heatmap_loss"]

Reduction = Literal["l2", "l1", "mse", "per_landmark"]

TINY = 1e-16  # squared distance below which the norm's gradient is zero instead of infinite
EPS = 1e-8


def draw(points: Tensor, height: int, width: int, sigma: float) -> Tensor:
    """Gaussians [N,K,H,W] around points [N,K,2], relative to the image."""
    x = torch.arange(width, device=points.device, dtype=points.dtype) + 0.5
    y = torch.arange(height, device=points.device, dtype=points.dtype) + 0.5
    along_x = torch.exp(-((x - points[..., :1] * width) ** 2) / (2 * sigma**2))
    along_y = torch.exp(-((y - points[..., 1:] * height) ** 2) / (2 * sigma**2))
    return along_y[..., :, None] * along_x[..., None, :]


def reference(
    maps: Tensor, target: Tensor, weights: Tensor, reduction: str, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Plain torch form: value [N], scale [N,K] and direction [N,K,H,W].

    The gradient of a value to its maps is scale * direction.
    """
    n, k, height, width = maps.shape
    goal = target if target.ndim == 4 else draw(target, height, width, sigma)
    direction = difference = maps.to(target.dtype) - goal
    w = weights.expand(n, k)
    if reduction == "l2":
        squared = (difference * w[..., None, None]).square().sum((1, 2, 3))
        value = squared.clamp_min(TINY).sqrt()
        scale = torch.where(squared[:, None] < TINY, 0.0, w.square() / value[:, None])
    elif reduction == "l1":
        value = (difference.abs().sum((2, 3)) * w).sum(1)
        direction, scale = difference.sign(), w
    elif reduction == "mse":
        value = (difference.square().mean((2, 3)) * w).mean(1)
        scale = w * (2 / (k * height * width))
    elif reduction == "per_landmark":
        norms = (difference.square().sum((2, 3)) + EPS).sqrt()
        total = w.sum(1, keepdim=True).clamp_min(EPS)
        value = (norms * w).sum(1) / total[:, 0]
        scale = w / (norms * total)
    else:
        raise ValueError(f"reduction: expected one of {get_args(Reduction)}, got {reduction!r}")
    direction = direction.to(maps.dtype).contiguous(memory_format=memory_format(maps))
    return value, scale.clone(memory_format=torch.contiguous_format), direction


def _fake(
    maps: Tensor, target: Tensor, weights: Tensor, reduction: str, sigma: float
) -> tuple[Tensor, Tensor, Tensor]:
    wide = accumulated(maps.dtype)
    direction = maps.new_empty(maps.shape).contiguous(memory_format=memory_format(maps))
    n, k = maps.shape[:2]
    return maps.new_empty(n, dtype=wide), maps.new_empty(n, k, dtype=wide), direction


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.target_shape = inputs[1].shape
    ctx.mark_non_differentiable(output[1], output[2])
    ctx.save_for_backward(output[1], output[2])


@once_differentiable
def _backward(ctx, dvalue: Tensor, *_: Tensor):  # type: ignore[no-untyped-def]
    scale, direction = ctx.saved_tensors
    gradient = direction * (scale * dvalue[:, None])[..., None, None]
    dtarget = None
    if ctx.needs_input_grad[1]:
        dtarget = -gradient
        if ctx.target_shape[0] == 1:
            dtarget = dtarget.sum(0, keepdim=True)
    return gradient.to(direction.dtype), dtarget, None, None, None


define(
    "heatmap_loss(Tensor maps, Tensor target, Tensor weights, str reduction, float sigma)"
    " -> (Tensor, Tensor, Tensor)",
    reference,
    _fake,
    _backward,
    _save,
)
define_triton("heatmap_loss", lambda *a: kernels("heatmap_loss").heatmap_loss(*a))


def heatmap_loss(
    maps: Tensor,
    target: Tensor,
    weights: Tensor,
    *,
    reduction: Reduction = "l2",
    sigma: float = 1.0,
) -> Tensor:
    """Distance of heat maps to target maps, or to Gaussians around target points.

    Differentiable once, to the maps and to target maps.

    Args:
        maps: [N,K,H,W], any float dtype.
        target: maps [N or 1,K,H,W], or points [N or 1,K,2] in units of the image (x, y).
        weights: of each landmark, [K], [1,K] or [N,K], >= 0.
        reduction: see the top of this file.
        sigma: of the Gaussians around points, in cells, > 0.

    Returns:
        [N], float32 for 16-bit maps, else their dtype.

    Raises:
        ValueError: a wrong shape, dtype, device, reduction or sigma; or points or weights that
            require a gradient.
    """
    check_float("maps", maps)
    n, k, height, width = maps.shape
    wide = maps.new_empty(0, dtype=accumulated(maps.dtype))
    if not isinstance(target, Tensor) or target.ndim not in (3, 4):
        raise ValueError("target: expected heat maps [N,K,H,W] or points [N,K,2]")
    images = 1 if target.shape[0] == 1 else n
    target = target.to(wide.dtype)
    shape = (images, k, height, width) if target.ndim == 4 else (images, k, 2)
    check_same("target", target, wide, shape)
    weights = (weights[None] if weights.ndim == 1 else weights).to(wide.dtype)
    check_same("weights", weights, wide, (1 if weights.shape[0] == 1 else n, k))
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction: expected one of {get_args(Reduction)}, got {reduction!r}")
    if not sigma > 0:
        raise ValueError(f"sigma: expected a number > 0, got {sigma}")
    if torch.is_grad_enabled() and (
        weights.requires_grad or target.requires_grad and target.ndim == 3
    ):
        raise ValueError("weights and target points: expected tensors that require no gradient")
    value, _, _ = _extension.call(
        "heatmap_loss", reference, maps, target, weights, reduction, float(sigma)
    )
    return value
