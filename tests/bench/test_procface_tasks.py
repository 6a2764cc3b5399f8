"""The fixed pairs, and what is asked of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from bench.procface import pairs as fixed
from bench.procface import tasks
from bench.procface.metrics import INNER, acceleration
from bench.procface.pairs import STRATA, Pair, exact_points, fixed_pairs
from pyfacelat import procface
from pyfacelat.errors import ConfigError


@pytest.fixture(scope="module")
def twelve() -> list[Pair]:
    return fixed_pairs(12, threads=1)


def test_latents_are_fixed_for_good() -> None:
    """A column depends on its name: more parameters, or another order, change no other column."""
    drawn = fixed.draw(["yaw", "smile", "skin_tone"], 4)
    assert drawn[0].tolist() == pytest.approx([0.26198, -0.28439, 0.34966], abs=1e-5)
    assert (fixed.draw(["smile", "new", "yaw"], 6)[:4, [2, 0]] == drawn[:, :2]).all()
    digest = hashlib.sha256(np.round(drawn, 6).astype("<f8").tobytes()).hexdigest()
    assert digest.startswith("202ced993b5e61f2")


def test_pairs_are_the_same_every_time(twelve: list[Pair]) -> None:
    assert fixed.fingerprint(fixed_pairs(12, threads=2)) == fixed.fingerprint(twelve)
    other = [*twelve[:-1], Pair(11, "large", 0.4, twelve[0].a, twelve[11].b)]
    assert fixed.fingerprint(other) != fixed.fingerprint(twelve)


def test_fewer_pairs_are_the_beginning_of_more(twelve: list[Pair]) -> None:
    for short, long in zip(fixed_pairs(5), twelve, strict=False):
        assert (short.a == long.a).all() and (short.b == long.b).all()


def test_pairs_are_stratified(twelve: list[Pair]) -> None:
    for pair in twelve:
        name, low, high = STRATA[pair.index % 3]
        assert pair.stratum == name
        assert low <= pair.displacement < high
        a, b = exact_points(np.stack([pair.a, pair.b]))
        eyes = np.linalg.norm(b[36:42].mean(0) - b[42:48].mean(0))
        moved = np.linalg.norm(a[17:] - b[17:], axis=1).mean() / eyes
        assert pair.displacement == pytest.approx(moved)


def test_a_wrong_number_of_pairs() -> None:
    with pytest.raises(ConfigError, match="pairs: expected at least 1, got 0"):
        fixed_pairs(0)


def test_pairs_that_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fixed, "STRATA", (*STRATA[:2], ("huge", 9.0, 99.0)))
    monkeypatch.setattr(fixed, "_MOST_CANDIDATES", 64)
    with pytest.raises(ConfigError, match="expected 1 of displacement huge .* got 0"):
        fixed_pairs(3)


def test_each_expression_parameter_moves_one_feature() -> None:
    found = tasks.parameters_of()
    assert {"jaw_open", "smile", "pucker"} <= set(found["mouth"])
    assert {"brow_raise", "brow_skew", "brow_frown"} <= set(found["brows"])
    assert {"eye_open", "eye_skew"} <= set(found["eyes"])
    everything = [name for names in found.values() for name in names]
    assert len(everything) == len(set(everything))
    assert not {"gaze_x", "gaze_y"} & set(everything)  # no landmark shows them
    assert set(everything) <= set(procface.names("expression"))


def test_the_ideal_is_a_with_bs_pose_and_expression(twelve: list[Pair]) -> None:
    pair = twelve[0]
    (case,) = tasks.cases("T2", [pair])
    for name in procface.names():
        i = procface.index(name)
        moves = name in procface.names("pose") + procface.names("expression")
        assert case.ideal[i] == (pair.b if moves else pair.a)[i]
    assert (case.points == exact_points(pair.b)[0]).all()


def test_one_feature_alone(twelve: list[Pair]) -> None:
    found = tasks.cases("T3", twelve[:3])
    assert [case.variant for case in found] == ["mouth", "brows", "eyes"] * 3
    for case in found:
        differs = {n for n in procface.names() if case.ideal[procface.index(n)] !=
                   case.pair.a[procface.index(n)]}  # fmt: skip
        assert differs == set(tasks.parameters_of()[case.variant])
        assert set(case.selected) < set(INNER)
        assert (case.points == exact_points(case.ideal)[0]).all()


def test_doses(twelve: list[Pair]) -> None:
    found = tasks.cases("T4", twelve[:1])
    assert [case.dose for case in found] == list(tasks.DOSES)
    start = exact_points(twelve[0].a)[0]
    end = exact_points(procface.compose(twelve[0].a, twelve[0].b))[0]
    assert found[0].points == pytest.approx(start)
    assert found[4].points == pytest.approx(end)
    assert found[6].points - start == pytest.approx(1.5 * (end - start))
    procface.render(np.stack([case.ideal for case in found]), 16)  # all within the range


def test_dear_tasks_take_fewer_pairs() -> None:
    taken = {task: tasks.share(task, 100) for task in ("T1", "T2", "T3", "T4", "T6")}
    assert taken == {"T1": 50, "T2": 100, "T3": 25, "T4": 12, "T6": 16}
    assert {t: tasks.share(t, 12) for t in taken} == {"T1": 6, "T2": 12, "T3": 3, "T4": 3, "T6": 4}
    assert {tasks.share(task, 2) for task in taken} <= {1, 2}
    with pytest.raises(ConfigError, match="T5"):
        tasks.cases("T5", [])


def test_clips(twelve: list[Pair]) -> None:
    clean, noisy = tasks.clips(twelve, 1, 64)
    assert (clean.variant, noisy.variant) == ("clean", "noisy")
    assert clean.points.shape == (64, 68, 2)
    fixed_names = [procface.index(n) for n in procface.names("identity")]
    assert (clean.ideal[:, fixed_names] == twelve[0].a[fixed_names]).all()
    assert np.ptp(clean.ideal[:, procface.index("jaw_open")]) > 0.1
    eyes = np.linalg.norm(clean.points[:, 36] - clean.points[:, 45], axis=-1)
    spread = ((noisy.points - clean.points) / eyes[:, None, None]).std()
    assert spread == pytest.approx(tasks.NOISE, rel=0.05)
    assert acceleration(noisy.points) > 5 * acceleration(clean.points)
    again = tasks.clips(twelve, 1, 64)[1]
    assert (again.points == noisy.points).all()
    with pytest.raises(ConfigError, match="at least 8"):
        tasks.clips(twelve, 1, 7)
