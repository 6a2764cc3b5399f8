"""The encoder: image to z and landmarks; its stages are the perceptual features of the sample nets.

Each parameter's error is divided by its running mean, so that a gaze, a few pixels, counts as much
as the skin tone. The landmark head forces fine features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyfacelat.nets.sample_encoder import SampleEncoder

from .data import FaceSet
from .loop import Draw, Phase
from .muon import Muon

__all__ = ["EncoderTask", "encoder_phases", "latent_r2", "latent_targets"]

POINTS_WEIGHT = 0.5
"""Weight of the landmark head beside the mean of the normalised parameter errors."""


def encoder_phases(minutes: float | None = None, steps: int | None = None) -> list[Phase]:
    """One phase."""
    return [Phase("renders", batch=32, steps=steps, minutes=minutes, flat=0.2)]


def latent_targets(z: Tensor) -> Tensor:
    """tanh(0.75 z) of z normalised to unit second moment, as the generator's mapping sees it."""
    z = z * (z.square().mean(1, keepdim=True) + 1e-8).rsqrt()
    return torch.tanh(0.75 * z)


def latent_r2(found: Tensor, wanted: Tensor) -> Tensor:
    """Explained share of the variance per column, [D]: 1 - MSE / variance."""
    error = (found - wanted).square().mean(0)
    return 1 - error / wanted.var(0, unbiased=False).clamp_min(1e-12)


class EncoderTask:
    """Trains `encoder` on `train`."""

    name = "encoder"

    def __init__(
        self,
        encoder: SampleEncoder,
        train: FaceSet,
        held: FaceSet,
        phases: Sequence[Phase],
        *,
        lr: float = 2e-3,
        dtype: torch.dtype = torch.bfloat16,
        held_count: int = 512,
    ) -> None:
        self.net, self.phases, self.lr, self.dtype = encoder, phases, lr, dtype
        self.train = train
        self.held = held.batch(np.arange(min(held_count, len(held))))
        self.extra = {"scale": torch.ones(train.z.shape[1]), "points": torch.ones(())}

    def optimizer(self) -> Muon:
        """Muon on everything that is a matrix, Adam on the rest."""
        matrices = [p for p in self.net.parameters() if p.ndim >= 2]
        others = [p for p in self.net.parameters() if p.ndim < 2]
        return Muon(matrices, others, lr=self.lr, adam_lr=2e-3)

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Normalised parameter errors plus normalised landmark error."""
        index = draw.index(len(self.train), phase.batch)
        z, images, points, _ = self.train.batch(index, draw.coins(len(index)))
        gain = 1 + 0.03 * torch.randn(len(z), 1, 1, 1, generator=draw.torch)
        noise = 0.03 * torch.randn(images.shape, generator=draw.torch)
        images = (images * gain + noise).contiguous(memory_format=torch.channels_last)
        self.net.train()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            found, found_points = self.net(images)
        error = (found.float() - latent_targets(z)).square().mean(0)  # [D]
        self.extra["scale"].lerp_(error.detach(), 0.02)
        latent = (error / self.extra["scale"]).mean()
        off = (found_points.float() - points).square().mean()
        self.extra["points"].lerp_(off.detach(), 0.02)
        loss = latent + POINTS_WEIGHT * off / self.extra["points"]
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
