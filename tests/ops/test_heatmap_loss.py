"""heatmap_loss against float64."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_args

import pytest
import torch

from pyfacelat import _extension
from pyfacelat.faces.landmarks import points_to_heatmaps
from pyfacelat.ops import heatmap_loss
from pyfacelat.ops._library import accumulated
from pyfacelat.ops.heatmap_loss import Reduction, draw, reference
from tests.tolerances import ALL_DTYPES, assert_close, assert_gradient_close, channels_last, strided

REDUCTIONS: tuple[Reduction, ...] = get_args(Reduction)


@dataclass(frozen=True)
class Maps:
    """One comparison: sizes, layout, what the target is, and for how many images."""

    size: tuple[int, int, int, int]
    layout: str = "NCHW"
    points: bool = False
    targets: int | None = None
    weights: int | None = None
    sigma: float = 1.0

    def __str__(self) -> str:
        parts = ["x".join(map(str, self.size)), self.layout, "points" if self.points else "maps"]
        parts += ["one target"] if self.targets == 1 else []
        return " ".join([*parts, *(["one weight"] if self.weights == 1 else [])])

    def arguments(
        self, dtype: torch.dtype, reduction: Reduction, device: str = "cpu"
    ) -> tuple[list[Any], list[Any]]:
        """The op's arguments, and the same numbers in float64 on the CPU."""
        n, k, h, w = self.size
        rng = torch.Generator().manual_seed(n + k)
        wide = accumulated(dtype)
        draw_ = lambda *s: torch.rand(s, generator=rng, dtype=torch.float64)  # noqa: E731
        count = n if self.targets is None else self.targets
        target = draw_(count, k, 2) if self.points else draw_(count, k, h, w)
        weights = draw_(n if self.weights is None else self.weights, k)
        weights[:, k // 2] = 0
        values = [draw_(n, k, h, w).to(dtype), target.to(wide), weights.to(wide)]
        exact = [v.double() for v in values]
        form = {"NHWC": channels_last, "strided": strided}.get(self.layout, lambda t: t)
        moved = [v.to(device) for v in values]
        moved[0] = form(moved[0])
        moved[1] = moved[1] if self.points else form(moved[1])
        rest = [reduction, self.sigma]
        return [*moved, *rest], [*exact, *rest]


CASES = [
    Maps((2, 68, 9, 7)),
    Maps((2, 68, 9, 7), "NHWC"),
    Maps((3, 5, 17, 33), points=True, weights=1),
    Maps((3, 5, 17, 33), "NHWC", points=True, sigma=2.5),
    Maps((2, 3, 5, 6), "strided", targets=1, weights=1),
    Maps((2, 7, 5, 6), "NHWC", points=True, targets=1),
    Maps((1, 1, 1, 1)),
    Maps((0, 5, 4, 4)),
]


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_against_float64(case: Maps, reduction: Reduction, device: torch.device) -> None:
    for dtype in ALL_DTYPES:
        arguments, exact = case.arguments(dtype, reduction, str(device))
        found = torch.ops.pyfacelat.heatmap_loss(*arguments)
        base, truth = reference(*arguments), reference(*exact)
        for name, a, b, c in zip(("value", "scale", "direction"), found, base, truth, strict=True):
            assert a.stride() == b.stride()
            if reduction != "l1" or name != "direction":  # a sign has no small errors
                assert_close(a.cpu(), b.cpu(), c, f"{case} {dtype} {name}")
        maps, target, weights, *_ = arguments
        leaf = maps.detach().requires_grad_()
        value = heatmap_loss(leaf, target, weights, reduction=reduction, sigma=case.sigma)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        expected = truth[2] * truth[1][..., None, None]
        plain = (base[2] * base[1][..., None, None]).to(dtype)
        assert_gradient_close(gradient.cpu(), plain.cpu(), expected, f"{case} {dtype} gradient")


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_the_closed_form_is_the_gradient_of_the_value(reduction: Reduction) -> None:
    for case in CASES:
        maps, *rest = case.arguments(torch.float64, reduction)[1]
        leaf = maps.requires_grad_()
        value, scale, direction = reference(leaf, *rest)
        (expected,) = torch.autograd.grad(value.sum(), leaf)
        found = direction.detach() * scale.detach()[..., None, None]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_opcheck_and_gradcheck(reduction: Reduction) -> None:
    for case in (Maps((2, 3, 4, 5), "NHWC"), Maps((2, 3, 4, 5), points=True)):
        maps, target, weights, *_ = case.arguments(torch.float64, reduction)[0]
        maps.requires_grad_(), target.requires_grad_(not case.points)
        arguments = (maps, target, weights, reduction, 1.0)
        torch.library.opcheck(torch.ops.pyfacelat.heatmap_loss.default, arguments)
        inputs = (maps,) if case.points else (maps, target)
        rest = (target,) if case.points else ()
        assert torch.autograd.gradcheck(
            lambda *v, rest=rest, w=weights: heatmap_loss(*v, *rest, w, reduction=reduction), inputs
        )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_zero_distance_has_no_gradient(reduction: Reduction, layout: str) -> None:
    maps, _, weights, *_ = Maps((2, 68, 9, 7), layout).arguments(torch.float32, reduction)[0]
    leaf = maps.requires_grad_()
    value = heatmap_loss(leaf, maps.detach().clone(), weights, reduction=reduction)
    (gradient,) = torch.autograd.grad(value.sum(), leaf)
    assert not gradient.any() and value.max() < 2e-4


def test_points_stand_for_their_maps() -> None:
    points = torch.rand(2, 68, 2, generator=torch.Generator().manual_seed(0))
    for size, sigma in (((9, 13), 1.0), ((16, 16), 2.0)):
        drawn = points_to_heatmaps(points, size, sigma=sigma)
        assert torch.equal(draw(points, *size, sigma), drawn)
        maps, weights = torch.rand(2, 68, *size), torch.rand(68)
        for layout in (lambda t: t, channels_last):
            expected = heatmap_loss(layout(maps), layout(drawn), weights)
            found = heatmap_loss(layout(maps), points, weights, sigma=sigma)
            torch.testing.assert_close(found, expected, rtol=1e-6, atol=0)


def test_one_target_gathers_the_gradients_of_all_images() -> None:
    maps, target, weights, *_ = Maps((3, 5, 4, 4), targets=1).arguments(torch.float64, "l2")[0]
    leaf = target.requires_grad_()
    (gradient,) = torch.autograd.grad(heatmap_loss(maps, leaf, weights).sum(), leaf)
    each = leaf.detach().expand(3, -1, -1, -1).clone().requires_grad_()
    (expected,) = torch.autograd.grad(heatmap_loss(maps, each, weights).sum(), each)
    torch.testing.assert_close(gradient, expected.sum(0, keepdim=True))


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("points", [False, True])
def test_threads_and_neighbours_do_not_change_a_bit(
    layout: str, points: bool, threads: None
) -> None:
    case = Maps((3, 68, 33, 31), layout, points)
    for reduction in REDUCTIONS:
        arguments, _ = case.arguments(torch.float32, reduction)
        results = []
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            results.append(torch.ops.pyfacelat.heatmap_loss(*arguments))
        one = [a[1:2] for a in arguments[:3]]
        alone = torch.ops.pyfacelat.heatmap_loss(*one, *arguments[3:])
        for other in results[1:]:
            assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))
        assert all(torch.equal(a[1:2], b) for a, b in zip(results[0], alone, strict=True))


def test_wrong_arguments_are_named() -> None:
    maps, weights = torch.zeros(2, 3, 4, 5), torch.ones(3)
    points = torch.zeros(2, 3, 2)
    for arguments, options, message in [
        ((maps[0], maps, weights), {}, "maps: expected a 4-D"),
        ((maps, maps[:, :2], weights), {}, "target: expected shape"),
        ((maps, points[:, :, :1], weights), {}, "target: expected shape"),
        ((maps, weights, weights), {}, "target: expected heat maps"),
        ((maps, maps, weights[:2]), {}, "weights: expected shape"),
        ((maps, maps, weights), {"reduction": "l3"}, "reduction: expected one of"),
        ((maps, points, weights), {"sigma": 0.0}, "sigma: expected a number > 0"),
        ((maps, maps, weights.requires_grad_()), {}, "require no gradient"),
    ]:
        with pytest.raises(ValueError, match=message):
            heatmap_loss(*arguments, **options)


def test_the_reference_can_be_asked_for() -> None:
    maps, target, weights, *_ = CASES[0].arguments(torch.float32, "l2")[0]
    leaf = maps.requires_grad_()
    for reduction in REDUCTIONS:
        value = heatmap_loss(leaf, target, weights, reduction=reduction).sum()
        (expected,) = torch.autograd.grad(value, leaf)
        with _extension.use_backend("reference"):
            plain = heatmap_loss(leaf, target, weights, reduction=reduction).sum()
        torch.testing.assert_close(plain, value)
        torch.testing.assert_close(torch.autograd.grad(plain, leaf)[0], expected)
