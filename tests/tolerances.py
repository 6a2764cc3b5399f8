"""The one error policy of the package's kernels, and the check that every op goes through.

Truth is the float64 reference on the very inputs (rounded to the tested dtype first). A result may
be at most twice as wrong as the reference computed in the same dtype, plus a floor of a few
rounding units. Gradients are judged as values and, against a missing or mis-scaled term that a
value test can overlook, as vectors: by relative L2 distance and by cosine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

FLOOR_UNITS = 32.0
"""Floor of a relative error, in units of the dtype's rounding step (2**-23 for float32)."""

FLOAT_DTYPES = (torch.float64, torch.float32)
ALL_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def floor(dtype: torch.dtype, units: float = FLOOR_UNITS) -> float:
    """Relative error that is always allowed."""
    return units * torch.finfo(dtype).eps


def max_error(found: Tensor, truth: Tensor) -> float:
    """Largest absolute difference over the RMS of the truth (over one, where that is zero)."""
    if found.numel() == 0:
        return 0.0
    difference = (found.double() - truth.double()).abs().max().item()
    scale = truth.double().square().mean().sqrt().item()
    return difference / (scale or 1.0)


def l2_error(found: Tensor, truth: Tensor) -> float:
    """Relative L2 distance (absolute where the truth is zero)."""
    difference = torch.linalg.vector_norm(found.double() - truth.double()).item()
    return difference / (torch.linalg.vector_norm(truth.double()).item() or 1.0)


def cosine(found: Tensor, truth: Tensor) -> float:
    """Cosine of the angle between two gradients; 1 where both are zero."""
    a, b = found.double().flatten(), truth.double().flatten()
    norms = torch.linalg.vector_norm(a).item() * torch.linalg.vector_norm(b).item()
    return torch.dot(a, b).item() / norms if norms else float(torch.equal(a, b))


def assert_close(
    found: Tensor, same_dtype: Tensor, truth: Tensor, what: str, units: float = FLOOR_UNITS
) -> None:
    """The policy for values.

    Args:
        found: what the kernel computed.
        same_dtype: what the reference computed from the same inputs in the same dtype.
        truth: what the float64 reference computed from the same inputs.
        what: names the comparison in the failure.
        units: the floor, where an algorithm rounds more than the reference by its nature.
    """
    assert found.shape == truth.shape, f"{what}: shape {found.shape}, expected {truth.shape}"
    assert found.dtype == same_dtype.dtype, f"{what}: {found.dtype}, expected {same_dtype.dtype}"
    assert found.isfinite().all(), f"{what}: not finite"
    allowed = 2 * max_error(same_dtype, truth) + floor(found.dtype, units)
    error = max_error(found, truth)
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


def assert_gradient_close(
    found: Tensor, same_dtype: Tensor, truth: Tensor, what: str, units: float = FLOOR_UNITS
) -> None:
    """The policy for gradients: values, then relative L2 distance and cosine."""
    assert_close(found, same_dtype, truth, what, units)
    unit = floor(found.dtype)
    allowed = 2 * l2_error(same_dtype, truth) + unit
    error = l2_error(found, truth)
    assert error <= allowed, f"{what}: L2 error {error:.3g}, allowed {allowed:.3g}"
    lost = 1 - cosine(found, truth)
    allowed = 2 * abs(1 - cosine(same_dtype, truth)) + unit
    assert lost <= allowed, f"{what}: 1 - cosine {lost:.3g}, allowed {allowed:.3g}"


def channels_last(x: Tensor) -> Tensor:
    """The same values in NHWC order."""
    return x.contiguous(memory_format=torch.channels_last)


def strided(x: Tensor) -> Tensor:
    """The same values with a gap after each and a first element in mid-storage."""
    wide = torch.full((*x.shape, 2), float("nan"), dtype=x.dtype, device=x.device)
    wide[..., 1] = x
    return wide[..., 1]


@dataclass(frozen=True)
class Case:
    """One row of an op's table.

    Attributes:
        name: shown as the test's id.
        args: arguments of the op; float64 tensors (None allowed) and plain values.
        gradients: positions of the arguments to differentiate.
        layout: applied to every 4-D tensor argument.
        check: also run opcheck and gradcheck (slow: a few small cases an op).
        twice: also run gradgradcheck.
        units: floor of the largest error; see `assert_close`.
    """

    name: str
    args: tuple[Any, ...]
    gradients: tuple[int, ...] = (0,)
    layout: Callable[[Tensor], Tensor] | None = None
    check: bool = False
    twice: bool = False
    dtypes: Sequence[torch.dtype] = field(default=FLOAT_DTYPES)
    units: float = FLOOR_UNITS

    def __str__(self) -> str:
        return self.name

    def tensors(self, dtype: torch.dtype, device: torch.device | str = "cpu") -> list[Any]:
        """The arguments in `dtype`; those to differentiate require a gradient."""
        out = []
        for i, a in enumerate(self.args):
            if isinstance(a, Tensor):
                a = a.to(device=device, dtype=dtype)
                if self.layout is not None and a.ndim == 4:
                    a = self.layout(a)
                a = a.detach().requires_grad_(i in self.gradients)
            out.append(a)
        return out


def evaluate(
    op: Callable[..., Tensor], args: list[Any], gradients: tuple[int, ...], seed: int = 1
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The op's value, and the gradients of its product with fixed random numbers."""
    y = op(*args)
    if not gradients:
        return y, ()
    dy = torch.randn(y.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    # Rounded to what the tested dtype can hold, so that all three computations see the same one.
    dy = dy.to(torch.bfloat16).to(device=y.device, dtype=y.dtype)
    return y.detach(), torch.autograd.grad(y, [args[i] for i in gradients], dy)


def check_op(
    op: Callable[..., Tensor],
    reference: Callable[..., Tensor],
    case: Case,
    *,
    device: torch.device | str = "cpu",
) -> None:
    """Hold an op to the policy on one case.

    Args:
        op: the registered overload, `torch.ops.pyfacelat.NAME.default`.
        reference: differentiable plain torch with the same arguments.
        case: arguments and what to check.
        device: where the op runs; the truth is computed on the CPU.
    """
    for dtype in case.dtypes:
        args = case.tensors(dtype, device)
        exact = []
        for a in case.tensors(dtype):
            keep = isinstance(a, Tensor)
            exact.append(a.detach().double().requires_grad_(a.requires_grad) if keep else a)
        found, found_grads = evaluate(op, args, case.gradients)
        base, base_grads = evaluate(reference, args, case.gradients)
        truth, truth_grads = evaluate(reference, exact, case.gradients)
        assert_close(found.cpu(), base.cpu(), truth, f"{case} {dtype}: value", case.units)
        for i, *grads in zip(case.gradients, found_grads, base_grads, truth_grads, strict=True):
            cpu = [g.cpu() for g in grads]
            what = f"{case} {dtype}: gradient of argument {i}"
            assert_gradient_close(*cpu, what, case.units)
    if not case.check:
        return
    args = case.tensors(torch.float64, device)
    torch.library.opcheck(op, tuple(args))
    if case.gradients:
        inputs = [args[i] for i in case.gradients]

        def of_inputs(*values: Tensor) -> Tensor:
            full = list(args)
            for i, v in zip(case.gradients, values, strict=True):
                full[i] = v
            return op(*full)

        torch.autograd.gradcheck(of_inputs, inputs)
        if case.twice:
            torch.autograd.gradgradcheck(of_inputs, inputs)
