"""Optimisers of the published encoders, as the training loop wants them: with a rate to scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

__all__ = ["Ranger", "Together"]


class Ranger(torch.optim.RAdam):
    """Rectified Adam that looks ahead, the optimiser of pSp and e4e.

    RAdam (Liu et al. 2019, arXiv:1908.03265), and every `every` steps slow weights move `share` of
    the way to the fast ones, which go on from there (Zhang et al. 2019, arXiv:1907.08610).

    Args:
        params: parameters or groups of them.
        lr, betas, eps: of RAdam.
        every, share: of the slow weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-4,
        *,
        betas: tuple[float, float] = (0.95, 0.999),
        eps: float = 1e-5,
        every: int = 6,
        share: float = 0.5,
    ) -> None:
        super().__init__(params, lr=lr, betas=betas, eps=eps)
        self.every, self.share = every, share

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update every parameter that has a gradient."""
        moving = [p for group in self.param_groups for p in group["params"] if p.grad is not None]
        # RAdam takes an empty state as its cue to begin, so the slow weights wait beside it.
        first = {p: p.detach().clone() for p in moving if not self.state[p]}
        loss = super().step(closure)
        for p in moving:
            state = self.state[p]
            if p in first:
                state["slow"] = first[p]
            if int(state["step"]) % self.every == 0:
                state["slow"].lerp_(p, self.share)
                p.copy_(state["slow"])
        return loss


class Together:
    """Several optimisers as one, whose learning rates a schedule scales.

    Args:
        optimizers: each with learning rates of its own.

    Attributes:
        scale: what every learning rate is multiplied by from the next step on.
    """

    def __init__(self, *optimizers: torch.optim.Optimizer) -> None:
        self.optimizers = optimizers
        self._rates = [[group["lr"] for group in part.param_groups] for part in optimizers]
        self.scale = 1.0

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget all gradients."""
        for part in self.optimizers:
            part.zero_grad(set_to_none=set_to_none)

    def step(self) -> None:
        """Update, one after the other."""
        for part, rates in zip(self.optimizers, self._rates, strict=True):
            for group, rate in zip(part.param_groups, rates, strict=True):
                group["lr"] = rate * self.scale
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """The states of all."""
        return {"parts": [part.state_dict() for part in self.optimizers]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` gave."""
        for part, stored in zip(self.optimizers, state["parts"], strict=True):
            part.load_state_dict(stored)
