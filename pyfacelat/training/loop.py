"""The training loop that every sample model shares: phases, schedules, EMA, checkpoints, logs.

A run is a list of phases, each limited by steps or by minutes. Everything random in a step is drawn
from generators seeded by (seed, phase, step), so a run that was killed continues with the same
batches, and with limits in steps it ends with the same bits as a run that was not.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from .distributed import World, average_gradients, share

__all__ = ["Draw", "Optimizer", "Phase", "Task", "load_ema", "run"]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One stretch of training with a schedule of its own.

    Attributes:
        name: unique within the run.
        batch: images per step.
        steps, minutes: the limit; exactly one of them is given. Minutes are wall time.
        resolution: of the images, for tasks that grow; 0 where it has no meaning.
        flat: share of the phase before the cosine decay of the learning rate starts.
        final: learning rate at the end, relative to the start.
        warmup: steps of linear growth of the learning rate.
        ema: decay of the running average of the weights.
    """

    name: str
    batch: int
    steps: int | None = None
    minutes: float | None = None
    resolution: int = 0
    flat: float = 0.3
    final: float = 0.01
    warmup: int = 20
    ema: float = 0.995

    def __post_init__(self) -> None:
        if (self.steps is None) == (self.minutes is None):
            raise ValueError(
                f"phase {self.name}: give either steps or minutes, got {self.steps} and "
                f"{self.minutes}"
            )

    def progress(self, step: int, seconds: float) -> float:
        """How much of the phase is done, 0 .. 1 (or more)."""
        if self.steps is not None:
            return step / self.steps
        assert self.minutes is not None
        return seconds / (60 * self.minutes) if self.minutes else 1.0

    def rate(self, step: int, progress: float) -> float:
        """Learning rate relative to its peak: linear warm-up, flat, then half a cosine."""
        t = min(max((progress - self.flat) / max(1 - self.flat, 1e-9), 0.0), 1.0)
        cosine = self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * t))
        return cosine * min(1.0, (step + 1) / max(self.warmup, 1))


class Draw:
    """All randomness of one step, and its number; each process has its own."""

    def __init__(self, seed: int, phase: int, step: int, rank: int = 0) -> None:
        self.step = step
        self.numpy = np.random.default_rng((seed, phase, step, *([rank] if rank else [])))
        self.torch = torch.Generator().manual_seed(int(self.numpy.integers(2**62)))

    def index(self, count: int, batch: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        """`batch` different indices below `count` (fewer if there are fewer)."""
        return self.numpy.choice(count, min(batch, count), replace=False)

    def coins(self, batch: int) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """`batch` fair coins."""
        return self.numpy.random(batch) < 0.5


class Optimizer(Protocol):
    """An optimiser whose rates the loop scales; `Muon` is one."""

    scale: float

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""

    def step(self) -> Any:
        """Update the parameters."""

    def state_dict(self) -> dict[str, Any]:
        """All that has to be saved."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from there."""


class Task(Protocol):
    """What a net brings to the loop."""

    name: str
    net: nn.Module
    phases: Sequence[Phase]
    train: Sized
    """The training faces; the history notes how many there are."""
    extra: dict[str, Tensor]
    """Running values outside the net that a checkpoint must keep; changed in place."""

    def optimizer(self) -> Optimizer:
        """Make an optimiser over `net`; called at the start of every phase."""

    def begin(self, phase: Phase) -> None:
        """Change weights once, when a phase starts (not when it continues after a kill)."""

    def losses(self, phase: Phase, draw: Draw) -> dict[str, Tensor]:
        """Scalars of one step; the one named "loss" is minimised."""

    def check(self, phase: Phase, directory: Path, tag: str) -> dict[str, float]:
        """Numbers on held-out faces with the averaged weights in place, and a sample sheet."""


def run(
    task: Task,
    directory: str | os.PathLike[str],
    *,
    seed: int = 0,
    checkpoint_seconds: float = 60.0,
    check_seconds: float = 180.0,
    origin: Sequence[Mapping[str, Any]] = (),
    stop_after: str | None = None,
    stop_at_step: int | None = None,
    say: Callable[[str], None] = print,
    world: World | None = None,
) -> dict[str, float]:
    """Train `task` to the end of its phases, continuing what was cut short in `directory`.

    Args:
        task: the net, its phases and its losses.
        directory: holds state.pt, log.jsonl and the sample sheets.
        seed: of everything random in the steps.
        checkpoint_seconds: time between checkpoints.
        check_seconds: time between looks at held-out faces.
        origin: history of the run that the net's weights come from, if they are not fresh.
        stop_after: name of a phase after which to stop; a later call goes on from there.
        stop_at_step: stop within a phase, without a checkpoint, as a kill would (for tests).
        say: receives a line now and then.
        world: the processes that train together; None: this one alone. Each draws batches of its
            own, and phases must be limited by steps.

    Returns:
        The last numbers of `task.check`.

    Raises:
        ValueError: the folder holds a run with other phases or another seed, or several processes
            are to watch one clock.
        FloatingPointError: the loss is no longer finite.
    """
    world = world or World()
    if world.size > 1 and any(phase.minutes is not None for phase in task.phases):
        raise ValueError("phases: several processes need limits in steps, got minutes")
    folder = Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    if not world.first:
        say = _silent
    state_file = folder / "state.pt"
    plan = {"seed": seed, "task": task.name, "phases": [p.name for p in task.phases]}
    state: dict[str, Any] = {"plan": plan, "phase": 0, "step": 0, "seconds": 0.0}
    state["history"] = [dict(part) for part in origin]
    stored: dict[str, Any] | None = None
    ema: dict[str, Tensor] = {}
    if state_file.exists():
        where = next(task.net.parameters()).device
        stored = torch.load(state_file, weights_only=True, map_location=where)
        if stored["plan"] != plan:
            raise ValueError(
                f"{state_file}: is a run of {stored['plan']}, asked for {plan}; use another folder"
            )
        state = {k: stored[k] for k in state}
        task.net.load_state_dict(stored["net"])
        for name, value in stored["extra"].items():
            task.extra[name].copy_(value)
        ema = stored["ema"]
        say(f"{task.name}: continues in phase {state['phase']} at step {state['step']}")
    share(task.net, world)
    numbers: dict[str, float] = state["history"][-1]["check"] if state["history"] else {}
    for number, phase in enumerate(task.phases):
        if number < state["phase"]:
            if phase.name == stop_after:
                break
            continue
        if stored is None or state["step"] == 0:
            task.begin(phase)
        optimizer = task.optimizer()
        if stored is not None and state["step"]:
            optimizer.load_state_dict(stored["optimizer"])
        stored = stored or {}
        if not ema:
            ema = {k: v.detach().clone() for k, v in task.net.state_dict().items()}
        last = saved = checked = logged = time.monotonic()
        sums: dict[str, float] = {}
        counted = 0
        while phase.progress(state["step"], state["seconds"]) < 1:
            progress = phase.progress(state["step"], state["seconds"])
            optimizer.scale = phase.rate(state["step"], progress)
            losses = task.losses(phase, Draw(seed, number, state["step"], world.rank))
            optimizer.zero_grad(set_to_none=True)
            losses["loss"].backward()
            losses = average_gradients(task.net, losses, world)
            optimizer.step()
            # Young averages follow fast, also after a phase that added or reset weights.
            _average(ema, task.net, min(phase.ema, (1 + state["step"]) / (10 + state["step"])))
            state["step"] += 1
            counted += 1
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value.detach())
            if not math.isfinite(sums["loss"]):
                raise FloatingPointError(
                    f"{task.name}: the loss is not finite at step {state['step']} of {phase.name}"
                )
            now = time.monotonic()
            state["seconds"] += now - last
            last = now
            if stop_at_step is not None and state["step"] >= stop_at_step:
                return numbers
            if world.first and now - logged > 20:
                line = {k: v / counted for k, v in sums.items()}
                rate = counted * phase.batch / (now - logged)
                _log(folder, phase, state, {**line, "images_per_s": rate, "rate": optimizer.scale})
                say(
                    f"{task.name} {phase.name} step {state['step']} {100 * progress:.0f}% "
                    f"loss {line['loss']:.4f} {rate:.0f} images/s"
                )
                sums, counted, logged = {}, 0, now
            if world.first and now - checked > check_seconds:
                numbers = _check(task, phase, folder, state, ema, say)
                checked = last = time.monotonic()  # looking is not training time
            if world.first and now - saved > checkpoint_seconds:
                _save(state_file, state, task, ema, optimizer)
                saved = time.monotonic()
        if world.first:
            numbers = _check(task, phase, folder, state, ema, say)
        state["history"].append(
            {
                "phase": phase.name,
                "steps": state["step"],
                "images": state["step"] * phase.batch,
                "faces": len(task.train),
                "seconds": state["seconds"],
                "check": numbers,
            }
        )
        state.update(phase=number + 1, step=0, seconds=0.0)
        if world.first:
            _save(state_file, state, task, ema, optimizer)
        if phase.name == stop_after:
            break
    return numbers


def load_ema(directory: str | os.PathLike[str]) -> tuple[dict[str, Tensor], list[dict[str, Any]]]:
    """Averaged weights of a run, finished or not, and what is known of its phases so far.

    Raises:
        FileNotFoundError: nothing was trained there.
    """
    state_file = Path(directory) / "state.pt"
    if not state_file.exists():
        raise FileNotFoundError(f"{state_file}: no checkpoint; run this stage's training first")
    stored = torch.load(state_file, weights_only=True)
    history = list(stored["history"])
    if stored["step"]:
        name = stored["plan"]["phases"][stored["phase"]]
        part = {"phase": f"{name} (cut short)", "steps": stored["step"], "check": {}}
        part.update(images=stored["step"] * stored["batch"], seconds=stored["seconds"])
        history.append(part)
    return stored["ema"], history


def _silent(_line: str) -> None:
    """What processes but the first say."""


@torch.no_grad()
def _average(ema: dict[str, Tensor], net: nn.Module, decay: float) -> None:
    live = net.state_dict()
    averages, values = [], []
    for name, average in ema.items():
        if average.is_floating_point():
            averages.append(average)
            values.append(live[name])
        else:
            average.copy_(live[name])
    torch._foreach_lerp_(averages, values, 1 - decay)


def _check(
    task: Task,
    phase: Phase,
    folder: Path,
    state: dict[str, Any],
    ema: dict[str, Tensor],
    say: Callable[[str], None],
) -> dict[str, float]:
    live = {k: v.detach().clone() for k, v in task.net.state_dict().items()}
    task.net.load_state_dict(ema)
    with torch.no_grad():
        numbers = task.check(phase, folder, f"{state['phase']}_{phase.name}_{state['step']:06d}")
    task.net.load_state_dict(live)
    _log(folder, phase, state, numbers)
    say(f"{task.name} {phase.name} " + " ".join(f"{k} {v:.4g}" for k, v in numbers.items()))
    return numbers


def _log(folder: Path, phase: Phase, state: dict[str, Any], numbers: dict[str, float]) -> None:
    line = {"phase": phase.name, "step": state["step"], "seconds": round(state["seconds"], 1)}
    with open(folder / "log.jsonl", "a") as file:
        file.write(
            json.dumps({**line, **{k: float(f"{v:.6g}") for k, v in numbers.items()}}) + "\n"
        )


def _save(
    path: Path, state: dict[str, Any], task: Task, ema: dict[str, Tensor], optimizer: Optimizer
) -> None:
    temporary = path.with_suffix(".tmp")
    batch = task.phases[min(state["phase"], len(task.phases) - 1)].batch
    content = {
        **state,
        "batch": batch,
        "net": task.net.state_dict(),
        "ema": ema,
        "extra": task.extra,
    }
    content["optimizer"] = optimizer.state_dict()
    torch.save(content, temporary)
    os.replace(temporary, path)
