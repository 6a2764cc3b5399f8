"""The discriminator: tells renders from what the trained generator makes of the same latents.

The generator does not learn here. Each step judges the same faces rendered and generated, so the
difference is the making and not who is there. Non-saturating loss with R1 (Mescheder et al. 2018)
on some of the renders of every step, which keeps the logit smooth enough to be followed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.nets.discriminator import Discriminator

from .data import FaceSet
from .loop import Draw, Phase
from .muon import Muon
from .sheets import save_sheet

__all__ = ["DiscriminatorTask", "discriminator_phases", "judge_reality"]

R1_SHARE = 0.25
"""Share of the renders of a step whose gradient is penalised."""


def discriminator_phases(minutes: float | None = None, steps: int | None = None) -> list[Phase]:
    """One phase."""
    return [Phase("pairs", batch=8, steps=steps, minutes=minutes, flat=0.3)]


@torch.no_grad()
def judge_reality(net: Discriminator, images: Tensor, batch: int = 32) -> Tensor:
    """Logits [N] of images [N,3,R,R] in [-1,1]."""
    return torch.cat([net(part)[:, 0] for part in images.split(batch)])


class DiscriminatorTask:
    """Trains `net` to tell `train` from `generate`.

    Args:
        net: without minibatch statistics, so that an image's logit is its own.
        train, held: rendered faces.
        generate: z [N,z_dim] -> images [N,3,S,S] in about [-1,1], of a frozen generator.
        phases: see `discriminator_phases`.
        gamma: weight of R1: gamma / 2 * mean |gradient|^2.
    """

    name = "discriminator"

    def __init__(
        self,
        net: Discriminator,
        train: FaceSet,
        held: FaceSet,
        generate: Callable[[Tensor], Tensor],
        phases: Sequence[Phase],
        *,
        lr: float = 5e-3,
        gamma: float = 1.0,
        held_count: int = 128,
    ) -> None:
        self.net, self.phases, self.lr, self.gamma = net, phases, lr, gamma
        self.train: FaceSet = train
        self.generate = generate
        self.extra: dict[str, Tensor] = {}
        z, self.real, _, _ = held.batch(np.arange(min(held_count, len(held))))
        with torch.no_grad():
            self.made = torch.cat([generate(part) for part in z.split(32)]).clamp(-1, 1)

    def optimizer(self) -> Muon:
        """Muon on everything that is a matrix, Adam on the rest."""
        matrices = [p for p in self.net.parameters() if p.ndim >= 2]
        others = [p for p in self.net.parameters() if p.ndim < 2]
        return Muon(matrices, others, lr=self.lr, adam_lr=2e-3)

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Cross-entropy on pairs of a render and its generated twin, plus R1."""
        index = draw.index(len(self.train), phase.batch)
        z, real, _, _ = self.train.batch(index, draw.coins(len(index)))
        with torch.no_grad():
            made = self.generate(z).clamp(-1, 1)
        few = max(1, round(R1_SHARE * len(real)))
        smooth = real[:few].requires_grad_()
        logits = self.net(smooth)[:, 0]
        (slope,) = torch.autograd.grad(logits.sum(), smooth, create_graph=True)
        r1 = slope.square().sum((1, 2, 3)).mean()
        told = [logits, *self.net(torch.cat([real[few:], made])).squeeze(1).split_with_sizes(
            [len(real) - few, len(made)]
        )]  # fmt: skip
        loss = F.softplus(-torch.cat(told[:2])).mean() + F.softplus(told[2]).mean()
        return {"loss": loss + self.gamma / 2 * r1, "told": loss, "r1": r1}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """Accuracy on held-out pairs."""
        self.net.eval()
        real, made = judge_reality(self.net, self.real), judge_reality(self.net, self.made)
        self.net.train()
        save_sheet(directory / f"sheet_{tag}.png", [self.real[:8], self.made[:8]], enlarge=1)
        return {
            "accuracy": float(torch.cat([real > 0, made <= 0]).double().mean()),
            "margin": float((real - made).mean()),
        }
