"""Training of the image-to-latent network on generated faces, whose latents are known.

    loss = mean log cosh((estimate - w) / spread)

as pytorch_stylegan_encoder trains it: batches of 32, Adam with its defaults, 20 passes. It takes
the faces in order; here they are drawn, and the last layer starts at the mean face and is as wide
as the generator's w, with a learning rate to match.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyfacelat.losses.pixel import pixel_distance
from pyfacelat.nets.image_to_latent import ImageToLatent
from pyfacelat.nets.stylegan2 import Generator

from .generated import GeneratedFaces
from .loop import Draw, Phase
from .optimisers import Together
from .sheets import save_sheet

__all__ = ["FinderTask", "centre_last_layer"]

_HELD = 256
_SHOWN = 8


@torch.no_grad()
def centre_last_layer(net: ImageToLatent, mean: Tensor, scale: float) -> None:
    """Let a fresh network give the mean latent [w_dim], and what it adds be `scale` wide."""
    net.dense2.bias.copy_(mean.repeat(net.config.num_ws))
    net.dense2.weight.mul_(scale)


class FinderTask:
    """Trains `net`.

    Args:
        net: its last layer as `centre_last_layer` leaves it.
        generator: draws the sheets.
        train, held: faces, of the net's input size.
        phases: one, limited by steps.
        scale: spread of an entry of w.
        lr: of Adam.
    """

    name = "image-to-latent"

    def __init__(
        self,
        net: ImageToLatent,
        generator: Generator,
        train: GeneratedFaces,
        held: GeneratedFaces,
        phases: Sequence[Phase],
        *,
        scale: float = 1.0,
        lr: float = 1e-3,
    ) -> None:
        self.net, self.generator, self.phases = net, generator, phases
        self.train, self.held, self.scale, self.lr = train, held, scale, lr
        self.extra: dict[str, Tensor] = {}

    def optimizer(self) -> Together:
        """Adam; the last layer's rate is in units of w."""
        last = list(self.net.dense2.parameters())
        ids = {id(p) for p in last}
        rest = [p for p in self.net.parameters() if id(p) not in ids]
        groups: list[dict[str, Any]] = [
            {"params": rest},
            {"params": last, "lr": self.lr * self.scale},
        ]
        return Together(torch.optim.Adam(groups, self.lr))

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Log-cosh of the latents' errors."""
        index = draw.index(len(self.train), phase.batch)
        self.net.train()
        return {"loss": self._loss(self.train, index)}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """The loss on held-out faces, and a sheet of faces and what their estimates render."""
        self.net.eval()
        index = np.arange(min(_HELD, len(self.held)))
        sums = 0.0
        for start in range(0, len(index), 32):
            part = index[start : start + 32]
            sums += float(self._loss(self.held, part)) * len(part) / len(index)
        like = next(self.net.parameters())
        images = self.held.images(index[:_SHOWN]).to(like)
        made = self.generator.synthesis(self.net(images), noise_mode="const")
        side = min(images.shape[-1], made.shape[-1])
        rows = [
            torch.nn.functional.adaptive_avg_pool2d(part, side).cpu() for part in (images, made)
        ]
        save_sheet(directory / f"sheet_{tag}.png", rows)
        return {"held_loss": sums}

    def _loss(
        self, faces: GeneratedFaces, index: np.ndarray[tuple[int], np.dtype[np.int64]]
    ) -> Tensor:
        like = next(self.net.parameters())
        found, wanted = self.net(faces.images(index).to(like)), faces.ws(index).to(like)
        pair = [ws[:, None] / self.scale for ws in (found, wanted)]
        return pixel_distance(pair[0], pair[1], "log_cosh").mean()
