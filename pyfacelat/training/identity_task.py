"""The identity net: the same person in another pose, mood and light must land on the same spot.

It estimates the standardised coordinates in which people differ (shape and own colours; hair style,
beard and make-up are not a person's own) from two pictures of each. A cross-entropy over the batch
pulls the two together and pushes everybody else away. The landmarks, which its body needs for a
closer look, are learned beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from pyfacelat import procface
from pyfacelat.nets.identity import IdentityNet

from .data import FaceSet, FaceSource, other_latents
from .encoder_task import (
    body_optimizer,
    jitter,
    latent_r2,
    latent_targets,
    normalised,
    relative_error,
)
from .loop import Draw, Phase
from .muon import Muon

__all__ = [
    "OWN_COLOURS",
    "IdentityTask",
    "embed",
    "identity_columns",
    "identity_phases",
    "same_people",
    "verification",
]

OWN_COLOURS = ("skin_tone", "hair_tone", "hair_hue", "iris_color")
"""Appearance that belongs to a person, as opposed to a hair style, a beard or the light."""

PAIR_WEIGHT = 0.3
POINTS_WEIGHT = 0.3
"""Weights of the cross-entropy and of the landmarks beside the relative coordinate errors."""

SHARPNESS = 12.0
"""What a cosine is multiplied by in the cross-entropy."""


def identity_phases(minutes: float | None = None, steps: int | None = None) -> list[Phase]:
    """One phase; a step sees two pictures of each of 16 people."""
    return [Phase("pairs", batch=16, steps=steps, minutes=minutes, flat=0.2)]


def identity_columns() -> list[int]:
    """Entries of a procedural z that are a person's own."""
    return [procface.index(name) for name in (*procface.names("identity"), *OWN_COLOURS)]


def same_people(threads: int = 1) -> FaceSource:
    """Source of other pictures of the people of z: their own parameters, the rest drawn anew.

    z stays the first picture's; only its own entries describe the second one.
    """
    own = identity_columns()

    def render(z: NDArray[Any], size: int) -> tuple[NDArray[Any], NDArray[Any]]:
        params = procface.from_latent(other_latents(z))
        params[:, own] = procface.from_latent(z)[:, own]
        out = procface.render(params, size=size, threads=threads)
        return out["image"], out["landmarks"]

    return FaceSource(z_dim=procface.Z_DIM, render=render)


@torch.no_grad()
def embed(net: IdentityNet, images: Tensor, batch: int = 64) -> Tensor:
    """Embeddings [N,D] of images [N,3,S,S] in [-1,1]."""
    return torch.cat([net(part) for part in images.split(batch)])


def verification(first: Tensor, second: Tensor) -> dict[str, float]:
    """How well the cosine tells the same person from others.

    Args:
        first: [N,D] unit embeddings of N people.
        second: [N,D], of other pictures of the same people, in the same order.

    Returns:
        same, other: mean cosine of the N pairs of one person and of all N (N - 1) pairs of two.
        auc: the chance that a pair of one person is closer than a pair of two (ties count half).
        tar_01, tar_001: share of the pairs of one person that are closer than all but 1 % and
            0.1 % of the pairs of two.
    """
    cosine = first @ second.t()
    same = cosine.diagonal().contiguous()
    apart = ~torch.eye(len(first), dtype=torch.bool)
    other = cosine[apart].sort().values
    below = torch.searchsorted(other, same) + torch.searchsorted(other, same, right=True)
    found = {
        "same": float(same.mean()),
        "other": float(other.mean()),
        "auc": float(below.double().mean() / (2 * len(other))),
    }
    for name, rate in (("tar_01", 0.01), ("tar_001", 0.001)):
        threshold = other[min(int(len(other) * (1 - rate)), len(other) - 1)]
        found[name] = float((same > threshold).double().mean())
    return found


class IdentityTask:
    """Trains `net` on pairs of pictures.

    Args:
        net: its embedding is as wide as `own` is long.
        train, held: faces.
        train_again, held_again: other pictures of the first people of `train` and `held`.
        own: entries of z that are a person's own.
        phases: see `identity_phases`.
    """

    name = "identity"

    def __init__(
        self,
        net: IdentityNet,
        train: FaceSet,
        held: FaceSet,
        train_again: FaceSet,
        held_again: FaceSet,
        own: Sequence[int],
        phases: Sequence[Phase],
        *,
        lr: float = 4e-3,
        dtype: torch.dtype = torch.bfloat16,
        held_count: int = 512,
    ) -> None:
        self.net, self.phases, self.lr, self.dtype = net, phases, lr, dtype
        self.train: FaceSet = train
        self.again, self.own = train_again, list(own)
        index = np.arange(min(held_count, len(held), len(held_again)))
        self.held, self.held_again = held.batch(index), held_again.batch(index)
        self.extra = {"scale": torch.ones(len(self.own)), "points": torch.ones(())}

    def optimizer(self) -> Muon:
        """Muon on matrices but those of the last layers, Adam on the rest."""
        return body_optimizer(self.net, self.lr)

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Relative coordinate errors, cross-entropy over the batch, relative landmark error."""
        index = draw.index(min(len(self.train), len(self.again)), phase.batch)
        z, images, points, _ = self.train.batch(index, draw.coins(len(index)))
        _, again, points_again, _ = self.again.batch(index)
        images = jitter(torch.cat([images, again]), draw.torch)
        self.net.train()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            latent, found = self.net.body.estimate(images)
        assert found is not None  # the body has a landmark head
        latent, found = latent.float(), found.float()
        wanted = normalised(z)[:, self.own].repeat(2, 1)
        error = (latent - wanted).square().mean(0)
        coordinates = relative_error(error, self.extra["scale"])
        off = (found - torch.cat([points, points_again])).square().mean()
        placed = relative_error(off, self.extra["points"])
        first, second = F.normalize(latent, dim=1).chunk(2)
        likeness = SHARPNESS * first @ second.t()
        who = torch.arange(len(index))
        pairs = (F.cross_entropy(likeness, who) + F.cross_entropy(likeness.t(), who)) / 2
        loss = coordinates + PAIR_WEIGHT * pairs + POINTS_WEIGHT * placed
        return {"loss": loss, "pairs": pairs, "points": off.sqrt()}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """R2 of the own entries of held-out renders, and verification on held-out pairs."""
        self.net.eval()
        z, images, _, _ = self.held
        squashed = torch.cat([self.net.body(part)[0] for part in images.split(64)])
        r2 = latent_r2(squashed, latent_targets(z)[:, self.own])
        numbers = verification(embed(self.net, images), embed(self.net, self.held_again[1]))
        return {"r2": float(r2.mean()), "r2_worst": float(r2.min()), **numbers}
