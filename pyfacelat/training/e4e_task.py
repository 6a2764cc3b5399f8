"""Training of e4e on a generator's own faces, with the published losses and stages.

    loss = 1.0 L2 + 0.8 LPIPS + 0.1 (1 - cos of identities) + 0.1 adversarial in W
           + 2e-4 sum over rows of the mean length of their differences from row 0

(Tov et al. 2021, arXiv:2102.02766, section 4.) Row 0 alone is trained at first; from step 20,000
on another row joins every 2,000 steps. A discriminator on single w, a network of four dense layers,
tells rows of the encoder's from w of the mapping network, so that all rows stay where the generator
was trained.

Generators differ in how wide their w are (those of the sample generator go into the hundreds). The
encoder's output layers, and their learning rate, are therefore scaled by the spread of w; 1 is the
published setting.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from pyfacelat.images import shrink_to
from pyfacelat.losses.identity import IdentityDistance
from pyfacelat.losses.perceptual import LPIPS
from pyfacelat.nets.e4e import E4E
from pyfacelat.nets.layers import FullyConnected
from pyfacelat.nets.stylegan2 import Generator

from .generated import GeneratedFaces
from .loop import Draw, Phase
from .optimisers import Ranger, Together
from .sheets import save_sheet

__all__ = ["E4ELosses", "E4ETask", "LatentDiscriminator", "Stages", "scale_heads"]

_POOL = 50
_HELD = 64


@dataclasses.dataclass(frozen=True)
class Stages:
    """When the rows of a latent begin to differ from row 0.

    Attributes:
        first: step at which row 1 does.
        every: steps from one row to the next.
    """

    first: int = 20_000
    every: int = 2_000

    def at(self, step: int, num_ws: int) -> int:
        """The last row that is trained at a step; see `E4E.codes`."""
        if step < self.first:
            return 0
        return min(1 + (step - self.first) // self.every, num_ws - 1)


@dataclasses.dataclass(frozen=True)
class E4ELosses:
    """Weights; those of the networks that are not given count for nothing."""

    l2: float = 1.0
    perceptual: float = 0.8
    identity: float = 0.1
    adversarial: float = 0.1
    delta: float = 2e-4
    r1: float = 10.0
    r1_every: int = 16


class LatentDiscriminator(nn.Module):
    """Tells w of the mapping network from others: [N,D] in units of their spread to logits [N]."""

    def __init__(self, w_dim: int) -> None:
        super().__init__()
        widths = [w_dim] * 4 + [1]
        self.layers = nn.ModuleList(
            FullyConnected(a, b) for a, b in zip(widths, widths[1:], strict=False)
        )

    def forward(self, w: Tensor) -> Tensor:
        """Logits [N] of w [N,D]; positive: from the mapping network."""
        for number, layer in enumerate(self.layers):
            w = layer(w if number == 0 else F.leaky_relu(w, 0.2))
        return w[:, 0]


@torch.no_grad()
def scale_heads(encoder: E4E, scale: float) -> None:
    """Make a fresh encoder's output as wide as the generator's w."""
    for head in encoder.heads:
        dense = head.dense
        assert isinstance(dense, FullyConnected)
        dense.weight.mul_(scale)


class E4ETask:
    """Trains `encoder` with `discriminator` against `generator`.

    Args:
        encoder: with `latent_avg` set, its heads scaled by `scale_heads`.
        generator: frozen; makes images of the encoder's latents.
        train, held: faces, of the encoder's input size.
        phases: one, limited by steps; its schedule of the learning rate is flat.
        stages: see there.
        losses: weights.
        perceptual, identity: networks of these terms, or None.
        scale: spread of an entry of w.
        lr: of Ranger.
        seed: of the discriminator's initial weights.
    """

    name = "e4e"

    def __init__(
        self,
        encoder: E4E,
        generator: Generator,
        train: GeneratedFaces,
        held: GeneratedFaces,
        phases: Sequence[Phase],
        *,
        stages: Stages | None = None,
        losses: E4ELosses | None = None,
        perceptual: LPIPS | None = None,
        identity: IdentityDistance | None = None,
        scale: float = 1.0,
        lr: float = 1e-4,
        seed: int = 0,
    ) -> None:
        self.generator, self.phases, self.lr, self.scale = generator, phases, lr, scale
        self.train, self.held = train, held
        self.stages, self.weights = stages or Stages(), losses or E4ELosses()
        self.perceptual, self.identity = perceptual, identity
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            discriminator = LatentDiscriminator(generator.w_dim)
        like = next(encoder.parameters())
        self.encoder, self.discriminator = encoder, discriminator.to(like)
        self.net = nn.ModuleDict({"encoder": encoder, "discriminator": self.discriminator})
        self.extra = {
            "pool": torch.zeros(_POOL, generator.w_dim).to(like),
            "pooled": torch.zeros((), dtype=torch.int64),
        }
        self.side = min(encoder.config.input_size, generator.img_resolution)

    def optimizer(self) -> Together:
        """Ranger for the encoder, Adam at a fifth of its rate for the discriminator."""
        heads = [p for head in self.encoder.heads for p in head.dense.parameters()]  # type: ignore[union-attr]
        ids = {id(p) for p in heads}
        rest = [p for p in self.encoder.parameters() if id(p) not in ids]
        ranger = Ranger([{"params": rest}, {"params": heads, "lr": self.lr * self.scale}], self.lr)
        return Together(ranger, torch.optim.Adam(self.discriminator.parameters(), self.lr / 5))

    def begin(self, phase: Phase) -> None:
        """Nothing to prepare."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """All terms of one step, and the discriminator's own."""
        weights, like = self.weights, next(self.encoder.parameters())
        index = draw.index(len(self.train), phase.batch)
        images = self.train.images(index).to(like)
        self.encoder.train()
        stage = self.stages.at(draw.step, self.encoder.config.num_ws)
        codes = self.encoder.codes(images, stage)
        ws = codes + self.encoder.latent_avg
        terms = self._image_terms(images, ws)
        deltas = (codes[:, 1 : stage + 1] - codes[:, :1]) / self.scale
        terms["delta"] = deltas.norm(dim=2).mean(0).sum() if stage else codes.new_zeros(())
        rows = self._relative(ws[:, : stage + 1].flatten(0, 1))
        frozen = {k: v.detach() for k, v in self.discriminator.named_parameters()}
        terms["adversarial"] = F.softplus(-functional_call(self.discriminator, frozen, rows)).mean()
        loss = sum(getattr(weights, name) * value for name, value in terms.items())
        assert isinstance(loss, Tensor)
        apart = self._apart(rows.detach(), draw)
        terms |= {"discriminator": apart, "stage": ws.new_tensor(stage)}
        return {"loss": loss + apart, "encoder": loss.detach(), **terms}

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """The image terms on held-out faces, all rows at work as far as they are trained."""
        self.encoder.eval()
        like = next(self.encoder.parameters())
        index = np.arange(min(_HELD, len(self.held)))
        sums: dict[str, float] = {}
        shown: tuple[Tensor, Tensor] | None = None
        for start in range(0, len(index), 8):
            part = index[start : start + 8]
            images = self.held.images(part).to(like)
            ws = self.encoder(images)
            for name, value in self._image_terms(images, ws).items():
                sums[name] = sums.get(name, 0.0) + float(value) * len(part) / len(index)
            if shown is None:
                made = self.generator.synthesis(ws, noise_mode="const")
                shown = shrink_to(images, self.side), shrink_to(made, self.side)
        assert shown is not None
        save_sheet(directory / f"sheet_{tag}.png", [part.cpu() for part in shown])
        return {f"held_{name}": value for name, value in sums.items()}

    def _image_terms(self, images: Tensor, ws: Tensor) -> dict[str, Tensor]:
        made = shrink_to(self.generator.synthesis(ws, noise_mode="const"), self.side)
        wanted = shrink_to(images, self.side)
        terms = {"l2": (made - wanted).square().mean()}
        if self.perceptual is not None:
            terms["perceptual"] = self.perceptual(made, wanted).mean()
        if self.identity is not None:
            terms["identity"] = self.identity(made, wanted).mean()
        return terms

    def _relative(self, w: Tensor) -> Tensor:
        """W as the discriminator sees them: from the mean, in units of the spread."""
        return (w - self.encoder.latent_avg[0]) / self.scale

    def _apart(self, fake: Tensor, draw: Draw) -> Tensor:
        """The discriminator's loss on w of the mapping network and pooled ones of the encoder."""
        weights = self.weights
        z = torch.randn(len(fake), self.generator.z_dim, generator=draw.torch).to(fake)
        with torch.no_grad():
            real = self._relative(self.generator.mapping(z, None)[:, 0])
        pooled = self._pooled(fake, draw)
        loss = F.softplus(self.discriminator(pooled)).mean()
        wants_r1 = weights.r1 > 0 and draw.step % weights.r1_every == 0
        real.requires_grad_(wants_r1)
        logits = self.discriminator(real)
        loss = loss + F.softplus(-logits).mean()
        if wants_r1:
            (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
            penalty = slope.square().sum(1).mean()
            loss = loss + weights.r1 / 2 * weights.r1_every * penalty
        return loss

    def _pooled(self, fake: Tensor, draw: Draw) -> Tensor:
        """Half of the w, once the pool is full, exchanged for earlier ones (Shrivastava 2017)."""
        pool, out = self.extra["pool"], fake.clone()
        for row, w in enumerate(fake):
            filled = int(self.extra["pooled"])
            if filled < _POOL:
                pool[filled] = w
                self.extra["pooled"] += 1
            elif draw.numpy.random() < 0.5:
                place = int(draw.numpy.integers(_POOL))
                out[row] = pool[place]
                pool[place] = w
        return out
