"""Who answers: any preset with overrides, the layer swap, and three pictures to compare with.

A method is named as it is asked for on the command line:

    balanced                      a preset
    reference:0.05                a preset at another landmark weight
    preset:balanced:steps=100:space=w:pixel=2:outer_lip=3
                                  a preset with a number of steps, a space, weights by loss term and
                                  by landmark group; also pose, shape, perceptual_mask and
                                  landmark_backend
    wplus-look-only               reference:space=w+:landmark=0
    layer-swap:psi=0.5:rows=3-10  rows of B's inversion mixed into A's
"""

from __future__ import annotations

import difflib
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.procface.networks import Networks
from bench.procface.tasks import TASKS, Batch
from pyfacelat.edits.mix import RECIPES, mix
from pyfacelat.edits.rows import PUBLISHED_ROWS, row_indices
from pyfacelat.errors import ConfigError
from pyfacelat.faces.groups import GROUPS
from pyfacelat.images import from_uint8, to_uint8
from pyfacelat.projection import PRESETS, ProjectionConfig, Projector, Stage, make_config
from pyfacelat.projection.config import TERMS
from pyfacelat.projection.result import ProjectionResult

LOOK_ONLY, SWAP = "wplus-look-only", "layer-swap"
BASELINES = ("reference:0.1", "reference:0.05", "reference:0.01", LOOK_ONLY, SWAP)
GIVEN = ("A itself", "B itself", "ideal")
"""Pictures that are scored like answers: doing nothing, doing too much, and doing it right."""

_WORDS = ("space", "pose", "shape", "perceptual_mask", "landmark_backend")
"""Settings of a preset that are words."""

CHECKPOINTS = 12
"""Points of the curve of errors over seconds."""


@dataclass
class Answer:
    """What a method made of N cases.

    Attributes:
        images: [N,3,R,R] in [-1, 1], as a saved picture holds them (rounded to 8 bits).
        seconds, cpu_seconds: of one face, in wall and in process time.
        ws: latents [N,num_ws,w_dim], or None.
        curve: images on the way, with the seconds of one face until then.

    """

    images: Tensor
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    ws: Tensor | None = None
    curve: list[tuple[float, Tensor]] = field(default_factory=list)


@dataclass(frozen=True)
class Projection:
    """A preset with its overrides.

    Attributes:
        label: as asked for.
        config: what it comes to.
        tasks: those it takes part in; without a landmark term it has no T3 to T5.

    """

    label: str
    config: ProjectionConfig
    tasks: tuple[str, ...] = TASKS

    @property
    def family(self) -> str:
        """Methods that differ by a weight only; plots join them by a line."""
        return self.config.preset if self.label.split(":")[0] == self.config.preset else self.label

    @property
    def steps(self) -> int:
        """Optimiser steps of one answer."""
        return self.config.steps

    def settings(self) -> dict[str, Any]:
        """Everything that decides its answers, besides networks and seed, as JSON values."""
        return {"kind": "projection", "config": json.loads(self.config.to_json())}

    def with_steps(self, steps: int) -> Projection:
        """The same with another number of steps."""
        return replace(self, config=make_config(self.config, steps=steps))

    def answer(self, batch: Batch, nets: Networks, seed: int, *, curve: bool = False) -> Answer:
        """Project a batch of looks onto the targets' pictures, or points."""
        init = nets.start(batch.look, self.config)
        projector = _projector(nets, self.config, seed, init)
        target: Any = batch.target
        if target is None:
            target = torch.from_numpy(batch.points * nets.size).float()
        began, cpu = time.perf_counter(), time.process_time()
        result = projector.project(batch.look, target)
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        count = len(batch.cases)
        return Answer(
            pictures(result.images),
            seconds / count,
            cpu_seconds / count,
            result.ws,
            _on_the_way(result, nets) if curve else [],
        )


@dataclass(frozen=True)
class LayerSwap:
    """Mixing of inversions: some rows of the answer are B + psi (A - B), the rest A.

    A and B are inverted by the encoder, where there is one, and the stages of preset `balanced`
    that have no landmark term.

    Attributes:
        label: as asked for.
        psi: share of A in the mixed rows.
        rows: which, of the 18 of a 1024 px generator; see `edits.mix`.
        invert: the inversion.
        tasks: those it takes part in; it takes landmarks from pictures only.

    """

    label: str
    psi: float
    rows: str
    invert: ProjectionConfig
    tasks: tuple[str, ...] = ("T1", "T2")

    @property
    def family(self) -> str:
        """As for `Projection`."""
        return self.label

    @property
    def steps(self) -> int:
        """Optimiser steps of one answer, both inversions together."""
        return 2 * self.invert.steps

    def settings(self) -> dict[str, Any]:
        """As for `Projection`."""
        config = json.loads(self.invert.to_json())
        return {"kind": SWAP, "psi": self.psi, "rows": self.rows, "config": config}

    def answer(self, batch: Batch, nets: Networks, seed: int, *, curve: bool = False) -> Answer:
        """Invert the looks and the targets' pictures, and mix. There is no curve."""
        del curve
        assert batch.target is not None
        projector = _projector(nets, self.invert, seed, nets.start(batch.look, self.invert))
        began, cpu = time.perf_counter(), time.process_time()
        a = projector.project(batch.look).ws
        projector = _projector(nets, self.invert, seed, nets.start(batch.target, self.invert))
        b = projector.project(batch.target).ws
        mixed = mix(a, b, self.rows, psi=self.psi, of=PUBLISHED_ROWS)
        with torch.no_grad():
            images = nets.generator.synthesis(mixed.to(nets.device))
        seconds, cpu_seconds = time.perf_counter() - began, time.process_time() - cpu
        count = len(batch.cases)
        return Answer(
            pictures(to_uint8(images).cpu().numpy()), seconds / count, cpu_seconds / count, mixed
        )


Method = Projection | LayerSwap


def parse(text: str) -> list[Method]:
    """Methods from a list with commas; see the module's docstring.

    Raises:
        ConfigError: unknown method or setting, a bad value, or one method twice.
        LandmarkError: a bad group weight.

    """
    labels = [item.strip() for item in text.split(",") if item.strip()]
    if not labels:
        raise ConfigError(f"method: expected at least one, got {text!r}")
    for label in labels:
        if labels.count(label) > 1:
            raise ConfigError(f"method: {label!r} was given twice")
    return [_method(label) for label in labels]


def given(label: str, batch: Batch, images: Tensor | None = None) -> Answer:
    """One of `GIVEN` as an answer; `images` are B's pictures where the batch has none."""
    if label == "A itself":
        return Answer(batch.look)
    if label == "ideal":
        return Answer(batch.ideal)
    b = batch.target if images is None else images
    assert b is not None
    return Answer(b)


def following(config: ProjectionConfig) -> tuple[Stage, ...]:
    """The stages that look at landmarks."""
    return tuple(s for s in config.stages if s.uses("landmark") or s.uses("coordinate"))


def inversion(config: ProjectionConfig) -> ProjectionConfig:
    """What of a preset inverts a look."""
    moving = following(config)
    stages = tuple(s for s in config.stages if s not in moving and s.subject == "look")
    return replace(config, stages=stages, motion_rank=0)


def pictures(images: NDArray[np.uint8]) -> Tensor:
    """uint8 [N,R,R,3] as float [N,3,R,R] in [-1, 1]."""
    return torch.stack([from_uint8(image) for image in images])


def _method(label: str) -> Method:
    name, *options = label.removeprefix("preset:").split(":")
    if name == LOOK_ONLY:
        name, options = "reference", ["space=w+", "landmark=0", *options]
    if name == SWAP:
        return _layer_swap(label, options)
    if name not in PRESETS:
        known = [*PRESETS, LOOK_ONLY, SWAP]
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise ConfigError(f"method: expected one of {', '.join(known)}, got {name!r}{hint}")
    config = _configure(name, options, label)
    return Projection(label, config, TASKS if following(config) else ("T1", "T2", "T6"))


def _configure(preset: str, options: Sequence[str], label: str) -> ProjectionConfig:
    words: dict[str, Any] = {}
    losses: dict[str, float] = {}
    groups: dict[str, float] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals:
            name, value = "landmark", option
        if name in _WORDS:
            words[name] = value
        elif name == "steps":
            words["steps"] = int(_number(value, label, name, whole=True))
        elif name in TERMS:
            losses[name] = _number(value, label, name)
        elif name in GROUPS:
            groups[name] = _number(value, label, name)
        else:
            known = ["steps", *_WORDS, *TERMS, *GROUPS]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
            raise ConfigError(f"method: {label!r}: unknown setting {name!r}{hint}")
    config = make_config(preset, loss_weights=losses or None, **words)
    if not groups:
        return config
    weights = list(config.group_weights)
    for name, weight in groups.items():
        for index in GROUPS[name]:
            weights[index] = weight
    return make_config(config, group_weights=weights)


def _layer_swap(label: str, options: Sequence[str]) -> LayerSwap:
    published = RECIPES["expression"]
    psi, rows = published.psi, "{}-{}".format(*published.rows)
    for option in options:
        name, _, value = option.partition("=")
        if name == "psi":
            psi = _number(value, label, name)
        elif name == "rows":
            row_indices(value, PUBLISHED_ROWS)  # so that a bad one is refused now
            rows = value
        else:
            raise ConfigError(f"method: {label!r}: expected psi= or rows=, got {option!r}")
    return LayerSwap(label, psi, rows, inversion(make_config("balanced")))


def _number(text: str, label: str, name: str, *, whole: bool = False) -> float:
    try:
        return int(text) if whole else float(text)
    except ValueError:
        kind = "a whole number" if whole else "a number"
        raise ConfigError(f"method: {label!r}: {name}: expected {kind}, got {text!r}") from None


_ready: dict[tuple[int, str, int], Projector] = {}


def _projector(
    nets: Networks, config: ProjectionConfig, seed: int, init: Tensor | None
) -> Projector:
    """A projector; those that do not depend on the pictures are built once."""
    if init is not None:
        return nets.projector(config, seed, init)
    key = (id(nets), config.to_json(), seed)
    if key not in _ready:
        _ready.clear()
        _ready[key] = nets.projector(config, seed)
    return _ready[key]


@torch.no_grad()
def _on_the_way(result: ProjectionResult, nets: Networks) -> list[tuple[float, Tensor]]:
    """Images at some steps, and the seconds of one face until then.

    Rendered with the final noise maps, since those on the way are not kept. Time is shared out
    evenly within a stage.
    """
    total = len(result.history)
    noise = {name: maps.to(nets.device) for name, maps in result.noise.items()} or None
    found = []
    for step in sorted({max(1, round(total * i / CHECKPOINTS)) for i in range(1, CHECKPOINTS + 1)}):
        left, spent = step, result.timings.get("prepare", 0.0)
        for stage in result.config.stages:
            done = min(left, stage.steps)
            spent += result.timings[stage.name] * done / stage.steps
            left -= done
        ws = result.history[step - 1].to(nets.device)
        images = nets.generator.synthesis(ws, noise=noise)
        found.append((spent / len(result), pictures(to_uint8(images).cpu().numpy())))
    return found
