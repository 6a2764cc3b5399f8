"""What of an animation is done: in memory, and on disk at intervals, to go on from."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pyfacelat.projection.loop import SAVE_EVERY, Run
from pyfacelat.projection.outdir import Outdir


@dataclass(frozen=True)
class Done:
    """One run of stages that is complete.

    Attributes:
        theta: coordinates at its end, [N,rows,D].
        noise: optimised noise maps by name, each [N,H,W]; empty where none were.
        losses: by term and "total", [steps,N].
        seconds: wall time.

    """

    theta: Tensor
    noise: dict[str, Tensor]
    losses: dict[str, Tensor]
    seconds: float


class Journal:
    """Runs by name, complete or begun.

    Args:
        folder: where to keep them; None for nowhere.
        identity: of the whole animation; see `Outdir.load_state`.
        resume: whether to begin with what is in the folder.

    """

    def __init__(self, folder: Outdir | None, identity: str, resume: bool) -> None:
        self._folder = folder
        self._identity = identity
        self._tensors: dict[str, Tensor] = {}
        self._begun: dict[str, Tensor] = {}
        self._saved = time.perf_counter()
        self._dirty = False
        if folder is not None and resume:
            self._tensors = folder.load_state(identity) or {}
            names = [name for name in self._tensors if name.startswith("begun/")]
            self._begun = {name: self._tensors.pop(name) for name in names}

    def done(self, key: str) -> Done | None:
        """The run of that name, if it is complete."""
        if f"{key}/theta" not in self._tensors:
            return None
        return Done(
            self._tensors[f"{key}/theta"],
            self._below(f"{key}/noise/"),
            self._below(f"{key}/loss/"),
            float(self._tensors[f"{key}/seconds"]),
        )

    def begun(self, key: str) -> dict[str, Tensor] | None:
        """The state in which the run of that name was left, for `Run`."""
        prefix = f"begun/{key}/"
        return {k.removeprefix(prefix): v for k, v in self._begun.items() if k.startswith(prefix)}

    def saver(self, key: str, stages: int) -> Callable[[dict[str, Tensor]], None] | None:
        """What `Run` saves its state with; None where there is no folder."""
        if self._folder is None:
            return None

        def save(state: dict[str, Tensor]) -> None:
            self._begun = {f"begun/{key}/{name}": tensor for name, tensor in state.items()}
            self._dirty = True
            # A run's end is no reason to write: an animation can have one every second.
            if int(state["stage"]) < stages:
                self.flush()

        return save

    def keep(self, key: str, run: Run) -> Done:
        """Note that a run is complete; written when the last time was long ago."""
        done = Done(
            run.theta.detach().cpu(),
            {name: maps.detach().cpu() for name, maps in run.noise.items()},
            run.track.losses,
            sum(run.track.seconds.values()),
        )
        self._begun = {}
        self._tensors[f"{key}/theta"] = done.theta
        self._tensors[f"{key}/seconds"] = torch.tensor(done.seconds)
        self._tensors |= {f"{key}/noise/{name}": maps for name, maps in done.noise.items()}
        self._tensors |= {f"{key}/loss/{name}": values for name, values in done.losses.items()}
        self._dirty = True
        if time.perf_counter() - self._saved > SAVE_EVERY:
            self.flush()
        return done

    def flush(self) -> None:
        """Write what is not written yet."""
        if self._folder is None or not self._dirty:
            return
        tensors = {k: v.contiguous().clone() for k, v in (self._tensors | self._begun).items()}
        self._folder.try_save_state(tensors, self._identity)
        self._saved, self._dirty = time.perf_counter(), False

    def _below(self, prefix: str) -> dict[str, Tensor]:
        found = self._tensors.items()
        return {k.removeprefix(prefix): v for k, v in found if k.startswith(prefix)}
