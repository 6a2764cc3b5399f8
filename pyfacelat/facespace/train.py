"""Fitting a face space.

Phases, as published: first *target propagation*, where latents of each face are optimised until
they render it, and the encoder regresses to them; then cycles in which the encoder is trained
through the generator, the rate falling to a tenth after each; then, if wanted, a fine-tuning for
pixels.

    image loss = 100 * features + 100 * pixels     (means of squares; features summed over maps,
                                                    pixels in [0, 1])
    latent loss = 10,000 * mean (encoder(z) - target)^2        (20,000 for landmarks)

The published program adds the encoder's image loss to its latent loss while propagating; here the
two are separate, as its text describes them, which costs one pass of the generator less a step.
"""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyfacelat.errors import ConfigError, NonFiniteError
from pyfacelat.facespace.data import FaceData
from pyfacelat.facespace.space import FaceSpace
from pyfacelat.images import shrink_to
from pyfacelat.nets.facespace import FaceSpaceConfig, FaceSpaceEncoder
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.outdir import Outdir, fingerprint, open_outdir
from pyfacelat.version import __version__

__all__ = ["Features", "FitConfig", "Phase", "Progress", "fit"]

Features = Callable[[Tensor], Sequence[Tensor]]
"""Images [n,3,S,S] in [-1, 1], S <= 256, to maps [n,C,H,W]; e.g. the trunk of an LPIPS metric."""
Progress = Callable[[str, int, int, float], None]
"""Called after each epoch with (phase, epoch, epochs, mean loss)."""

Optimizers = dict[str, torch.optim.Optimizer]

SAVE_EVERY = 20.0
"""Seconds between two saved states, at least; they are saved after an epoch."""

_FEATURE_SIZE = 256  # pixels at which features are compared


@dataclasses.dataclass(frozen=True)
class FitConfig:
    """Settings of `fit`; the defaults are the published ones, but for `cycle_rate`.

    Attributes:
        epochs: of each phase; a fine-tuning takes half as many.
        batch: faces per step.
        rate: Adam's learning rate for encoder, z and targets at the start.
        cycles: phases through the generator.
        cycle_rate: learning rate of the first cycle, over `rate`. The published 1 undoes what was
            propagated before it mends it: on four procedural faces in 40 epochs the image loss went
            from 4 to 200.
        fine_tune: a last phase with the pixel weight times 100.
        feature_weight, pixel_weight: of the image loss.
        target_weight: of the latent loss; None takes the published one for the kind of z.
        seed: of the encoder's initial weights and of the order of faces.
    """

    epochs: int = 200
    batch: int = 2
    rate: float = 1e-2
    cycles: int = 2
    cycle_rate: float = 0.1
    fine_tune: bool = False
    feature_weight: float = 1e2
    pixel_weight: float = 1e2
    target_weight: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("epochs", 1), ("batch", 1), ("cycles", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: expected at least {least}, got {getattr(self, name)}")
        for name in ("feature_weight", "pixel_weight", "rate", "cycle_rate"):
            if not 0 <= getattr(self, name) < 1e9:
                raise ConfigError(f"{name}: expected a number >= 0, got {getattr(self, name)}")
        if self.feature_weight == 0 and self.pixel_weight == 0:
            raise ConfigError("pixel_weight: with no feature weight either, nothing is compared")


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training: its name, epochs, learning rate, and weight of pixels."""

    name: str
    epochs: int
    rate: float
    pixel_weight: float


def phases(config: FitConfig) -> list[Phase]:
    """What `fit` does, in order; the rate falls to a tenth after each cycle, too."""
    plan = [Phase("targets", config.epochs, config.rate, config.pixel_weight)]
    rate = config.rate * config.cycle_rate
    for number in range(config.cycles):
        plan.append(Phase(f"cycle {number + 1}", config.epochs, rate, config.pixel_weight))
        rate *= 0.1
    if config.fine_tune:
        epochs = max(config.epochs // 2, 1)
        plan.append(Phase("fine-tune", epochs, rate, config.pixel_weight * 100))
    return plan


def fit(
    data: FaceData,
    generator: Generator,
    features: Features | None,
    config: FitConfig | None = None,
    *,
    mean: Tensor | None = None,
    spread: float | None = None,
    progress: Progress | None = None,
    outdir: str | os.PathLike[str] | None = None,
    resume: bool = False,
) -> FaceSpace:
    """Fit an encoder to faces.

    Args:
        data: the faces, of the generator's size.
        generator: frozen; its stored noise is used.
        features: what the faces are compared by, besides pixels; None compares pixels only.
        config: settings.
        mean: where the generator's w lie, [w_dim]; None takes `w_avg`.
        spread: root of their mean squared distance from it; `projection.space.measure` gives both.
            None takes 1, as the published program does.
        progress: see `Progress`.
        outdir: a folder that keeps the state, every 20 seconds, while this runs.
        resume: go on with the state there; on a CPU the result has the same bits.

    Returns:
        The face space; its `history` has, for each phase, name, learning rate, and the mean losses
        of every epoch: "image" (of targets or encoder) and, while propagating, "latent".

    Raises:
        ConfigError: faces of another size, targets of another shape.
        NonFiniteError: a loss is no longer finite.
        CheckpointError: the state is damaged, or of another fit.
        OutdirBusyError: another run writes to `outdir`.
    """
    config = config or FitConfig()
    if resume and outdir is None:
        raise ConfigError("resume: expected an outdir to resume from, got none")
    size = generator.img_resolution
    if data.images.shape[-2:] != (size, size):
        raise ConfigError(
            f"data: expected images of {size} px, as the generator's, got "
            f"{list(data.images.shape[-2:])}"
        )
    like = next(generator.parameters())
    shape = FaceSpaceConfig.published(
        faces=len(data),
        inputs=data.z.shape[1],
        num_ws=generator.num_ws,
        w_dim=generator.w_dim,
        kind=data.kind,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        encoder = FaceSpaceEncoder(shape)
    encoder.mean.copy_(generator.mapping.w_avg if mean is None else mean)
    encoder.spread.fill_(1.0 if spread is None else spread)
    encoder.to(like)
    fitting = _Fit(data, generator, features, config, encoder, progress)
    with open_outdir(outdir) as folder:
        saved = folder.load_state(fitting.identity) if folder and resume else None
        space = fitting.run(folder, saved)
        if folder is not None:
            folder.clear_state()
        return space


def _log_of(state: dict[str, Tensor], number: int) -> dict[str, list[float]]:
    """The losses of a phase so far, by name, from a saved state."""
    prefix = f"log.{number}."
    found = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    return {name: values.tolist() for name, values in found.items()}


class _Fit:
    """The state of one fit: encoder, z, targets, and what they are compared with."""

    def __init__(
        self,
        data: FaceData,
        generator: Generator,
        features: Features | None,
        config: FitConfig,
        encoder: FaceSpaceEncoder,
        progress: Progress | None,
    ) -> None:
        self.data, self.generator, self.config = data, generator, config
        self.encoder, self.progress = encoder, progress
        self.features = features if config.feature_weight else None
        like = next(generator.parameters())
        self.images = data.images.to(like)
        # A copy: the caller's vectors stay what they are.
        self.z = nn.Parameter(data.z.to(like, copy=True), requires_grad=data.train_z)
        weight = 1e4 if data.kind == "one-hot" else 2e4
        self.target_weight = weight if config.target_weight is None else config.target_weight
        shape = (len(data), generator.num_ws, generator.w_dim)
        start = torch.zeros(shape, device=like.device, dtype=like.dtype)
        if data.targets is not None:
            if tuple(data.targets.shape) != shape:
                raise ConfigError(
                    f"targets: expected {list(shape)}, got {list(data.targets.shape)}"
                )
            start = (data.targets.to(like) - encoder.mean) / encoder.spread
        self.targets = nn.Parameter(start)  # in the encoder's units
        self.wanted = self._maps_of_faces()
        self.random = torch.Generator().manual_seed(config.seed)
        self._saved = time.monotonic()
        settings = (__version__, str(config), data.kind, str(data.train_z), *data.names)
        given = (data.images, data.z, data.targets, encoder.mean, encoder.spread)
        self.identity = fingerprint(*settings, *given, generator, *self.wanted)

    def run(self, folder: Outdir | None, saved: dict[str, Tensor] | None) -> FaceSpace:
        """All phases; from `saved` on, if there is such a state, and keeping one in `folder`."""
        history: list[dict[str, Any]] = []
        logs: list[dict[str, list[float]]] = []
        learnt = [*self.encoder.parameters(), *([self.z] if self.data.train_z else [])]
        target_optimizer = torch.optim.Adam([self.targets], lr=self.config.rate)
        first, begin = (int(saved["phase"]), int(saved["epoch"])) if saved else (0, 0)
        for number, phase in enumerate(phases(self.config)):
            log = _log_of(saved, number) if saved else {}
            if number < first:
                history.append({"phase": phase.name, "rate": phase.rate, **log})
                logs.append(log)
                continue
            optimizer = torch.optim.Adam(learnt, lr=phase.rate)
            optimizers: Optimizers = {"encoder": optimizer, "targets": target_optimizer}
            if saved is not None and number == first:
                self._restore(saved, optimizers)
            for epoch in range(begin if number == first else 0, phase.epochs):
                sums = self._epoch(phase, optimizer, target_optimizer)
                for name, value in sums.items():
                    if not -float("inf") < value < float("inf"):
                        raise NonFiniteError(f"{phase.name}: the {name} loss is {value}")
                    log.setdefault(name, []).append(value)
                if folder is not None and time.monotonic() - self._saved >= SAVE_EVERY:
                    state = self._state(number, epoch + 1, optimizers, [*logs, log])
                    folder.try_save_state(state, self.identity)
                    self._saved = time.monotonic()
                if self.progress is not None:
                    self.progress(phase.name, epoch + 1, phase.epochs, sums["image"])
            history.append({"phase": phase.name, "rate": phase.rate, **log})
            logs.append(log)
        self.encoder.z.copy_(self.z.detach())
        self.encoder.targets.copy_(self.encoder.to_ws(self.targets.detach()))
        self.encoder.eval().requires_grad_(False)
        return FaceSpace(self.encoder, self.generator, self.data.names, history)

    def _epoch(
        self,
        phase: Phase,
        optimizer: torch.optim.Optimizer,
        target_optimizer: torch.optim.Optimizer,
    ) -> dict[str, float]:
        """One pass over the faces; mean losses by name."""
        sums: dict[str, float] = {}
        for index in self._batches():
            if phase.name == "targets":
                losses = self._propagate(index, optimizer, target_optimizer, phase)
            else:
                losses = {"image": self._through(index, optimizer, phase)}
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value * len(index) / len(self.data)
        return sums

    def _state(
        self,
        number: int,
        epoch: int,
        optimizers: Optimizers,
        logs: list[dict[str, list[float]]],
    ) -> dict[str, Tensor]:
        """Everything that the epochs to come depend on, as tensors by name."""
        state = {"phase": torch.tensor(number), "epoch": torch.tensor(epoch)}
        state |= {"random": self.random.get_state(), "z": self.z, "targets": self.targets}
        state |= {f"net.{name}": value for name, value in self.encoder.state_dict().items()}
        for which, optimizer in optimizers.items():
            for place, values in optimizer.state_dict()["state"].items():
                state |= {f"adam.{which}.{place}.{name}": v for name, v in values.items()}
        for place, log in enumerate(logs):
            state |= {
                f"log.{place}.{k}": torch.tensor(v, dtype=torch.float64) for k, v in log.items()
            }
        return {name: value.detach().cpu().contiguous() for name, value in state.items()}

    def _restore(self, state: dict[str, Tensor], optimizers: Optimizers) -> None:
        """Set everything to what `_state` took."""
        net = {k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")}
        self.encoder.load_state_dict(net)
        self.random.set_state(state["random"])
        with torch.no_grad():
            self.z.copy_(state["z"])
            self.targets.copy_(state["targets"])
        for which, optimizer in optimizers.items():
            whole = optimizer.state_dict()
            for name, value in state.items():
                if name.startswith(f"adam.{which}."):
                    place, key = name.split(".")[2:]
                    # Copied: where in memory a tensor lies may decide how its sums round.
                    whole["state"].setdefault(int(place), {})[key] = value.clone()
            optimizer.load_state_dict(whole)

    def _propagate(
        self,
        index: Tensor,
        optimizer: torch.optim.Optimizer,
        target_optimizer: torch.optim.Optimizer,
        phase: Phase,
    ) -> dict[str, float]:
        """One step of the targets towards their faces, one of the encoder towards the targets."""
        image = self._image_loss(self.targets[index], index, phase.pixel_weight)
        target_optimizer.zero_grad()
        image.backward()
        target_optimizer.step()
        difference = self.encoder.normalised(self.z[index]) - self.targets.detach()[index]
        latent = self.target_weight * difference.square().mean()
        optimizer.zero_grad()
        latent.backward()
        optimizer.step()
        return {"image": float(image.detach()), "latent": float(latent.detach())}

    def _through(self, index: Tensor, optimizer: torch.optim.Optimizer, phase: Phase) -> float:
        """One step of the encoder through the generator."""
        loss = self._image_loss(self.encoder.normalised(self.z[index]), index, phase.pixel_weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    def _image_loss(self, normalised: Tensor, index: Tensor, pixel_weight: float) -> Tensor:
        images = self.generator.synthesis(self.encoder.to_ws(normalised), noise_mode="const")
        # Pixels in [0, 1]; not clamped, so that overshooting has a gradient back.
        loss: Tensor = pixel_weight * ((images - self.images[index]) / 2).square().mean()
        if self.features is not None:
            maps = self.features(shrink_to(images, _FEATURE_SIZE))
            pairs = zip(maps, self.wanted, strict=True)
            parts = [(a - b[index]).square().mean() for a, b in pairs]
            loss = loss + self.config.feature_weight * torch.stack(parts).sum()
        return loss

    @torch.no_grad()
    def _maps_of_faces(self) -> list[Tensor]:
        if self.features is None:
            return []
        each = [self.features(shrink_to(image[None], _FEATURE_SIZE)) for image in self.images]
        return [torch.cat(maps) for maps in zip(*each, strict=True)]

    def _batches(self) -> Iterator[Tensor]:
        order = torch.randperm(len(self.data), generator=self.random)
        yield from torch.split(order, self.config.batch)
