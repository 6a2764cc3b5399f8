"""Choosing rows: every spelling, and other resolutions."""

from __future__ import annotations

from typing import Any

import pytest

from pyfacelat.edits.rows import NAMED_ROWS, parse_rows, row_indices
from pyfacelat.errors import ConfigError


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (slice(8, 18), range(8, 18)),
        (range(8, 18), range(8, 18)),
        (range(0, 18, 5), [0, 5, 10, 15]),
        (slice(None, None, 6), [0, 6, 12]),
        ([4], [4]),
        ([7, 6, 6], [6, 7]),
        (-1, [17]),
        (None, range(18)),
        ("fine", range(8, 18)),
        ("8-18", range(8, 18)),
        ("8:", range(8, 18)),
        ("-3", range(3)),
        (" 0, 5,1", [0, 1, 5]),
    ],
)
def test_spellings(rows: Any, expected: Any) -> None:
    assert row_indices(rows, 18) == list(expected)


@pytest.mark.parametrize("num_ws", [4, 6, 8, 10, 12, 14, 16, 18])
def test_named_groups_part_the_rows_at_every_resolution(num_ws: int) -> None:
    groups = [row_indices(name, num_ws) for name in ("coarse", "middle", "fine")]
    assert sorted(sum(groups, [])) == list(range(num_ws)) == row_indices("all", num_ws)
    assert all(groups)


@pytest.mark.parametrize(
    ("num_ws", "style", "expression"),
    [(18, (8, 18), (3, 10)), (14, (6, 14), (2, 8)), (12, (5, 12), (2, 7)), (10, (4, 10), (2, 6))],
)
def test_published_numbers_scale(
    num_ws: int, style: tuple[int, int], expression: tuple[int, int]
) -> None:
    assert row_indices(slice(8, 18), num_ws, of=18) == list(range(*style))
    assert row_indices("3-10", num_ws, of=18) == list(range(*expression))


def test_numbers_scale_one_by_one() -> None:
    assert row_indices([0, 4, 9, 17], 10, of=18) == [0, 2, 5, 9]
    assert row_indices([4], 10) == [4]


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([18], "below 18, got 18"),
        ([1.0], "got 1.0"),
        (slice(8, 19), "within 18 rows, got 19"),
        (slice(5, 5), "at least one"),
        ([], "at least one"),
        ("corse", "did you mean 'coarse'"),
        ("8-", None),
        ("-", "half-open"),
        ("1;2", "half-open"),
    ],
)
def test_refusals(rows: Any, words: str | None) -> None:
    if words is None:
        assert row_indices(rows, 18) == list(range(8, 18))
        return
    with pytest.raises(ConfigError, match=words):
        row_indices(rows, 18)


def test_parsed_names_are_kept() -> None:
    assert {parse_rows(name.upper()) for name in NAMED_ROWS} == set(NAMED_ROWS)
