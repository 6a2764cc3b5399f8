"""Channel weights of the sample perceptual metric, fitted so that it sees what changes in a face.

Counting every stage alike, a metric hears light and pose and is deaf to a gaze. Here pairs of faces
that differ by known amounts are rendered: one parameter by a step, or all of them by a share. With
t = sum over parameters of |difference| / sd and F[k, c] the squared difference of channel c of
map k, averaged over pixels, the weights minimise

    sum over pairs of share * (log(sum_kc lin[k, c] F[k, c] + e) - log(t + e))^2,   lin >= 0,

the pairs that differ in everything having as large a share as all others together. The logarithm
makes deafness to a parameter as bad as shrillness; e only keeps it finite. Zhang et al. 2018 fit
such weights to people's judgements.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat import procface
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.sample_encoder import FeatureTrunk, SampleEncoder

__all__ = [
    "Pairs",
    "calibrate",
    "fit_weights",
    "measure",
    "rank_correlation",
    "render_pairs",
]

LEAST = 0.05
"""Parameter distances below this count as this: the ends of a range hardly move."""

SOFT = 0.02
"""e of the module's docstring."""

UNRELATED = 0.5
"""Distance of two unrelated faces, on average; fixes the scale of the weights."""


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Pairs of pictures that differ by known amounts.

    Attributes:
        first, second: indices into `images`, [N].
        images: [M,3,S,S] in [-1,1].
        distance: t of the module's docstring, [N].
        parameter: [N], which parameter differs; -1: all of them do.
        unrelated: [N], whether the two faces have nothing in common.
    """

    first: Tensor
    second: Tensor
    images: Tensor
    distance: Tensor
    parameter: Tensor
    unrelated: Tensor


def render_pairs(seed: int, faces: int, size: int, threads: int = 1) -> Pairs:
    """Render `faces` procedural faces, each changed in every single way and in all ways at once.

    A face z becomes, for every parameter, z with a step of 0.5 to 1.5 standard deviations up or
    down, and cos(a) z + sin(a) z' for eight angles up to a right angle.
    """
    rng = np.random.default_rng(seed)
    count = procface.Z_DIM
    rows: list[NDArray[np.float64]] = []
    first, second, parameter, unrelated = [], [], [], []
    for _ in range(faces):
        z, other = rng.standard_normal((2, count))
        z /= np.sqrt(np.mean(z**2))
        base = len(rows)
        rows.append(procface.from_latent(z)[0])
        for i in range(count):
            moved = z.copy()
            moved[i] += rng.uniform(0.5, 1.5) * rng.choice([-1, 1])
            # One parameter only: the latent's normalisation, and hair's tie to skin, left aside.
            row = rows[base].copy()
            row[i] = procface.from_latent(moved)[0, i]
            rows.append(row)
            parameter.append(i)
            unrelated.append(False)
        for step in range(1, 9):
            angle = step / 8 * np.pi / 2
            rows.append(procface.from_latent(np.cos(angle) * z + np.sin(angle) * other)[0])
            parameter.append(-1)
            unrelated.append(step == 8)
        first += [base] * (count + 8)
        second += range(base + 1, len(rows))
    params = np.stack(rows)
    sd = np.array([p.sd for p in procface.PARAMS])
    apart = np.abs(params[first] - params[second]) / sd
    pixels = procface.render(params, size=size, threads=threads)["image"]
    return Pairs(
        torch.tensor(first),
        torch.tensor(second),
        torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div(127.5).sub(1),
        torch.from_numpy(apart.sum(1)).float(),
        torch.tensor(parameter),
        torch.tensor(unrelated),
    )


def fit_weights(changes: Tensor, distance: Tensor, share: Tensor, steps: int = 100) -> Tensor:
    """Minimise the sum of the module's docstring.

    Adam on the logarithms of the weights, from equal ones. Few steps leave the weights spread out
    over channels that see the same things.

    Args:
        changes: F of all channels, [N,C] >= 0.
        distance: t, [N] > 0.
        share: [N] >= 0.
        steps: of Adam.

    Returns:
        [C] > 0.
    """
    start = torch.log(distance.mean() / changes.sum(1).mean().clamp_min(1e-30))
    logs = start.repeat(changes.shape[1]).requires_grad_()
    optimizer = torch.optim.Adam([logs], lr=0.05)
    wanted = torch.log(distance + SOFT)
    for _ in range(steps):
        off = torch.log(changes @ logs.exp() + SOFT) - wanted
        optimizer.zero_grad()
        ((share * off.square()).sum() / share.sum()).backward()
        optimizer.step()
    return logs.detach().exp()


def rank_correlation(a: Tensor, b: Tensor) -> float:
    """Spearman's: the correlation of ranks, of [N] and [N]; ties are ranked in their order."""
    ranks = torch.stack([v.argsort(stable=True).argsort().double() for v in (a, b)])
    return float(torch.corrcoef(ranks)[0, 1])


def calibrate(
    encoder: SampleEncoder, train: Pairs, held: Pairs
) -> tuple[list[Tensor], dict[str, Any]]:
    """Fit the lins of an encoder.

    Args:
        encoder: trained, in evaluation mode.
        train: pairs to fit on.
        held: pairs to measure on.

    Returns:
        One [metric_channels[k]] float32 for each map, and numbers of `measure` on `held`: "stages",
        for the stage maps alone, equally weighed; "equal", for all maps, equally weighed; "fitted".
    """
    channels = list(encoder.config.metric_channels)
    stages = len(encoder.config.widths)
    equal = [torch.full((width,), 1 / len(channels)) for width in channels]
    metric = LPIPS(FeatureTrunk(encoder.folded()), equal)
    changes = _changes(metric, train.images, train.first, train.second)
    all_differ = train.parameter < 0
    share = torch.where(all_differ, (~all_differ).sum() / all_differ.sum(), 1.0)
    weights = fit_weights(changes, train.distance.clamp_min(LEAST), share)
    weights = weights * UNRELATED / (changes[train.unrelated] @ weights).mean()
    there = _changes(metric, held.images, held.first, held.second)
    alone = [lin * (k < stages) for k, lin in enumerate(equal)]
    tried = {"stages": torch.cat(alone), "equal": torch.cat(equal), "fitted": weights}
    numbers = {name: _numbers(there @ tried[name], held) for name in tried}
    return list(weights.split(channels)), numbers


@torch.no_grad()
def measure(metric: LPIPS, pairs: Pairs) -> dict[str, Any]:
    """How well a perceptual metric follows the parameters.

    Returns:
        rank: rank correlation of its distance and the parameters', over all pairs; rank_one: over
        those with one parameter changed; unrelated: its mean distance of unrelated faces; seen, by
        parameter: its change per standard deviation, as a multiple of the mean over parameters;
        deaf: the least of these.
    """
    weights = torch.cat([metric.get_buffer(f"lin{k}").float() for k in range(metric.num_stages)])
    return _numbers(_changes(metric, pairs.images, pairs.first, pairs.second) @ weights, pairs)


def _numbers(found: Tensor, pairs: Pairs) -> dict[str, Any]:
    one = pairs.parameter >= 0
    per_sd = found / pairs.distance.clamp_min(LEAST)
    seen = torch.stack([per_sd[pairs.parameter == i].mean() for i in range(procface.Z_DIM)])
    seen = seen / seen.mean()
    return {
        "rank": rank_correlation(found, pairs.distance),
        "rank_one": rank_correlation(found[one], pairs.distance[one]),
        "unrelated": float(found[pairs.unrelated].mean()),
        "deaf": float(seen.min()),
        "seen": dict(zip(procface.names(), seen.tolist(), strict=True)),
    }


@torch.no_grad()
def _changes(metric: LPIPS, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """F of the module's docstring for each pair: [N, channels of all stages], float32."""
    out = []
    for a, b in zip(first.split(64), second.split(64), strict=True):
        needed, where = torch.cat([a, b]).unique(return_inverse=True)
        stages = metric.embed(images[needed])
        parts = [(f[where[: len(a)]] - f[where[len(a) :]]).square().mean((2, 3)) for f in stages]
        out.append(torch.cat(parts, dim=1))
    return torch.cat(out)
