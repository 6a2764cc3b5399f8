"""Muon: momentum whose matrix updates are orthogonalised, with Adam for the rest.

For a weight seen as a matrix W [out, in * kh * kw] with momentum M, the step is
W -= lr * sqrt(max(rows, cols)) * orthogonal(M), where orthogonal(M) = U V^T for M = U S V^T comes
from a few Newton-Schulz steps instead of an SVD. Every singular direction moves equally, so rare
factors of a face (a gaze, a lip corner) are learned as fast as the loud ones (skin tone, yaw).
Formula: K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024. The
factor sqrt(max(rows, cols)) makes the root mean square of an element's update about lr, as Adam's
is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["Muon", "orthogonalize"]

# Quintic x -> a x + b x^3 + c x^5 of the paper: maps (0, 1] towards about 1 (within 0.7 .. 1.2) in
# few steps.
_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalize(matrices: Tensor, steps: int = 4) -> Tensor:
    """Replace every singular value by a value near one (Newton-Schulz iteration).

    Args:
        matrices: [..., rows, cols], float32 or float64.
        steps: iterations of the quintic; four are enough for an optimiser step.

    Returns:
        The same shape and dtype. A zero matrix stays zero.
    """
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x: Tensor = matrices if wide else matrices.transpose(-1, -2)
    x = x / x.flatten(-2).norm(dim=-1).clamp_min(1e-12)[..., None, None]
    # x -> p(x x^T) x, and all the polynomials of one Gram matrix commute: so iterate on the
    # (smaller) Gram matrix and multiply into x once at the end, at half the cost for a 3x3
    # convolution's shape.
    eye = torch.eye(x.shape[-2], dtype=x.dtype, device=x.device)
    gram = x @ x.transpose(-1, -2)
    total: Tensor = eye
    for step in range(steps):
        poly = _A * eye + _B * gram + _C * (gram @ gram)
        total = poly @ total if step else poly
        if step + 1 < steps:
            gram = poly @ gram @ poly
    x = total @ x
    return x if wide else x.transpose(-1, -2)


class Muon(torch.optim.Optimizer):
    """Muon for weights, Adam for the rest; one optimiser, so one state to save.

    Args:
        matrices: parameters of two or more dimensions, seen as [shape[0], everything else].
        others: parameters for Adam, either tensors or param groups with their own "lr".
        lr: Muon's learning rate; about the root mean square of an element's change per step.
        adam_lr: Adam's learning rate.
        momentum: Nesterov momentum of Muon.
        steps: Newton-Schulz iterations.
        betas: Adam's running averages.
        scale: multiplies both rates at call time: `optimizer.scale = schedule(t)`.

    Raises:
        ValueError: a matrix parameter has fewer than two dimensions.
    """

    def __init__(
        self,
        matrices: Iterable[Tensor],
        others: Iterable[Any],
        *,
        lr: float = 2.5e-2,
        adam_lr: float = 3e-3,
        momentum: float = 0.95,
        steps: int = 4,
        betas: tuple[float, float] = (0.9, 0.99),
    ) -> None:
        matrices = list(matrices)
        for p in matrices:
            if p.ndim < 2:
                raise ValueError(
                    f"matrices: Muon needs two or more dimensions, got a parameter of "
                    f"{list(p.shape)}"
                )
        self.scale = 1.0
        groups: list[dict[str, Any]] = []
        if matrices:
            groups.append(
                {"params": matrices, "lr": lr, "momentum": momentum, "steps": steps, "muon": True}
            )
        plain: list[Tensor] = []
        for other in others:
            if isinstance(other, dict):
                groups.append({"lr": adam_lr, "betas": betas, "muon": False, **other})
            else:
                plain.append(other)
        if plain:
            groups.append({"params": plain, "lr": adam_lr, "betas": betas, "muon": False})
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params:
                (self._muon if group["muon"] else self._adam)(group, params)
        return loss

    def _muon(self, group: dict[str, Any], params: list[Tensor]) -> None:
        # Equal shapes are stacked: the matrices are small, and one bmm beats many mm calls.
        shapes: dict[tuple[int, int], list[Tensor]] = {}
        for p in params:
            shapes.setdefault((p.shape[0], p[0].numel()), []).append(p)
        for (rows, cols), same in shapes.items():
            moved = []
            for p in same:
                state = self.state[p]
                if not state:
                    state["momentum"] = torch.zeros_like(p)
                gradient = p.grad
                assert gradient is not None
                state["momentum"].mul_(group["momentum"]).add_(gradient)
                nesterov = gradient.add(state["momentum"], alpha=group["momentum"])
                moved.append(nesterov.reshape(rows, cols))
            update = orthogonalize(torch.stack(moved), group["steps"])
            rate = group["lr"] * self.scale * max(rows, cols) ** 0.5
            for p, u in zip(same, update, strict=True):
                p.sub_(u.reshape(p.shape), alpha=rate)

    def _adam(self, group: dict[str, Any], params: list[Tensor]) -> None:
        beta1, beta2 = group["betas"]
        gradients = [p.grad for p in params if p.grad is not None]
        for p in params:
            if not self.state[p]:
                self.state[p].update(
                    step=torch.zeros(()), mean=torch.zeros_like(p), square=torch.zeros_like(p)
                )
        means = [self.state[p]["mean"] for p in params]
        squares = [self.state[p]["square"] for p in params]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        for p, mean, square in zip(params, means, squares, strict=True):
            count = self.state[p]["step"].add_(1).item()
            root = square.sqrt().div_((1 - beta2**count) ** 0.5).add_(1e-8)
            p.addcdiv_(mean, root, value=-group["lr"] * self.scale / (1 - beta1**count))
