"""The generator: StyleGAN2's architecture regressed from z to the procedural face of z.

Progressive (16, 32, 64 px through the RGB skips), since a constant-input net learns placement
slowly at full size. Loss: L1 and L1 of the x and y differences, both weighted by 1 + 7 * mask, or
eyes and mouth, a few pixels each, would come last.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pyfacelat.nets.stylegan2 import Generator

from .data import FaceSet
from .fast_generator import FastGenerator
from .loop import Draw, Phase
from .muon import Muon
from .sheets import save_sheet

__all__ = ["GeneratorTask", "generator_phases", "masked_loss", "psnr"]

FACE_WEIGHT = 7.0
"""How much more a pixel of the inner face weighs than one of the background."""

_SHARES = {16: (32, 0.05), 32: (24, 0.21), 64: (16, 0.74), 128: (12, 1.6)}
"""Batch and share of the time of a 64-px run; a 128-px run is 2.6 times as long."""


def generator_phases(
    size: int, minutes: float | None = None, steps: int | None = None
) -> list[Phase]:
    """Phases up to `size`, sharing `minutes` in all, or with `steps` each."""
    used = {r: share for r, (_, share) in _SHARES.items() if r <= size}
    total = sum(used.values())
    phases = []
    for r, share in used.items():
        last = r == size
        phases.append(
            Phase(
                f"{r}px",
                batch=_SHARES[r][0],
                steps=steps,
                minutes=None if minutes is None else minutes * share / total,
                resolution=r,
                flat=0.3 if last else 0.5,
                final=0.01 if last else 0.1,
                ema=0.995 if last else 0.99,
            )
        )
    return phases


def masked_loss(made: Tensor, wanted: Tensor, mask: Tensor) -> Tensor:
    """L1 of pixels plus L1 of neighbour differences, weighted by 1 + 7 * mask; a scalar.

    Args:
        made: [N,3,H,W] in [-1,1].
        wanted: the same.
        mask: [N,1,H,W] in [0,1].
    """
    error = (made - wanted) * (1 + FACE_WEIGHT * mask)
    along_x = (made - wanted).diff(dim=3) * (1 + FACE_WEIGHT * mask[..., 1:])
    along_y = (made - wanted).diff(dim=2) * (1 + FACE_WEIGHT * mask[:, :, 1:])
    return error.abs().mean() + along_x.abs().mean() + along_y.abs().mean()


def psnr(made: Tensor, wanted: Tensor, weight: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio per image in dB, [N]; peak 2 (range [-1,1], clipped).

    Args:
        made: [N,3,H,W].
        wanted: [N,3,H,W] in [-1,1].
        weight: [N,1,H,W], of each pixel's squared error; None = equal.
    """
    square = (made.clamp(-1, 1) - wanted).square().mean(1, keepdim=True)
    if weight is None:
        error = square.mean((1, 2, 3))
    else:
        error = (square * weight).sum((1, 2, 3)) / weight.sum((1, 2, 3)).clamp_min(1e-12)
    return 10 * torch.log10(4 / error.clamp_min(1e-12))


class GeneratorTask:
    """Trains `generator` on `train`; looks at the first faces of `held`.

    Args:
        generator: the net.
        train, held: rendered faces.
        phases: see `generator_phases`.
        lr: of Muon.
        dtype: of activations and convolutions in training.
        held_count: faces of `held` to look at.
        trained: resolution up to which the weights come from another run; 0 = fresh weights.
    """

    name = "generator"

    def __init__(
        self,
        generator: Generator,
        train: FaceSet,
        held: FaceSet,
        phases: Sequence[Phase],
        *,
        lr: float = 2.5e-2,
        dtype: torch.dtype = torch.bfloat16,
        held_count: int = 192,
        trained: int = 0,
    ) -> None:
        self.net = generator
        self.trained = trained
        self.extra: dict[str, Tensor] = {}
        self.phases = phases
        self.fast = FastGenerator(generator, dtype)
        self.train, self.lr = train, lr
        self.held = held.batch(np.arange(min(held_count, len(held))))

    def optimizer(self) -> Muon:
        """Muon on convolutions, style affines and mapping; Adam on constant, RGB and biases."""
        matrices, others, slow = [], [], []
        for name, p in self.net.named_parameters():
            if name.endswith("noise_strength"):
                continue  # a face is a function of z: there is nothing for noise to explain
            if name.endswith("weight") and (".torgb." not in name or ".affine." in name):
                matrices.append(p)
            elif name.startswith("mapping."):
                slow.append(p)
            else:
                others.append(p)
        return Muon(matrices, [*others, {"params": slow, "lr": 4e-3}], lr=self.lr)

    def begin(self, phase: Phase) -> None:
        """Let a new block start from the upsampled image of the blocks below."""
        fresh = phase is self.phases[0] and not self.trained
        if phase.resolution > self.trained and not fresh:
            name = f"synthesis.b{phase.resolution}.torgb"
            with torch.no_grad():
                self.net.get_parameter(f"{name}.weight").zero_()
                self.net.get_parameter(f"{name}.bias").zero_()

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Masked loss at the phase's resolution."""
        index = draw.index(len(self.train), phase.batch)
        z, wanted, _, mask = self.train.batch(index, draw.coins(len(index)))
        wanted, mask = _shrink(wanted, phase.resolution), _shrink(mask, phase.resolution)
        return {"loss": masked_loss(self.fast(z, phase.resolution), wanted, mask)}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """PSNR of held-out faces, whole and inner face, at the phase's resolution."""
        z, wanted, _, mask = self.held
        exact = FastGenerator(self.net)
        made = torch.cat([exact(part, phase.resolution) for part in z.split(32)])
        wanted, mask = _shrink(wanted, phase.resolution), _shrink(mask, phase.resolution)
        rows = [image for i in (0, 10) for image in (wanted[i : i + 10], made[i : i + 10])]
        save_sheet(directory / f"sheet_{tag}.png", rows, enlarge=max(1, 128 // phase.resolution))
        return {
            "psnr": float(psnr(made, wanted).mean()),
            "face_psnr": float(psnr(made, wanted, mask).mean()),
        }


def _shrink(images: Tensor, resolution: int) -> Tensor:
    factor = images.shape[-1] // resolution
    return F.avg_pool2d(images, factor) if factor > 1 else images
