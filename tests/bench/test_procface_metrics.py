"""The benchmark's formulas, against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from bench.procface import metrics
from bench.procface.metrics import INNER


def face(eyes: float = 50.0) -> np.ndarray:
    """68 points whose outer eye corners are `eyes` apart."""
    points = np.random.RandomState(0).rand(68, 2) * 100
    points[36], points[45] = (10, 40), (10 + eyes, 40)
    return points


def test_error_is_over_the_eye_distance_of_the_truth() -> None:
    truth = face(eyes=50)
    assert metrics.nme(truth + (3, 4), truth) == pytest.approx(5 / 50)
    assert metrics.nme(truth, truth) == 0
    assert metrics.nme(np.stack([truth, truth + (0, 5)]), truth).tolist() == pytest.approx([0, 0.1])


def test_the_jaw_counts_only_in_its_group() -> None:
    truth = face(eyes=50)
    moved = truth.copy()
    moved[:17] += (0, 10)
    assert metrics.nme(moved, truth) == 0
    by_group = metrics.nme_by_group(moved, truth)
    assert by_group["jaw"] == pytest.approx(0.2)
    assert all(by_group[name] == 0 for name in by_group if name != "jaw")


def test_area_under_the_curve() -> None:
    errors = np.array([0.0, 0.04, 0.08, 0.2])
    assert metrics.area_under_curve(errors) == pytest.approx((1 + 0.5 + 0 + 0) / 4)
    assert metrics.failures(errors) == 0.25
    # The same as the integral of the share of faces below x.
    x = np.linspace(0, 0.08, 20_001)
    share = (errors[None] <= x[:, None]).mean(1)
    assert metrics.area_under_curve(errors) == pytest.approx(float(share.mean()), abs=1e-3)


def test_carried_fraction() -> None:
    assert metrics.carried(0.02, 0.08) == pytest.approx(0.75)
    assert metrics.carried(0.08, 0.08) == 0
    assert metrics.carried(0.12, 0.08) == pytest.approx(-0.5)


def test_achieved_dose() -> None:
    start = face()
    wanted = start.copy()
    wanted[48:60] += (0, 8)
    lips = range(48, 60)
    for dose in (0.0, 0.4, 1.0, 1.5):
        there = start + dose * (wanted - start)
        assert metrics.achieved_dose(start, there, wanted) == pytest.approx(dose)
    across = start.copy()
    across[48:60] += (8, 0)
    assert metrics.achieved_dose(start, across, wanted, lips) == pytest.approx(0)


def test_line_fit() -> None:
    doses = np.array([0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5])
    assert metrics.line_fit(doses, 0.8 * doses + 0.1) == pytest.approx((0.8, 1.0))
    assert metrics.line_fit(doses, np.full(7, 0.3)) == pytest.approx((0.0, 0.0))
    # y = (0, 1, 0) on x = (0, 1, 2): slope 0 explains nothing.
    assert metrics.line_fit([0, 1, 2], [0, 1, 0]) == pytest.approx((0.0, 0.0))
    # y = (0, 0, 1, 1): slope 0.4, explained 0.8 of the spread of 1.
    assert metrics.line_fit([0, 1, 2, 3], [0, 0, 1, 1]) == pytest.approx((0.4, 0.8))


def test_acceleration_and_jitter() -> None:
    time = np.arange(12.0)
    parabola = np.zeros((12, 3, 2))
    parabola[:, :, 0] = (time**2)[:, None]  # second difference 2, everywhere
    assert metrics.acceleration(parabola) == pytest.approx(2)
    assert metrics.acceleration(np.cumsum(np.ones((12, 3, 2)), 0)) == 0
    assert metrics.jitter(3 * parabola, parabola) == pytest.approx(3)
    # One point of three shakes by +1, -1, +1, ...: second differences of 4.
    shaken = np.zeros((12, 3, 2))
    shaken[:, 0, 1] = (-1.0) ** np.arange(12)
    assert metrics.acceleration(shaken) == pytest.approx(4 / 3)


@pytest.mark.parametrize("late", [-3, 0, 2, 0.5, 1.25])
def test_lag(late: float) -> None:
    time = np.arange(64.0)[:, None, None]
    phase = np.random.RandomState(1).rand(5, 2) * 6

    def track(t: np.ndarray) -> np.ndarray:
        return np.sin(0.21 * t + phase)

    found = track(time - late) + np.array([7.0, -3.0])  # a lasting offset is no lag
    assert metrics.lag(found, track(time)) == pytest.approx(late, abs=0.06)


def test_seconds_to_reach() -> None:
    curve = [
        {"seconds": 1.0, "nme": 0.09, "look": 0.1},
        {"seconds": 2.0, "nme": 0.05, "look": 0.9},
        {"seconds": 3.0, "nme": 0.05, "look": 0.4},
        {"seconds": 4.0, "nme": 0.03, "look": 0.2},
    ]
    assert metrics.seconds_to_reach(curve, {"nme": 0.06, "look": 0.5}) == 3.0
    assert metrics.seconds_to_reach(curve, {"nme": 0.01, "look": 0.5}) is None
    assert metrics.seconds_to_reach([], {"nme": 1.0}) is None


def test_bootstrap_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for i in range(300):
        _, low, high = metrics.bootstrap(list(rng.standard_normal(40)), draws=300, seed=i)
        covered += low <= 0 <= high
    assert 0.84 < covered / 300 < 0.96  # 0.90, give or take three standard errors of 0.017


def test_bootstrap_draws_pairs_and_then_seeds() -> None:
    """Ten seeds of two pairs are no twenty pairs: the interval spans the two."""
    pairs = [np.zeros(10), np.ones(10)]
    value, low, high = metrics.bootstrap(pairs, lambda v: v.mean(-1))
    assert (value, low, high) == (0.5, 0.0, 1.0)
    steady, low, high = metrics.bootstrap([np.array([0.4])] * 3)
    assert (steady, low, high) == (0.4, 0.4, 0.4)
    assert metrics.bootstrap([1.0, 2.0, 3.0], seed=1) == metrics.bootstrap([1.0, 2.0, 3.0], seed=1)
    assert all(np.isnan(metrics.bootstrap([])))


def test_inner_points_are_all_but_the_jaw() -> None:
    assert len(INNER) == 51 and INNER[0] == 17 and INNER[-1] == 67
