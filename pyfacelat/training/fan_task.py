"""The landmark net: FAN's architecture on exact landmarks of rendered and generated faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyfacelat.faces.landmarks import heatmaps_to_points, normalised_error, points_to_heatmaps
from pyfacelat.nets.fan import FAN

from .data import FaceSet, augment
from .loop import Draw, Phase
from .muon import Muon
from .sheets import draw_points, save_sheet

__all__ = ["FANTask", "fan_phases", "heatmap_loss", "predict_points"]

PEAK_WEIGHT = 20.0
"""Extra weight of a heat map's peak: all but a few cells of 32 x 32 are empty."""

GENERATED_SHARE = 0.4
"""Share of generated faces in the last phase."""


def fan_phases(
    minutes: float | None = None, steps: int | None = None, generated: bool = True
) -> list[Phase]:
    """Plan renders first, then renders and generated faces; one phase of renders for a judge."""
    if not generated:
        return [Phase("renders", batch=16, steps=steps, minutes=minutes, flat=0.2)]
    shares = {"renders": 0.65, "generated": 0.35}
    return [
        Phase(
            name,
            batch=16,
            steps=steps,
            minutes=None if minutes is None else minutes * share,
            flat=0.2 if name == "renders" else 0.0,
            final=0.1 if name == "renders" else 0.01,
        )
        for name, share in shares.items()
    ]


def heatmap_loss(maps: Tensor, target: Tensor) -> Tensor:
    """Squared error weighted by 1 + 20 * target: maps, target [N,68,h,w] -> scalar."""
    return ((maps - target).square() * (1 + PEAK_WEIGHT * target)).mean()


def predict_points(fan: FAN, images: Tensor, batch: int = 32) -> Tensor:
    """Relative points [N,68,2] of images [N,3,S,S] in [-1,1]."""
    with torch.no_grad():
        maps = [fan((part + 1) / 2)[-1] for part in images.split(batch)]
    return heatmaps_to_points(torch.cat(maps))[0]


class FANTask:
    """Trains `fan` on `train`.

    Args:
        fan: the net.
        train, held: rendered faces.
        phases: see `fan_phases`.
        generate: z [N,z_dim] -> images [N,3,S,S] in [-1,1], for the phase "generated".
        name: tells two landmark nets apart.
        lr: of Muon; He-normal convolutions want far less than a generator's unit variance.
    """

    def __init__(
        self,
        fan: FAN,
        train: FaceSet,
        held: FaceSet,
        phases: Sequence[Phase],
        *,
        generate: Callable[[Tensor], Tensor] | None = None,
        name: str = "fan",
        lr: float = 2e-3,
        dtype: torch.dtype = torch.bfloat16,
        held_count: int = 256,
    ) -> None:
        self.net, self.phases, self.name, self.lr, self.dtype = fan, phases, name, lr, dtype
        self.extra: dict[str, Tensor] = {}
        self.generate = generate
        self.train = train
        self.held = held.batch(np.arange(min(held_count, len(held))))

    def optimizer(self) -> Muon:
        """Muon on convolutions, Adam on normalisation and biases."""
        matrices = [p for p in self.net.parameters() if p.ndim == 4]
        others = [p for p in self.net.parameters() if p.ndim != 4]
        return Muon(matrices, others, lr=self.lr, adam_lr=2e-3)

    def begin(self, phase: Phase) -> None:
        """Refuse the last phase where there is no generator to draw faces."""
        if phase.name == "generated" and self.generate is None:
            raise ValueError(f"{self.name}: phase 'generated' needs a trained generator")

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Heat-map loss of augmented faces, a share of them generated in the last phase."""
        index = draw.index(len(self.train), phase.batch)
        z, images, points, _ = self.train.batch(index, draw.coins(len(index)))
        if phase.name == "generated":
            assert self.generate is not None
            few = round(GENERATED_SHARE * len(z))
            with torch.no_grad():
                images[:few] = self.generate(z[:few]).clamp(-1, 1)
        images, points = augment((images + 1) / 2, points, draw.torch)
        images = images.contiguous(memory_format=torch.channels_last)
        self.net.train()
        with torch.autocast("cpu", self.dtype, enabled=self.dtype != torch.float32):
            stacks = self.net(images)
        size = (stacks[-1].shape[-2], stacks[-1].shape[-1])
        target = points_to_heatmaps(points, size)
        return {"loss": torch.stack([heatmap_loss(maps.float(), target) for maps in stacks]).sum()}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """NME on held-out renders, and on what the generator makes of the same z."""
        self.net.eval()
        z, images, points, _ = self.held
        found = predict_points(self.net, images)
        error = normalised_error(found, points)
        numbers = {"nme": float(error.mean()), "nme_p95": float(error.quantile(0.95))}
        rows = [draw_points(images[:10], points[:10]), draw_points(images[:10], found[:10])]
        if self.generate is not None:
            made = torch.cat([self.generate(part).clamp(-1, 1) for part in z.split(32)])
            seen = predict_points(self.net, made)
            numbers["nme_generated"] = float(normalised_error(seen, points).mean())
            rows.append(draw_points(made[:10], seen[:10]))
        save_sheet(directory / f"sheet_{tag}.png", rows, enlarge=3)
        return numbers
