"""CPU milliseconds of the parts of one of our steps, each run by itself on the step's own state."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from pyfacelat.losses.noise import renormalise_
from pyfacelat.losses.objective import Candidate
from pyfacelat.projection.step import Step

ROUNDS = 7


def _median(run: Callable[[], object]) -> float:
    run()
    spent = []
    for _ in range(ROUNDS):
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
    return 1e3 * statistics.median(spent)


def parts(step: Step) -> dict[str, float]:
    """Synthesis, every term, and optimiser; forward, and forward with backward less forward."""
    buffers, found = step.buffers, {}
    theta = buffers.theta.detach()
    noise = {name: value.detach().requires_grad_() for name, value in buffers.noise.items()}
    ws = step.space.to_ws(theta).detach().clone().requires_grad_()
    leaves = [ws, *noise.values()]
    with torch.no_grad():
        image = step.render(ws, noise or None)
    dy = torch.randn_like(image)

    def both(name: str, forward: Callable[[], Tensor], backward: Callable[[], object]) -> None:
        first = found[f"{name} forward"] = _median(forward)
        found[f"{name} backward"] = _median(backward) - first

    both(
        "synthesis",
        lambda: step.render(ws, noise or None),
        lambda: torch.autograd.grad(step.render(ws, noise or None), leaves, dy, allow_unused=True),
    )
    image.requires_grad_()
    whitened = step.space.whiten(theta).detach().requires_grad_()
    inputs = [image, whitened, *leaves]
    for name, term in step.objective.terms.items():

        def value(term: Callable[[Candidate], Tensor] = term) -> Tensor:
            return term(Candidate(image, whitened, ws, noise)).sum()

        def slope(value: Callable[[], Tensor] = value) -> object:
            return torch.autograd.grad(value(), inputs, allow_unused=True)

        both(name, value, slope)
    if noise:
        found["renormalisation"] = _median(lambda: renormalise_(buffers.noise.values()))

    def whole() -> None:
        buffers.counter.zero_()
        step()

    total = _median(whole)
    found["optimiser and the rest"] = total - sum(found.values())
    found["step"] = total
    return found
