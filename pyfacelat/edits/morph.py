"""Paths between latents, straight or along great circles, and weighted blends of many.

A path is a path in some coordinates: W+ as it is, W (one row, repeated), or whitened W, where the
generator's own latents are a round cloud about 0. There great circles keep the typical length, so
that faces in the middle are as distinct as those at the ends; straight lines pass nearer the
average face.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol, get_args

import torch
from torch import Tensor

from pyfacelat.errors import ConfigError

__all__ = ["Coordinates", "Method", "blend", "morph", "slerp"]

Method = Literal["linear", "spherical"]

_NEARLY_PARALLEL = 1e-4  # radians; below, a great circle is a line to within rounding


class Coordinates(Protocol):
    """Where paths are straight or round; `projection.space.LatentSpace` is one."""

    def from_ws(self, ws: Tensor) -> Tensor:
        """Latents [K,L,D] to coordinates [K,rows,D]."""

    def to_ws(self, theta: Tensor) -> Tensor:
        """Coordinates [...,rows,D] to latents [...,L,D]."""


def morph(
    keys: Tensor,
    *,
    steps: int = 20,
    method: Method = "linear",
    space: Coordinates | None = None,
    loop: bool = False,
) -> Tensor:
    """Walk through latents one after the other.

    Args:
        keys: [K,L,D], K >= 2.
        steps: frames from one key to the next, >= 1.
        method: "linear", or "spherical" (see `slerp`): great circles about the coordinates' 0, so
            take whitened coordinates for it.
        space: coordinates of the path; None is W+ itself.
        loop: go back to the first key at the end.

    Returns:
        [(K - 1) * steps + 1, L, D] (K * steps with `loop`, whose last frame precedes the first).
        Frames at the keys equal the keys bit for bit, unless the space cannot hold them (W+ keys in
        the space W: there they are the keys' mean rows).

    Raises:
        ConfigError: fewer than two keys, no steps, an unknown method, or opposite keys on a sphere.
    """
    if keys.ndim != 3 or len(keys) < 2:
        raise ConfigError(f"keys: expected latents [K, L, D] with K >= 2, got {list(keys.shape)}")
    if steps < 1:
        raise ConfigError(f"steps: expected at least 1, got {steps}")
    if method not in get_args(Method):
        raise ConfigError(f"method: expected one of {get_args(Method)}, got {method!r}")
    theta = keys if space is None else space.from_ws(keys)
    ends = [*range(len(keys)), 0] if loop else list(range(len(keys)))
    frames = list(_walk(theta, ends, steps, method))
    path = torch.stack(frames[:-1] if loop else frames)
    out = path if space is None else space.to_ws(path).clone()
    if theta.shape == keys.shape:  # nothing is lost but the last bits of a change of basis
        out[::steps] = keys[: len(out[::steps])].to(out)
    return out


def slerp(a: Tensor, b: Tensor, t: float) -> Tensor:
    """Interpolate rows [..., D] along the great circle, and their lengths linearly.

        u(t) = sin((1-t) phi) / sin(phi) u_a + sin(t phi) / sin(phi) u_b,   |.| = (1-t) |a| + t |b|

    (Shoemake 1985.) Rows that point the same way, to 1e-4, are joined by a line.

    Raises:
        ConfigError: two rows point in opposite directions, or one is zero, so that there is no
            circle through them.
    """
    # In float64: near 0 and pi the angle is lost to rounding.
    a64, b64 = a.double(), b.double()
    length_a, length_b = a64.norm(dim=-1, keepdim=True), b64.norm(dim=-1, keepdim=True)
    if not bool((length_a > 0).all() and (length_b > 0).all()):
        raise ConfigError("keys: a row of zeros has no direction; use the linear method")
    unit_a, unit_b = a64 / length_a, b64 / length_b
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1), (unit_a + unit_b).norm(dim=-1))
    if bool((angle > torch.pi - 1e-6).any()):
        raise ConfigError("keys: two rows point in opposite directions; use the linear method")
    phi = angle.clamp_min(_NEARLY_PARALLEL).unsqueeze(-1)
    round_ = (torch.sin((1 - t) * phi) * unit_a + torch.sin(t * phi) * unit_b) / torch.sin(phi)
    straight = torch.lerp(unit_a, unit_b, t)
    unit = torch.where(angle.unsqueeze(-1) < _NEARLY_PARALLEL, straight, round_)
    return (unit * torch.lerp(length_a, length_b, t)).to(a.dtype)


def blend(keys: Tensor, weights: Tensor, *, space: Coordinates | None = None) -> Tensor:
    """Weighted means of latents.

    Args:
        keys: [K,L,D].
        weights: [K] or [M,K], float; each row is divided by its sum, which must not be 0. Negative
            weights lead away from a key.
        space: coordinates in which the mean is taken; None is W+.

    Returns:
        [L,D] or [M,L,D].

    Raises:
        ConfigError: shapes that do not fit, or weights that sum to 0.
    """
    if keys.ndim != 3 or weights.ndim not in (1, 2) or weights.shape[-1] != len(keys):
        raise ConfigError(
            f"weights: expected one for each of the keys {list(keys.shape)}, "
            f"got shape {list(weights.shape)}"
        )
    total = weights.double().sum(-1, keepdim=True)
    if not bool(torch.isfinite(total).all()) or bool((total.abs() < 1e-12).any()):
        raise ConfigError(f"weights: expected finite sums other than 0, got {total.tolist()}")
    theta = keys if space is None else space.from_ws(keys)
    shares = (weights.double() / total).to(theta)
    mean = torch.tensordot(shares, theta, dims=1)
    return mean if space is None else space.to_ws(mean).clone()


def _walk(theta: Tensor, ends: Sequence[int], steps: int, method: Method) -> Iterator[Tensor]:
    step = torch.lerp if method == "linear" else slerp
    for first, second in zip(ends, ends[1:], strict=False):
        for i in range(steps):
            yield step(theta[first], theta[second], i / steps) if i else theta[first]
    yield theta[ends[-1]]
