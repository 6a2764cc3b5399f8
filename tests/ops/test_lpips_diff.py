"""lpips_unit and lpips_diff against float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from pyfacelat import _extension
from pyfacelat.ops import lpips_diff, lpips_unit
from pyfacelat.ops._library import accumulated
from pyfacelat.ops.lpips_diff import reference, unit_reference
from tests.ops.cases import randn
from tests.tolerances import ALL_DTYPES, assert_close, assert_gradient_close, channels_last, strided


@dataclass(frozen=True)
class Diff:
    """One comparison: sizes, layout, and how many images the target and the weights have."""

    size: tuple[int, int, int, int]
    layout: str = "NCHW"
    targets: int | None = None
    weights: int | None = None
    zeros: bool = False

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.size)), self.layout]
        parts += ["one target"] if self.targets == 1 else []
        parts += [f"{self.weights} weights"] if self.weights is not None else []
        return " ".join([*parts, *(["zeros"] if self.zeros else [])])

    def arguments(self, dtype: torch.dtype, device: str = "cpu") -> tuple[list[Any], list[Any]]:
        """x, target, lin and weights, and the same numbers in float64 on the CPU."""
        n, c, h, w = self.size
        wide = accumulated(dtype)
        x = randn(n, c, h, w).relu() if self.zeros else randn(n, c, h, w)
        if self.zeros:
            x[:, :, :, :2] = 0
        x = x.to(dtype)
        target = unit_reference(randn(self.targets or n, c, h, w, seed=1)).to(wide)
        weights = None if self.weights is None else randn(self.weights, h, w, seed=3).abs().to(wide)
        values = [x, target, randn(c, seed=2).abs().to(wide), weights]
        exact = [None if v is None else v.double() for v in values]
        form = {"NHWC": channels_last, "strided": strided}.get(self.layout, lambda t: t)
        moved = [None if v is None else v.to(device) for v in values]
        return [form(moved[0]), form(moved[1]), *moved[2:]], exact


CASES = [
    Diff((1, 3, 5, 7)),
    Diff((3, 37, 9, 11), "NHWC"),
    Diff((3, 37, 9, 11), weights=3),
    Diff((3, 16, 5, 3), "NHWC", targets=1, weights=1),
    Diff((2, 5, 6, 7), "strided", weights=1),
    Diff((2, 70, 4, 6), "NHWC", zeros=True, weights=2),
    Diff((2, 70, 13, 11), zeros=True),
    Diff((1, 512, 3, 3), "NHWC"),
    Diff((1, 2, 1, 1)),
    Diff((0, 5, 6, 7), weights=0),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Diff, device: torch.device) -> None:
    for dtype in ALL_DTYPES:
        arguments, exact = case.arguments(dtype, str(device))
        base, truth = reference(*arguments), reference(*exact)
        found = torch.ops.pyfacelat.lpips_diff(*arguments)
        assert found[0].dtype == accumulated(dtype) and found[1].dtype == dtype
        assert found[1].stride() == base[1].stride()
        assert_close(found[0].cpu(), base[0].cpu(), truth[0], f"{case} {dtype} value")
        both = [t.cpu() for t in (found[1], base[1])]
        assert_gradient_close(*both, truth[1], f"{case} {dtype} gradient")
        leaf = arguments[0].detach().requires_grad_()
        slope = torch.randn(len(leaf), device=device).to(found[0].dtype)
        value = lpips_diff(leaf, *arguments[1:])
        (gradient,) = torch.autograd.grad(value, leaf, slope)
        torch.testing.assert_close(gradient, found[1] * slope.to(dtype)[:, None, None, None])
        u, base_u = lpips_unit(arguments[0]), unit_reference(arguments[0])
        assert u.stride() == base_u.stride()
        assert_close(u.cpu(), base_u.cpu(), unit_reference(exact[0]), f"{case} {dtype} unit")


def test_the_closed_forms_are_the_gradients() -> None:
    """Against autograd through the references, where no feature is zero."""
    for case in CASES[:6]:
        x, *rest = case.arguments(torch.float64)[1]
        if case.zeros:
            continue
        leaf = x.requires_grad_()
        value, gradient = reference(leaf, *rest)
        (expected,) = torch.autograd.grad(value.sum(), leaf)
        torch.testing.assert_close(gradient.detach(), expected, rtol=1e-10, atol=1e-13)
        slope = torch.randn_like(x)
        (expected,) = torch.autograd.grad(unit_reference(leaf), leaf, slope)
        (found,) = torch.autograd.grad(lpips_unit(leaf), leaf, slope)
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-13)


def test_opcheck_and_gradcheck() -> None:
    for layout in ("NCHW", "NHWC"):
        case = Diff((2, 5, 3, 4), layout, targets=1, weights=2)
        x, *rest = case.arguments(torch.float64)[0]
        leaf = x.requires_grad_()
        torch.library.opcheck(torch.ops.pyfacelat.lpips_diff.default, (leaf, *rest))
        torch.library.opcheck(torch.ops.pyfacelat.lpips_unit.default, (leaf,))
        assert torch.autograd.gradcheck(lambda v, rest=rest: lpips_diff(v, *rest), leaf)
        assert torch.autograd.gradcheck(lpips_unit, leaf)


@pytest.mark.parametrize("dtype", ALL_DTYPES)
@pytest.mark.parametrize("last", [False, True])
def test_equal_features_are_exactly_equal(dtype: torch.dtype, last: bool) -> None:
    x = randn(2, 67, 13, 7).to(dtype)
    x[:, :, 0] = 0
    x = channels_last(x) if last else x
    lin = torch.rand(67, dtype=accumulated(dtype))
    value, gradient = torch.ops.pyfacelat.lpips_diff(x, lpips_unit(x), lin, None)
    assert not value.any() and not gradient.any()


def test_no_gradient_and_no_nan_where_features_are_zero() -> None:
    x = torch.zeros(1, 4, 3, 3, requires_grad=True)
    target = unit_reference(torch.randn(1, 4, 3, 3))
    value = lpips_diff(x, target, torch.ones(4))
    torch.testing.assert_close(value, torch.ones(1))
    value.sum().backward()
    assert x.grad is not None and not x.grad.any()


def test_an_item_is_the_same_alone() -> None:
    for layout in ("NCHW", "NHWC"):
        case = Diff((3, 37, 9, 11), layout, weights=3)
        x, target, lin, weights = case.arguments(torch.float32)[0]
        whole = torch.ops.pyfacelat.lpips_diff(x, target, lin, weights)
        alone = torch.ops.pyfacelat.lpips_diff(x[1:2], target[1:2], lin, weights[1:2])
        assert all(torch.equal(a[1:2], b) for a, b in zip(whole, alone, strict=True))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_every_split_over_threads_gives_the_same_bits(layout: str, threads: None) -> None:
    arguments, _ = Diff((2, 33, 63, 65), layout, weights=1).arguments(torch.float32)
    results: list[tuple[Tensor, ...]] = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        results.append(torch.ops.pyfacelat.lpips_diff(*arguments))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_wrong_arguments_are_named() -> None:
    x, lin = torch.zeros(2, 3, 4, 5), torch.zeros(3)
    for arguments, message in [
        ((x[0], x, lin), "x: expected a 4-D"),
        ((x.long(), x, lin), "x: expected a float"),
        ((x, x[:, :2], lin), "target: expected shape"),
        ((x.bfloat16(), x.bfloat16(), lin), "target: expected the dtype"),
        ((x, x, lin[:2]), "lin: expected shape"),
        ((x, x, lin, torch.zeros(2, 4, 4)), "weights: expected shape"),
    ]:
        with pytest.raises(ValueError, match=message):
            lpips_diff(*arguments)


def test_the_reference_can_be_asked_for() -> None:
    x, target, lin, _ = Diff((2, 5, 3, 4)).arguments(torch.float32)[0]
    leaf = x.requires_grad_()
    expected = torch.autograd.grad(lpips_diff(leaf, target, lin).sum(), leaf)[0]
    with _extension.use_backend("reference"):
        found = torch.autograd.grad(lpips_diff(leaf, target, lin).sum(), leaf)[0]
    torch.testing.assert_close(found, expected)
