"""Terms that tie the frames of a clip to their neighbours in time, one value per frame.

A batch holds frames in order; `before` and `after` are frames beside it that do not move, so that
a clip can be worked on in parts.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyfacelat.losses.coordinate import local_soft_argmax

_EPS = 1e-6  # the published code's
_TINY = 1e-12


def smoothness(ws: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Distance from the frame before: sum over rows and channels of sqrt((w - w_before)^2 + 1e-6).

    The smoothness term of the published landmark projection for video (2021).

    Args:
        ws: latents as the generator takes them, [N,L,D].
        before: of the frames just before, [0..2,L,D]; the first frame of a clip has none, and 0.
        after: of those just after; the last frame answers for its distance to them as well.

    Returns:
        [N].
    """
    track, shift = _joined(ws, before[-1:], after[:1])
    lengths = ((track[1:] - track[:-1]).square() + _EPS).sqrt().flatten(1).sum(1)
    return _given_to_frames(lengths, 1 - shift, len(ws))


def acceleration(v: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Second difference in time: mean((v_before - 2 v + v_after)^2); 0 for steady motion.

    Args:
        v: whitened latents [N,L,D].
        before: of the frames just before, [0..2,L,D].
        after: of those just after.

    Returns:
        [N]; frames without two neighbours have 0.
    """
    track, shift = _joined(v, before, after)
    bends = (track[2:] - 2 * track[1:-1] + track[:-2]).square().flatten(1).mean(1)
    return _given_to_frames(bends, 1 - shift, len(v))


def jitter(maps: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """Second difference in time of the landmarks' errors, in cells: how they tremble about a track.

    sum_k w_k |e_before,k - 2 e_k + e_after,k|^2 / sum_k w_k, where e_k is the way from target point
    k to the peak of map k. A lasting offset costs nothing, nor does motion that the track has.

    Args:
        maps: heat maps of frames in order, [N,68,H,W].
        target: points of the track, [N,68,2], relative.
        weights: one per landmark, [68], >= 0.

    Returns:
        [N]; the first and the last frame have 0.
    """
    errors = local_soft_argmax(maps) - target.to(maps)
    bends = (errors[2:] - 2 * errors[1:-1] + errors[:-2]).square()
    bends = bends[..., 0] * maps.shape[-1] ** 2 + bends[..., 1] * maps.shape[-2] ** 2
    weights = weights.to(maps)
    values = (bends * weights).sum(1) / weights.sum().clamp_min(_TINY)
    return _given_to_frames(values, 1, len(maps))


def _joined(frames: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, int]:
    """All frames in order, and how many come before the batch."""
    return torch.cat([before.to(frames), frames, after.to(frames)]), len(before)


def _given_to_frames(values: Tensor, first: int, count: int) -> Tensor:
    """Values [K] of which the k-th belongs to frame first + k, or the nearest there is: [count].

    By a product, since scattered sums have no fixed order on a GPU.
    """
    owner = (torch.arange(len(values), device=values.device) + first).clamp(0, count - 1)
    frames = torch.arange(count, device=values.device)
    return (frames[:, None] == owner).to(values) @ values
