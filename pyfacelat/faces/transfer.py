"""Carry landmarks from one face to another without the head: similarities between point sets."""

from __future__ import annotations

import torch
from torch import Tensor

STABLE = (27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 39, 42, 45)
"""Nose and eye corners: what moves with the head and hardly with the expression."""


def fit_similarity(source: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
    """The rotation, scale and shift that bring points nearest to others, by least squares.

    min over a, b of sum_k w_k |a p_k + b - q_k|^2 with points as complex numbers, a for rotation
    and scale together (the planar case of Umeyama 1991); reflections are not among them.

    Args:
        source: [N,K,2].
        target: [N,K,2].
        weights: [K] or [N,K], >= 0; None for all ones.

    Returns:
        [N,2,3] in the points' dtype; where the source's points all coincide, a shift.
    """
    p = torch.view_as_complex(source.contiguous())
    q = torch.view_as_complex(target.contiguous())
    w = torch.ones_like(source[..., 0]) if weights is None else weights.expand_as(source[..., 0])
    w = w / w.sum(-1, keepdim=True).clamp_min(1e-30)
    middle_p, middle_q = (w * p).sum(-1, keepdim=True), (w * q).sum(-1, keepdim=True)
    p, q = p - middle_p, q - middle_q
    spread = (w * p.abs().square()).sum(-1, keepdim=True)
    turn = (w * p.conj() * q).sum(-1, keepdim=True) / spread.clamp_min(1e-30)
    turn = torch.where(spread > 0, turn, torch.ones_like(turn))
    shift = (middle_q - turn * middle_p)[..., 0]
    a, b = turn[..., 0].real, turn[..., 0].imag
    return torch.stack(
        [torch.stack([a, -b, shift.real], -1), torch.stack([b, a, shift.imag], -1)], dim=-2
    )


def apply_similarity(matrix: Tensor, points: Tensor) -> Tensor:
    """Points [N,K,2] under matrices [N,2,3]."""
    return points @ matrix[..., :2].mT + matrix[..., None, :, 2]


def keep_pose(points: Tensor, look: Tensor) -> Tensor:
    """Another face's landmarks with this head's place, size and tilt: its expression, not its pose.

    The similarity that brings the other face's nose and eye corners onto this one's is applied to
    all its points. The other face's proportions come along; a turn of the head out of the picture's
    plane is taken for a difference of proportions.

    Args:
        points: of the other face, [N,68,2].
        look: of this one, [N,68,2], in the same units.

    Returns:
        [N,68,2].
    """
    stable = list(STABLE)
    matrix = fit_similarity(points[:, stable], look[:, stable])
    return apply_similarity(matrix, points)
