"""The encoder: image to z and landmarks; its stages are the perceptual features of the sample nets.

Each parameter's error is divided by its running mean, so that a gaze, a few pixels, counts as much
as the skin tone. Errors are those of z itself: of tanh(0.75 z) they saturate, and Muon, which moves
every direction of the last layer alike, then drives it to outputs of a hundred standard deviations
that no gradient brings back. Hence also Adam for the last layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyfacelat.nets.sample_encoder import LATENT_SQUASH, SampleEncoder

from .data import FaceSet
from .loop import Draw, Phase
from .muon import Muon

__all__ = ["EncoderTask", "encoder_phases", "latent_r2", "latent_targets"]

POINTS_WEIGHT = 0.5
"""Weight of the landmark head beside the mean of the normalised parameter errors."""


def encoder_phases(minutes: float | None = None, steps: int | None = None) -> list[Phase]:
    """One phase."""
    return [Phase("renders", batch=32, steps=steps, minutes=minutes, flat=0.1)]


def normalised(z: Tensor) -> Tensor:
    """Z [N,z_dim] with unit second moment, as the generator's mapping sees it."""
    return z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()


def latent_targets(z: Tensor) -> Tensor:
    """tanh(0.75 z) of normalised z."""
    return squash(normalised(z))


def squash(z: Tensor) -> Tensor:
    """tanh(0.75 z)."""
    return torch.tanh(LATENT_SQUASH * z)


def relative_error(error: Tensor, running: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean, weighted or not, of errors over their running means, which follow in place."""
    running.lerp_(error.detach(), 0.02)
    relative = error / running
    return relative.mean() if weight is None else (relative * weight).sum() / weight.sum()


def jitter(images: Tensor, rng: torch.Generator) -> Tensor:
    """Images [N,3,S,S] with a gain (sd 3 %) and noise (sd 0.03), channels_last."""
    gain = 1 + 0.03 * torch.randn(len(images), 1, 1, 1, generator=rng)
    noise = 0.03 * torch.randn(images.shape, generator=rng)
    return (images * gain + noise).contiguous(memory_format=torch.channels_last)


def latent_r2(found: Tensor, wanted: Tensor) -> Tensor:
    """Explained share of the variance per column, [D]: 1 - MSE / variance."""
    error = (found - wanted).square().mean(0)
    return 1 - error / wanted.var(0, unbiased=False).clamp_min(1e-12)


def body_optimizer(net: nn.Module, lr: float) -> Muon:
    """Muon on the matrices of a `SampleEncoder` but those of its heads, Adam on the rest."""
    matrices, others = [], []
    for name, p in net.named_parameters():
        (matrices if p.ndim >= 2 and "_head." not in name else others).append(p)
    return Muon(matrices, others, lr=lr, adam_lr=2e-3)


class EncoderTask:
    """Trains `encoder` on `train`.

    Args:
        encoder: the net.
        train: rendered faces.
        held: unseen ones.
        phases: see `encoder_phases`.
        weight: what each entry of z counts, [D]; None = equally.
        lr: of Muon.
    """

    name = "encoder"

    def __init__(
        self,
        encoder: SampleEncoder,
        train: FaceSet,
        held: FaceSet,
        phases: Sequence[Phase],
        *,
        weight: Tensor | None = None,
        lr: float = 8e-3,
        dtype: torch.dtype = torch.bfloat16,
        held_count: int = 512,
    ) -> None:
        self.net, self.phases, self.lr, self.dtype = encoder, phases, lr, dtype
        self.train: FaceSet = train
        self.weight = weight
        self.held = held.batch(np.arange(min(held_count, len(held))))
        self.extra = {"scale": torch.ones(train.z.shape[1]), "points": torch.ones(())}

    def optimizer(self) -> Muon:
        """Muon on matrices but those of the last layers, Adam on the rest."""
        return body_optimizer(self.net, self.lr)

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Normalised parameter errors plus normalised landmark error."""
        index = draw.index(len(self.train), phase.batch)
        z, images, points, _ = self.train.batch(index, draw.coins(len(index)))
        images = jitter(images, draw.torch)
        self.net.train()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            found, found_points = self.net.estimate(images)
        error = (found.float() - normalised(z)).square().mean(0)  # [D]
        latent = relative_error(error, self.extra["scale"], self.weight)
        off = (found_points.float() - points).square().mean()
        loss = latent + POINTS_WEIGHT * relative_error(off, self.extra["points"])
        return {"loss": loss, "error": error.mean(), "points": off.sqrt()}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """R2 of every parameter of held-out renders (mean, median and worst)."""
        self.net.eval()
        z, images, points, _ = self.held
        parts = [self.net(part) for part in images.split(64)]
        r2 = latent_r2(torch.cat([p[0] for p in parts]), latent_targets(z))
        off = (torch.cat([p[1] for p in parts]) - points).norm(dim=-1).mean()
        (directory / "r2.txt").write_text(" ".join(f"{v:.3f}" for v in r2.tolist()) + "\n")
        return {
            "r2": float(r2.mean()),
            "r2_median": float(r2.median()),
            "r2_worst": float(r2.min()),
            "points_off": float(off),
        }
