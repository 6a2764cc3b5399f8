"""One projection step as a pure function of static buffers.

Every number that changes from step to step lives in a tensor that is allocated once: the latents,
the noise maps, Adam's moments, a step counter, and the loss record. The schedules and the latent
noise are tables on the device that the counter indexes. A step therefore reads nothing from the
host and tells the host nothing, and the same code can be replayed as a recorded graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pyfacelat import ops
from pyfacelat.losses.objective import Candidate, Objective
from pyfacelat.nets.frozen_synthesis import Render
from pyfacelat.projection.config import Stage
from pyfacelat.projection.schedule import adam_corrections, latent_noise_ramp, learning_rate_ramp
from pyfacelat.projection.space import LatentSpace

_BETA1, _BETA2 = 0.9, 0.999  # Adam's, as the ops have them


@dataclass
class Buffers:
    """All that changes during a stage.

    Attributes:
        theta: latent coordinates [N,rows,D].
        noise: noise maps by name, each [N,H,W]; empty unless they are optimised.
        moments: Adam's first and second moment by parameter name.
        packed: all maps, and their first and second moments, [N,P] each; `noise` and `moments` are
            views of them.
        counter: [1] int64, steps done.
        losses: [steps,terms+1,N] float32, each term unweighted, the total last.
        best_total: [N]; best: the coordinates and noise that reached it.
        history: `theta` at the end of every step, [steps,N,rows,D].

    """

    theta: Tensor
    noise: dict[str, Tensor]
    moments: dict[str, tuple[Tensor, Tensor]]
    packed: tuple[Tensor, Tensor, Tensor] | None
    counter: Tensor
    losses: Tensor
    best_total: Tensor
    best: dict[str, Tensor]
    history: Tensor

    @classmethod
    def allocate(cls, theta: Tensor, noise: dict[str, Tensor], steps: int, terms: int) -> Buffers:
        """Fresh buffers that start at `theta` [N,rows,D], taken over, and at a copy of `noise`."""
        count, device = len(theta), theta.device
        theta = theta.contiguous()
        moments = {"theta": (torch.zeros_like(theta), torch.zeros_like(theta))}
        packed = None
        if noise:
            maps, sizes, views = ops.pack_maps(list(noise.values()))
            packed = maps, torch.zeros_like(maps), torch.zeros_like(maps)
            pairs = zip(*(ops.unpack_maps(moment, sizes) for moment in packed[1:]), strict=True)
            moments |= dict(zip(noise, pairs, strict=True))
            noise = dict(zip(noise, views, strict=True))
        parameters = {"theta": theta, **noise}
        return cls(
            theta=theta,
            noise=noise,
            moments=moments,
            packed=packed,
            counter=torch.zeros(1, dtype=torch.int64, device=device),
            losses=torch.zeros(steps, terms + 1, count, device=device),
            best_total=torch.full((count,), torch.inf, dtype=theta.dtype, device=device),
            best={k: p.clone() for k, p in parameters.items()},
            history=torch.zeros(steps, *theta.shape, dtype=theta.dtype, device=device),
        )

    def parameters(self) -> dict[str, Tensor]:
        """What the optimiser moves, by name."""
        return {"theta": self.theta, **self.noise}

    def tensors(self) -> dict[str, Tensor]:
        """All buffers by name: the state of a run, for saving and restoring."""
        state = {"counter": self.counter, "losses": self.losses, "history": self.history}
        state["best_total"] = self.best_total
        for name, parameter in self.parameters().items():
            state[f"parameter.{name}"] = parameter
            state[f"best.{name}"] = self.best[name]
            state[f"moment1.{name}"], state[f"moment2.{name}"] = self.moments[name]
        return state


class Step:
    """A callable that does one step in place.

    Args:
        render: the frozen generator, from ws and noise to images.
        space: latent coordinates.
        objective: the terms and weights of this stage.
        stage: its settings.
        buffers: what the step reads and writes.
        draws: latent noise of every step, standard normal, [steps,rows,D]; the same for each item,
            so that an item's result does not depend on its neighbours in the batch.

    """

    def __init__(
        self,
        render: Render,
        space: LatentSpace,
        objective: Objective,
        stage: Stage,
        buffers: Buffers,
        draws: Tensor,
    ) -> None:
        self.render = render
        self.space = space
        self.objective = objective
        self.stage = stage
        self.buffers = buffers
        self.draws = draws
        self._tables = _tables(stage, space.spread, draws)
        self._open = _open_rows(stage, space.rows, draws) if stage.delta_opening else None

    def __call__(self) -> None:
        """Evaluate, differentiate, update, record, and count."""
        buffers, step = self.buffers, self.buffers.counter
        numbers = self._tables.index_select(1, step)
        rates, (deviation, settled, progress) = numbers[:4, 0], numbers[4:]
        parameters = buffers.parameters()
        with torch.enable_grad():
            leaves = {name: p.detach().requires_grad_() for name, p in parameters.items()}
            theta = leaves["theta"] + deviation * self.draws.index_select(0, step)
            noise = {name: leaf for name, leaf in leaves.items() if name != "theta"}
            ws = self.space.to_ws(theta)
            images = self.render(ws, noise or None)
            candidate = Candidate(images, self.space.whiten(theta), ws, noise)
            total, terms, final = self.objective(candidate, progress)
            gradients = torch.autograd.grad(total.sum(), list(leaves.values()), allow_unused=True)
        total = total.detach()
        buffers.losses.index_copy_(0, step, torch.cat([terms, total[None]]).float()[None])
        if self.stage.keep_best:
            self._remember(final, settled)
        moved = {name: g for name, g in zip(leaves, gradients, strict=True) if g is not None}
        if "theta" in moved:
            gradient = moved["theta"]
            if self._open is not None:
                gradient = _share(gradient, self._open.index_select(0, step)[0])
            self._move_latents(gradient, rates)
        if buffers.packed is not None:
            along = [
                moved[n] if n in moved else torch.zeros_like(m) for n, m in buffers.noise.items()
            ]
            sizes = [side for noise in buffers.noise.values() for side in noise.shape[1:]]
            ops.noise_update_(*buffers.packed, along, rates, sizes)
        buffers.history.index_copy_(0, step, buffers.theta[None])
        buffers.counter.add_(1)

    def _move_latents(self, gradient: Tensor, rates: Tensor) -> None:
        """Adam (Kingma & Ba 2015) on the coordinates; `rates` [4] as the op has them."""
        theta, moments = self.buffers.theta, self.buffers.moments["theta"]
        ops.adam_update_(theta, *moments, gradient, rates)

    @torch.no_grad()
    def remember_start(self) -> None:
        """Let what the stage starts with count among the steps that `keep_best` chooses from.

        It judges steps without latent noise, and at the first there may be some.
        """
        buffers = self.buffers
        ws = self.space.to_ws(buffers.theta)
        images = self.render(ws, buffers.noise or None)
        candidate = Candidate(images, self.space.whiten(buffers.theta), ws, buffers.noise)
        _, _, final = self.objective(candidate)
        self._remember(final, torch.ones_like(final[:1]))

    def _remember(self, total: Tensor, settled: Tensor) -> None:
        """Keep the parameters that gave `total` where they beat the best so far."""
        better = (total < self.buffers.best_total) & (settled > 0)
        self.buffers.best_total.copy_(torch.where(better, total, self.buffers.best_total))
        for name, parameter in self.buffers.parameters().items():
            best = self.buffers.best[name]
            best.copy_(torch.where(better.reshape(-1, 1, 1), parameter, best))


def _tables(stage: Stage, spread: float, draws: Tensor) -> Tensor:
    """Tabulate what changes from step to step: [7,steps].

    Rate, Adam's two corrections and a zero, as `ops.adam_update_` takes them; latent noise, whether
    it is gone, and progress from 0 to 1.
    """
    rows = []
    for i, corrections in enumerate(adam_corrections(stage.steps, _BETA1, _BETA2)):
        t = i / stage.steps
        ramp = learning_rate_ramp(t, ramp_up=stage.ramp_up, ramp_down=stage.ramp_down)
        deviation = (
            spread * stage.latent_noise * latent_noise_ramp(t, length=stage.latent_noise_ramp)
        )
        settled, progress = float(deviation == 0.0), i / max(1, stage.steps - 1)
        rate = stage.learning_rate * ramp
        rows.append((rate, *corrections, 0.0, deviation, settled, progress))
    return torch.tensor(rows, dtype=torch.float64).T.contiguous().to(draws.device, draws.dtype)


def _open_rows(stage: Stage, rows: int, draws: Tensor) -> Tensor:
    """Which latent rows move by themselves at each step: bool [steps,rows]; the first never does.

    The others do from the times in `stage.delta_opening` on: rows 1 to 3, 4 to 7, and 8 and above,
    StyleGAN's coarse, middle and fine styles.
    """
    coarse, middle, fine = stage.delta_opening
    when = [coarse if row < 4 else middle if row < 8 else fine for row in range(rows)]
    table = [
        [r > 0 and i / stage.steps >= when[r] for r in range(rows)] for i in range(stage.steps)
    ]
    return torch.tensor(table, device=draws.device)


def _share(gradient: Tensor, is_open: Tensor) -> Tensor:
    """Give the rows that are not open one gradient, the sum of theirs, so that they move as one.

    Args:
        gradient: [N,rows,D].
        is_open: bool [rows].
    """
    closed = torch.where(is_open[:, None], 0.0, gradient).sum(1, keepdim=True)
    return torch.where(is_open[:, None], gradient, closed)
