"""Landmark groups and weights."""

from __future__ import annotations

import pytest
import torch

from pyfacelat.errors import LandmarkError
from pyfacelat.faces.groups import GROUPS, REFERENCE_WEIGHTS, expand, parse


def test_l4_expansion_equals_the_published_table() -> None:
    """L4."""
    expected = [0.05] * 17 + [1.0] * 10 + [0.1] * 3 + [1.0] * 18 + [5.0] * 20
    for given in (REFERENCE_WEIGHTS, list(REFERENCE_WEIGHTS.values()), torch.tensor(expected)):
        assert torch.equal(expand(given), torch.tensor(expected))


def test_l4_point_30_belongs_to_the_lower_nose() -> None:
    """L4: it is in two groups; the later one wins, in whatever order they are named."""
    assert expand({"lower_nose": 7.0, "nose_bridge": 3.0})[27:31].tolist() == [3.0, 3.0, 3.0, 7.0]


def test_groups_cover_all_landmarks() -> None:
    assert {i for group in GROUPS.values() for i in group} == set(range(68))
    assert expand(None).tolist() == [1.0] * 68
    assert expand({"jaw": 0.0})[17:].tolist() == [1.0] * 51


@pytest.mark.parametrize("count", [0, 1, 8, 10, 67, 69])
def test_l4_wrong_count(count: int) -> None:
    with pytest.raises(LandmarkError, match=f"got {count}"):
        expand([1.0] * count)


@pytest.mark.parametrize("bad", [-1.0, float("nan"), float("inf")])
def test_bad_value(bad: float) -> None:
    with pytest.raises(LandmarkError, match="finite weights >= 0"):
        expand({"jaw": bad})


def test_unknown_group_lists_the_nine_and_the_closest() -> None:
    with pytest.raises(LandmarkError) as caught:
        expand({"left_eyes": 1.0})
    assert "did you mean 'left_eye'" in str(caught.value)
    assert all(name in str(caught.value) for name in GROUPS)


def test_parse() -> None:
    assert parse("outer_lip=5, jaw=.05") == {"outer_lip": 5.0, "jaw": 0.05}
    assert parse("1,2,3") == [1.0, 2.0, 3.0]
    with pytest.raises(LandmarkError, match="pairs like"):
        parse("outer_lip=big")
