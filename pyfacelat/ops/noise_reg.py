"""The noise regulariser of all maps in one call, and the update of the maps that follows it.

With n_0 a noise map and n_k+1 the 2x2 means of n_k, down to the first level at most 8 rows high
(Karras et al. 2020, appendix D):

    value = sum over maps and levels of X^2 + Y^2,  X = mean(n * roll_x(n)), Y = mean(n * roll_y(n))

dX/dn of a pixel is the sum of its left and right neighbour (around the edges) over the number of
pixels, and a coarser level's gradient reaches each of the four pixels below it by a quarter. So the
gradient needs no more than the pyramid and its sums: both come out of one op.

`noise_update_` then does what a step does with the gradient: Adam (Kingma & Ba 2015, as
torch.optim.Adam computes it), and mean 0 and RMS 1 for each map of each item.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops._library import check_same, define, define_triton, kernels, once_differentiable

__all__ = [
    "adam_update_",
    "noise_reg",
    "noise_reg_with_gradient",
    "noise_update_",
    "pack_maps",
    "unpack_maps",
]

SMALLEST = 8  # the pyramid's last level is the first one of at most this many rows
BETA1, BETA2, EPS = 0.9, 0.999, 1e-8


def reference(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Plain torch form: value [N], and its gradient [N,P], the maps' own one after the other."""
    value = maps[0].new_zeros(maps[0].shape[0])
    gradients = []
    for finest in maps:
        pyramid = [finest]
        while pyramid[-1].shape[1] > SMALLEST:
            pyramid.append(F.avg_pool2d(pyramid[-1][:, None], 2)[:, 0])
        gradient: Tensor | None = None
        for level in reversed(pyramid):
            left, above = level.roll(1, dims=2), level.roll(1, dims=1)
            x, y = (level * left).mean((1, 2)), (level * above).mean((1, 2))
            value = value + x.square() + y.square()
            own = x[:, None, None] * (left + level.roll(-1, dims=2))
            own = own + y[:, None, None] * (above + level.roll(-1, dims=1))
            own = own * (2 / (level.shape[1] * level.shape[2]))
            gradient = own if gradient is None else own + _enlarge(gradient, level) / 4
        assert gradient is not None
        gradients.append(gradient.flatten(1))
    return value, torch.cat(gradients, 1)


def _enlarge(x: Tensor, like: Tensor) -> Tensor:
    """Each pixel twice along both axes; a last odd row or column of `like` gets zeros."""
    x = x.repeat_interleave(2, 1).repeat_interleave(2, 2)
    return F.pad(x, (0, like.shape[2] - x.shape[2], 0, like.shape[1] - x.shape[1]))


def _fake(maps: list[Tensor]) -> tuple[Tensor, Tensor]:
    n = maps[0].shape[0]
    return maps[0].new_empty(n), maps[0].new_empty(n, sum(m.shape[1] * m.shape[2] for m in maps))


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    ctx.shapes = [m.shape for m in inputs[0]]
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(output[1])


@once_differentiable
def _backward(ctx, dvalue: Tensor, _: Tensor):  # type: ignore[no-untyped-def]
    (gradient,) = ctx.saved_tensors
    scaled = gradient * dvalue[:, None]
    return _views(scaled, [s[1:] for s in ctx.shapes])


def _views(packed: Tensor, shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    pieces = packed.split([h * w for h, w in shapes], 1)
    return [p.unflatten(1, (h, w)) for p, (h, w) in zip(pieces, shapes, strict=True)]


def update_reference(
    maps: Tensor,
    first: Tensor,
    second: Tensor,
    gradients: list[Tensor],
    rates: Tensor,
    sizes: Sequence[int],
    regular: Tensor | None,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Plain torch form, in place."""
    gradient = torch.cat([g.flatten(1) for g in gradients], 1)
    rate, correction1, correction2, factor = rates.unbind()
    if regular is not None:
        gradient = gradient + factor * regular
    first.lerp_(gradient, 1 - beta1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    maps.sub_(rate / correction1 * (first / (second.sqrt() / correction2 + eps)))
    if sizes:
        for noise in _views(maps, _pairs(sizes)):
            noise.sub_(noise.mean((1, 2), keepdim=True))
            noise.mul_(noise.square().mean((1, 2), keepdim=True).rsqrt())


def _update_fake(*_: Any) -> None:
    return None


def _pairs(sizes: Sequence[int]) -> list[tuple[int, int]]:
    return list(zip(sizes[::2], sizes[1::2], strict=True))


define("noise_reg(Tensor[] maps) -> (Tensor, Tensor)", reference, _fake, _backward, _save)
define(
    "noise_update(Tensor(a!) maps, Tensor(b!) first, Tensor(c!) second, Tensor[] gradients, "
    "Tensor rates, int[] sizes, Tensor? regular, float beta1, float beta2, float eps) -> ()",
    update_reference,
    _update_fake,
)
define_triton("noise_reg", lambda *a: kernels("noise_reg").noise_reg(*a))
define_triton("noise_update", lambda *a: kernels("noise_update").noise_update(*a))


def noise_reg(maps: Sequence[Tensor]) -> Tensor:
    """Squared autocorrelation of noise maps with their neighbours, over a pyramid of 2x2 means.

    Differentiable once.

    Args:
        maps: noise maps, each [N,H,W], one float dtype and device; 16-bit maps count as float32.

    Returns:
        [N], the dtype of the maps (float32 for 16-bit ones).

    Raises:
        ValueError: no map, a wrong shape, dtype or device, or a map so narrow that a level of its
            pyramid is empty.
    """
    value, _ = _extension.call("noise_reg", reference, _checked(maps))
    return value


@torch.no_grad()
def noise_reg_with_gradient(maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """`noise_reg` and its gradient, outside of autograd.

    Args:
        maps: as for `noise_reg`.

    Returns:
        value [N]; gradient [N,P] of each item's value to its maps, one map after the other.

    Raises:
        ValueError: as `noise_reg`.
    """
    return _extension.call("noise_reg", reference, _checked(maps))


def _checked(maps: Sequence[Tensor]) -> list[Tensor]:
    maps = list(maps)
    if not maps:
        raise ValueError("maps: expected at least one noise map, got none")
    for i, m in enumerate(maps):
        if m.ndim != 3 or len(m) != len(maps[0]) or not m.is_floating_point():
            raise ValueError(
                f"maps[{i}]: expected a float tensor of shape [{len(maps[0])}, H, W], "
                f"got {m.dtype} {list(m.shape)}"
            )
        check_same(f"maps[{i}]", m, maps[0], tuple(m.shape))
        height, width = m.shape[1:]
        while height > SMALLEST:
            height, width = height // 2, width // 2
        if height < 1 or width < 1:
            raise ValueError(
                f"maps[{i}]: expected a map whose pyramid has no empty level, "
                f"got {list(m.shape[1:])}"
            )
    wide = (torch.float32, torch.float64)
    return maps if maps[0].dtype in wide else [m.float() for m in maps]


def pack_maps(maps: Sequence[Tensor]) -> tuple[Tensor, list[int], list[Tensor]]:
    """Copy maps into one tensor, which is what `noise_update_` moves in one call.

    Args:
        maps: each [N,H,W], of one dtype and device.

    Returns:
        packed [N,P]; the sizes h0, w0, h1, w1, ...; and views of `packed`, each [N,H,W].
    """
    sizes = [int(s) for m in maps for s in m.shape[1:]]
    packed = torch.cat([m.detach().flatten(1) for m in maps], 1)
    return packed, sizes, _views(packed, _pairs(sizes))


def unpack_maps(packed: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Views of packed maps [N,P], each [N,H,W], for sizes h0, w0, h1, w1, ..."""
    return _views(packed, _pairs(sizes))


@torch.no_grad()
def noise_update_(
    packed: Tensor,
    first: Tensor,
    second: Tensor,
    gradients: Sequence[Tensor],
    rates: Tensor,
    sizes: Sequence[int],
    *,
    regular: Tensor | None = None,
    beta1: float = BETA1,
    beta2: float = BETA2,
    eps: float = EPS,
) -> None:
    """One step of Adam on all noise maps, then mean 0 and RMS 1 for each map and item; in place.

    Args:
        packed: the maps, [N,P] float32 or float64, contiguous (`pack_maps`).
        first: Adam's first moment, as `packed`.
        second: Adam's second moment, as `packed`.
        gradients: of each map, [N,H,W].
        rates: on the device, [4]: learning rate, 1 - beta1^k, sqrt(1 - beta2^k), and the factor of
            `regular`.
        sizes: h0, w0, h1, w1, ...; [] leaves out the normalisation.
        regular: [N,P], added to the gradients times rates[3] (`noise_reg_with_gradient`).
        beta1: Adam's decay of the first moment.
        beta2: Adam's decay of the second moment.
        eps: Adam's.

    Raises:
        ValueError: a wrong shape, dtype, device or layout.
    """
    if packed.ndim != 2 or packed.dtype not in (torch.float32, torch.float64):
        raise ValueError(
            f"packed: expected float32 or float64 of shape [N, P], "
            f"got {packed.dtype} {list(packed.shape)}"
        )
    shape = tuple(packed.shape)
    state = {"packed": packed, "first": first, "second": second}
    for name, t in state.items():
        check_same(name, t, packed, shape)
        if not t.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor, got strides {t.stride()}")
    check_same("rates", rates, packed, (4,))
    if regular is not None:
        check_same("regular", regular, packed, shape)
    expected = [(shape[0], h, w) for h, w in _pairs(sizes)]
    if sizes and (sum(h * w for _, h, w in expected) != shape[1] or min(sizes) < 1):
        raise ValueError(f"sizes: expected positive ones of {shape[1]} pixels, got {list(sizes)}")
    if sizes and len(gradients) != len(expected):
        raise ValueError(f"gradients: expected {len(expected)} tensors, got {len(gradients)}")
    for i, g in enumerate(gradients):
        check_same(f"gradients[{i}]", g, packed, expected[i] if sizes else tuple(g.shape))
    _extension.call(
        "noise_update", update_reference, packed, first, second, list(gradients), rates,
        list(sizes), regular, beta1, beta2, eps,
    )  # fmt: skip


def adam_update_(x: Tensor, first: Tensor, second: Tensor, gradient: Tensor, rates: Tensor) -> None:
    """One step of Adam, in place.

    Args:
        x: what moves, [N,...] float32 or float64, contiguous.
        first: Adam's first moment, as `x`.
        second: Adam's second moment, as `x`.
        gradient: as `x`.
        rates: on the device, [4]: learning rate, 1 - beta1^k, sqrt(1 - beta2^k), unused.

    Raises:
        ValueError: a wrong shape, dtype, device or layout.
    """
    check_same("gradient", gradient, x, tuple(x.shape))
    for name, t in {"x": x, "first": first, "second": second}.items():
        if not t.is_contiguous():
            raise ValueError(f"{name}: expected a contiguous tensor, got strides {t.stride()}")
    if x.numel():
        a, b, c = (t.view(len(t), -1) for t in (x, first, second))
        noise_update_(a, b, c, [gradient], rates, [])
