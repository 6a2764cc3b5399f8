"""Run the stages of a projection: steps, progress, checks, interruption, saved state.

Between two checks, every `CHECK_EVERY` steps, nothing is read back from the device.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NoReturn

import torch
from torch import Tensor

from pyfacelat.errors import NonFiniteError
from pyfacelat.images import to_uint8
from pyfacelat.losses.objective import Objective, TermFunction
from pyfacelat.nets.frozen_synthesis import Render, frozen_render
from pyfacelat.nets.stylegan2 import Generator
from pyfacelat.projection.config import ProjectionConfig, Stage
from pyfacelat.projection.graphs import GraphCache, GraphedStep
from pyfacelat.projection.readback import Reading
from pyfacelat.projection.signals import DeferredSignals
from pyfacelat.projection.space import LatentSpace
from pyfacelat.projection.step import Buffers, Step

CHECK_EVERY = 20
"""Steps between two looks at the device: callbacks, progress, finiteness."""

SAVE_EVERY = 20.0
"""Seconds between two saved states, at least; they are saved at checks."""


@dataclass(frozen=True)
class StepInfo:
    """What a callback gets.

    Attributes:
        step, steps: done so far, and in all, over all stages.
        stage: name of the stage that runs.
        losses: the last step's terms and "total" per image, by name.
        image: call it to render the present images, uint8 [N,H,W,3]; costs one synthesis.

    """

    step: int
    steps: int
    stage: str
    losses: dict[str, list[float]]
    image: Callable[[], Tensor]


Callback = Callable[[StepInfo], object]
SaveState = Callable[[dict[str, Tensor]], None]
Terms = Callable[[Stage, Tensor], dict[str, TermFunction]]
Begin = Callable[[Stage, tuple[Tensor, ...]], Tensor]
Coordinates = Callable[[Stage, Tensor], tuple[LatentSpace, Tensor]]


@dataclass
class Track:
    """The record of a run over all stages.

    Attributes:
        losses: by term and "total": [steps,N] float32 on the CPU; NaN where a stage lacks the term.
        history: whitened or raw coordinates after each step, [steps,N,rows,D].
        seconds: wall time by stage name.

    """

    losses: dict[str, Tensor] = field(default_factory=dict)
    history: list[Tensor] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)

    def append(self, names: tuple[str, ...], losses: Tensor, history: Tensor) -> None:
        """Add a stage: `losses` [steps,terms+1,N], the total last."""
        steps, count = losses.shape[0], losses.shape[2]
        before = next((len(values) for values in self.losses.values()), 0)
        for name in (*self.losses, *names, "total"):
            self.losses.setdefault(name, torch.full((before, count), torch.nan))
        for name, values in self.losses.items():
            if name in names or name == "total":
                new = losses[:, names.index(name) if name in names else -1].cpu()
            else:
                new = torch.full((steps, count), torch.nan)
            self.losses[name] = torch.cat([values, new])
        self.history.append(history.cpu())


AnyStep = Step | GraphedStep


@dataclass(frozen=True)
class _Check:
    """A look at the device after `done` steps: what is read, and the parameters as they were."""

    done: int
    reading: Reading
    parameters: dict[str, Tensor]

    @classmethod
    def of(cls, step: AnyStep, done: int) -> _Check:
        parameters = step.buffers.parameters()
        watched = [step.buffers.losses[:done], *parameters.values()]
        finite = torch.stack([torch.isfinite(value).all() for value in watched]).all()
        reading = Reading({"finite": finite, "losses": step.buffers.losses[done - 1]})
        return cls(done, reading, {name: p.clone() for name, p in parameters.items()})


class Run:
    """One projection in progress.

    Args:
        generator: frozen.
        config: what to do.
        space: latent coordinates.
        start: coordinates to start from, [N,rows,D].
        terms: for a stage and the coordinates it starts at, the loss terms by name.
        render: the generator's `frozen_render`, where it is at hand.
        graphs: replay steps from here; None runs them operator by operator.
        callback: called with a `StepInfo` at each check; False stops the run.
        report: called with (stage, step, total steps, latest totals) at each check, for progress.
        begin: for a stage and the ends of those before it, [N,rows,D] each, the coordinates it
            begins at; by default the last end, or `start`.
        coordinates: for a stage and where it begins, the space it is optimised in and the
            coordinates there that it starts from; by default `space` itself.
        save: called with all state at intervals, when the run ends, and when a signal, or an
            exception in the callback, ends it early. Signals then wait for the end of a step: what
            is saved is always the state between two steps.

    """

    def __init__(
        self,
        generator: Generator,
        config: ProjectionConfig,
        space: LatentSpace,
        start: Tensor,
        terms: Terms,
        *,
        render: Render | None = None,
        graphs: GraphCache | None = None,
        callback: Callback | None = None,
        report: Callable[[str, int, int, float], None] | None = None,
        save: SaveState | None = None,
        begin: Begin | None = None,
        coordinates: Coordinates | None = None,
    ) -> None:
        self.generator = generator
        self.config = config
        self.space = space
        self.theta = start.clone()
        self.noise: dict[str, Tensor] = {}
        self.track = Track()
        self.stopped = False
        self.ends: list[Tensor] = []
        self._terms = terms
        self._begin = begin or (lambda stage, ends: ends[-1] if ends else start.clone())
        self._coordinates = coordinates or (lambda stage, begun: (space, begun))
        self._step_render = render or frozen_render(generator)
        self._graphs = graphs
        self._callback = callback
        self._report = report
        self._save = save
        self._saved = time.perf_counter()
        self._maps, self._draws = _draw(generator, config, start)

    def __call__(self, state: dict[str, Tensor] | None = None) -> None:
        """Run all stages; `state` continues from what `save` was given."""
        first = int(state["stage"]) if state else 0
        if state:
            self.theta = state["start"].to(self.theta)
            saved = {name: state.get(f"noise.{name}") for name in self._maps}
            self.noise = {k: v.to(self.theta) for k, v in saved.items() if v is not None}
        with DeferredSignals() if self._save else contextlib.nullcontext() as signals:
            for index, stage in enumerate(self.config.stages):
                if index < first:
                    assert state is not None
                    self.track.append(
                        self._objective(stage, self.theta).names,
                        state[f"done.{index}.losses"],
                        state[f"done.{index}.history"],
                    )
                    self.ends.append(state[f"done.{index}.end"].to(self.theta))
                    continue
                self._run_stage(index, stage, state if index == first else None, signals)
                if self.stopped:
                    return
            if first < len(self.config.stages):
                self._save_now(len(self.config.stages), self.theta)

    def _objective(self, stage: Stage, start: Tensor) -> Objective:
        return Objective(self._terms(stage, start), self._active(stage), stage.weight_ends)

    def _active(self, stage: Stage) -> dict[str, float]:
        """The stage's weights, less the noise term where no noise is optimised."""
        has_noise = stage.optimise_noise and bool(self._maps)
        return {k: w for k, w in stage.weights.items() if k != "noise" or has_noise}

    def _run_stage(
        self,
        index: int,
        stage: Stage,
        state: dict[str, Tensor] | None,
        signals: DeferredSignals | None,
    ) -> None:
        began = time.perf_counter()
        start = self.theta if state else self._begin(stage, tuple(self.ends))
        space, begun = self._coordinates(stage, start)
        objective = self._objective(stage, start)
        count = len(start)
        if not stage.optimise_noise:
            noise = {}
        else:
            noise = {k: v.clone() for k, v in self.noise.items()} or {
                k: v.expand(count, -1, -1).clone() for k, v in self._maps.items()
            }
        buffers = Buffers.allocate(begun.clone(), noise, stage.steps, len(objective.names))
        if state:
            for name, tensor in buffers.tensors().items():
                tensor.copy_(state[f"now.{name}"])
        draws = space.inward(self._draws[index])
        plain = Step(self._step_render, space, objective, stage, buffers, draws)
        step: AnyStep = plain if self._graphs is None else self._graphs.graphed(plain)
        buffers = step.buffers
        if stage.keep_best and stage.latent_noise > 0 and not state:
            step.remember_start()
        done = self._loop(index, step, start, signals)
        best = stage.keep_best and bool(torch.isfinite(buffers.best_total).all())
        final = buffers.best if best else buffers.parameters()
        self.theta = space.outward(final["theta"]).clone()
        self.ends.append(self.theta)
        self.noise = {name: final[name].clone() for name in noise} or self.noise
        history = space.outward(buffers.history[:done])
        self.track.append(objective.names, buffers.losses[:done], history)
        self.track.seconds[stage.name] = time.perf_counter() - began

    def _loop(
        self, index: int, step: AnyStep, start: Tensor, signals: DeferredSignals | None
    ) -> int:
        """Steps up to the last of the stage; returns how many were done.

        Replayed steps are only queued here, so a check is settled when the steps up to the next one
        are queued, and the device never waits. A callback sees the very step it is told of.
        """
        stage, buffers = step.stage, step.buffers
        done = int(buffers.counter)
        finite = {name: p.clone() for name, p in buffers.parameters().items()}
        before = sum(s.steps for s in self.config.stages[:index])
        overlaps = isinstance(step, GraphedStep) and self._callback is None
        pending: list[_Check] = []
        while done < stage.steps:
            step()
            done += 1
            if signals:
                self._save_now(index, start, buffers)
                signals.deliver()
            if done % CHECK_EVERY and done < stage.steps:
                continue
            saving = time.perf_counter() - self._saved > SAVE_EVERY
            pending.append(_Check.of(step, done))
            while len(pending) > (overlaps and done < stage.steps and not saving):
                check = pending.pop(0)
                values = check.reading.wait()
                if not bool(values["finite"]):
                    self._not_finite(step, check.done, before, finite)
                finite = check.parameters
                try:
                    self._tell(step, check.done, before, values["losses"])
                except BaseException:
                    self._save_now(index, start, buffers)
                    raise
            if self.stopped:
                self._save_now(index, start, buffers)
                break
            if saving:
                self._save_now(index, start, buffers)
        return done

    def _tell(self, step: AnyStep, done: int, before: int, last: Tensor) -> None:
        """Report progress and call the callback; it may stop the run.

        `last` is [terms+1,N], the losses of step `done`, on the CPU.
        """
        if self._report is not None:
            total = float(last[-1].mean())
            self._report(step.stage.name, before + done, self.config.steps, total)
        if self._callback is not None:
            names = (*step.objective.names, "total")
            info = StepInfo(
                before + done,
                self.config.steps,
                step.stage.name,
                {name: last[i].tolist() for i, name in enumerate(names)},
                lambda: self._render(step),
            )
            self.stopped = self._callback(info) is False

    def _not_finite(
        self, step: AnyStep, done: int, before: int, finite: dict[str, Tensor]
    ) -> NoReturn:
        """Raise NonFiniteError for the first bad step and term; keep what was good until then."""
        buffers, names = step.buffers, (*step.objective.names, "total")
        bad = (~torch.isfinite(buffers.losses[:done])).nonzero()
        # An image's best settled step, where the stage looks for one; else the last finite check.
        best = torch.isfinite(buffers.best_total) & step.stage.keep_best
        kept = {
            name: torch.where(best.reshape(-1, 1, 1), buffers.best[name], values)
            for name, values in finite.items()
        }
        self.theta = step.space.outward(kept.pop("theta"))
        self.noise = kept or self.noise
        good = torch.isfinite(buffers.history[:done]).flatten(1).all(1)
        good &= torch.isfinite(buffers.losses[:done]).flatten(1).all(1)
        count = int(good.long().cumprod(0).sum())
        history = step.space.outward(buffers.history[:count])
        self.track.append(names[:-1], buffers.losses[:count], history)
        if len(bad) == 0:
            raise NonFiniteError(f"step {before + done}: the latents became NaN or infinite")
        index, term, item = bad[0].tolist()
        value = float(buffers.losses[index, term, item])
        raise NonFiniteError(f"step {before + index}: {names[term]} of image {item} became {value}")

    def _save_now(self, index: int, start: Tensor, buffers: Buffers | None = None) -> None:
        """Save the state in stage `index`, or at its beginning where it has no buffers yet."""
        if self._save is None:
            return
        state = {"stage": torch.tensor(index), "start": start}
        state |= {f"noise.{name}": tensor for name, tensor in self.noise.items()}
        for k in range(index):
            state[f"done.{k}.losses"], state[f"done.{k}.history"] = self._done(k)
            state[f"done.{k}.end"] = self.ends[k].clone()  # `start` may be the same tensor
        if buffers is not None:
            state |= {f"now.{name}": tensor for name, tensor in buffers.tensors().items()}
        self._save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()})
        self._saved = time.perf_counter()

    def _done(self, index: int) -> tuple[Tensor, Tensor]:
        """Losses and history of a finished stage, in the form `Buffers` has them."""
        stage = self.config.stages[index]
        before = sum(len(part) for part in self.track.history[:index])
        names = (*self._active(stage), "total")
        on = [name for name in names if name == "total" or stage.uses(name)]
        rows = slice(before, before + len(self.track.history[index]))
        return torch.stack([self.track.losses[n][rows] for n in on], 1), self.track.history[index]

    @torch.no_grad()
    def _render(self, step: AnyStep) -> Tensor:
        noise = step.buffers.noise or self.noise or None
        ws = step.space.to_ws(step.buffers.theta)
        return to_uint8(self.generator.synthesis(ws, noise=noise))


def _draw(
    generator: Generator, config: ProjectionConfig, start: Tensor
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """All random numbers of a run: initial noise maps by name, and each stage's latent noise.

    Drawn in the published projector's order, maps first and then one draw per step, from a
    generator of our own, so that the global one is neither read nor moved.
    """
    rng = torch.Generator().manual_seed(config.seed)
    device, dtype = start.device, start.dtype
    maps = {}
    if any(stage.optimise_noise for stage in config.stages):
        for name, shape in generator.noise_names().items():
            maps[name] = torch.randn(shape, generator=rng).to(device, dtype)
    draws = [
        torch.stack([torch.randn(start.shape[1:], generator=rng) for _ in range(stage.steps)])
        for stage in config.stages
    ]
    return maps, [draw.to(device, dtype) for draw in draws]
