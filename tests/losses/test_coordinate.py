"""The coordinate term: decoding, distance, reach."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyfacelat.faces.landmarks import points_to_heatmaps
from pyfacelat.losses.coordinate import CoordinateDistance, local_soft_argmax
from pyfacelat.losses.landmark import HeatmapDistance


def some_points(count: int = 2, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 0.2 + 0.6 * torch.rand(count, 68, 2, generator=rng, dtype=torch.float64)


def test_soft_argmax_against_plain_loops() -> None:
    maps = torch.rand(1, 68, 9, 11, dtype=torch.float64) - 0.2
    found = local_soft_argmax(maps, reach=2, power=3.0)
    for k in (0, 7, 67):
        peak = divmod(int(maps[0, k].argmax()), 11)
        mass = x_sum = y_sum = 0.0
        for y in range(9):
            for x in range(11):
                if abs(y - peak[0]) <= 2 and abs(x - peak[1]) <= 2:
                    weight = max(float(maps[0, k, y, x]), 0.0) ** 3
                    mass += weight
                    x_sum += weight * (x + 0.5)
                    y_sum += weight * (y + 0.5)
        assert found[0, k].tolist() == pytest.approx([x_sum / mass / 11, y_sum / mass / 9])


def test_drawn_points_are_found_and_a_floor_does_not_draw_them_away() -> None:
    points = some_points()
    maps = points_to_heatmaps(points, (64, 64), sigma=2.0)
    assert ((local_soft_argmax(maps) - points) * 64).abs().max() < 0.02
    assert ((local_soft_argmax(maps + 0.05) - points) * 64).abs().max() < 0.15


def test_empty_maps_give_their_highest_cell_and_no_gradient() -> None:
    maps = torch.full((1, 68, 8, 8), -1.0)
    maps[0, :, 3, 5] = -0.5
    maps.requires_grad_()
    found = local_soft_argmax(maps)
    assert torch.allclose(found, torch.tensor([5.5 / 8, 3.5 / 8]))
    found.sum().backward()
    assert maps.grad is not None and not maps.grad.any()


def test_distance_by_hand() -> None:
    """Errors of 0.5 and 3 cells along x: r^2 / 2 and r - 1/2, weighted."""
    points = torch.full((1, 68, 2), 0.5, dtype=torch.float64)
    maps = points_to_heatmaps(points, (32, 32), sigma=1.5)
    target = points.clone()
    target[0, 0, 0] += 0.5 / 32
    target[0, 1, 0] += 3 / 32
    weights = torch.zeros(68, dtype=torch.float64)
    weights[0], weights[1], weights[2] = 1.0, 2.0, 5.0
    found = CoordinateDistance(weights)(maps, target)
    assert found.tolist() == pytest.approx([(0.125 + 2 * 2.5) / 8], rel=1e-3)
    wide = CoordinateDistance(weights, knee=6.0)(maps, target)
    assert wide.tolist() == pytest.approx([(0.5 * (0.5 / 6) ** 2 + 2 * 0.5 * 0.25) / 8], rel=1e-2)
    sure = torch.zeros(1, 68)
    sure[0, 0] = 0.5
    alone = CoordinateDistance(weights)(maps, target, sure)
    assert alone.tolist() == pytest.approx([0.125], rel=1e-2)


def test_gradient() -> None:
    maps = points_to_heatmaps(some_points(1), (9, 9), sigma=1.2)[:, :, :, :] + 0.1
    target = some_points(1, seed=1)
    distance = CoordinateDistance(torch.rand(68, dtype=torch.float64), reach=3)
    # Six directions stand for the map's 5508 cells.
    directions = torch.randn(6, *maps.shape, dtype=torch.float64)

    def along(t: Tensor) -> Tensor:
        return distance(maps + (t[:, None, None, None, None] * directions).sum(0), target)

    at = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(along, at, eps=1e-7, atol=1e-6)


def test_batch_independence() -> None:
    maps, target = points_to_heatmaps(some_points(3), (16, 16)), some_points(3, seed=2)
    distance = CoordinateDistance(torch.rand(68, dtype=torch.float64))
    alone = torch.cat([distance(maps[i : i + 1], target[i : i + 1]) for i in range(3)])
    assert torch.equal(distance(maps, target), alone)


def test_it_pulls_from_where_heat_maps_do_not_touch() -> None:
    """The pull on a bump 16 cells away, against the one 2 cells away."""
    pulls = {}
    weights = torch.ones(68, dtype=torch.float64)
    for cells in (2.0, 16.0):
        target = torch.full((1, 68, 2), 0.5, dtype=torch.float64)
        wanted = points_to_heatmaps(target, (64, 64), sigma=2.0)
        for name in ("coordinate", "landmark"):
            points = (target + torch.tensor([cells / 64, 0.0])).requires_grad_()
            maps = points_to_heatmaps(points, (64, 64), sigma=2.0)
            if name == "coordinate":
                value = CoordinateDistance(weights)(maps, target)
            else:
                value = HeatmapDistance(weights, "per_landmark")(maps, wanted)
            (gradient,) = torch.autograd.grad(value.sum(), points)
            pulls[name, cells] = float(gradient[..., 0].sum())
    assert pulls["coordinate", 16.0] > 0.9 * pulls["coordinate", 2.0]
    assert pulls["landmark", 16.0] < 1e-4 * pulls["landmark", 2.0]


def test_confidence_in_the_heat_map_distance() -> None:
    """Multiplies the weights of its own image alone."""
    rng = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 2, 68, 5, 5, generator=rng, dtype=torch.float64)
    weights = torch.rand(68, generator=rng, dtype=torch.float64)
    sure = torch.rand(2, 68, generator=rng, dtype=torch.float64)
    for reduction in ("l2", "l1", "mse", "per_landmark"):
        found = HeatmapDistance(weights, reduction)(a, b, sure)
        for n in range(2):
            expected = HeatmapDistance(weights * sure[n], reduction)(a[n : n + 1], b[n : n + 1])
            torch.testing.assert_close(found[n : n + 1], expected)
    nothing = HeatmapDistance(weights, "per_landmark")(a, b, torch.zeros(2, 68))
    assert nothing.tolist() == [0, 0]


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match=r"expected shape \[68\]"):
        CoordinateDistance(torch.ones(9))
    with pytest.raises(ValueError, match="knee"):
        CoordinateDistance(torch.ones(68), knee=0)
