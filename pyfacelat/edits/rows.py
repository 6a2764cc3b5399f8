"""Which rows of a W+ latent an edit touches: slices, lists, names, and numbers from other sizes.

Row i feeds the i-th convolution, so that early rows are about pose and shape, late ones about
colour. Published recipes number the 18 rows of a 1024 px generator; a generator with L rows does
the same with rows round(i * L / 18).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import TypeAlias

from pyfacelat.errors import ConfigError

__all__ = ["NAMED_ROWS", "PUBLISHED_ROWS", "Rows", "parse_rows", "row_indices"]

Rows: TypeAlias = "str | slice | range | Sequence[int] | int | None"

PUBLISHED_ROWS = 18
"""Rows of the 1024 px generator, in which published recipes count."""

NAMED_ROWS: dict[str, tuple[int, int]] = {
    "all": (0, 18),
    "coarse": (0, 4),
    "middle": (4, 8),
    "fine": (8, 18),
}
"""Half-open row ranges of 18: the three groups of the StyleGAN paper (arXiv:1812.04948, 3.1)."""


def row_indices(rows: Rows, num_ws: int, *, of: int | None = None) -> list[int]:
    """Resolve a choice of rows for a generator.

    Args:
        rows: a slice or range (half-open), a list of numbers, one number, text (see `parse_rows`),
            a name of `NAMED_ROWS`, or None for all rows. Negative numbers count from the end.
        num_ws: rows that the generator has.
        of: rows of the generator that the numbers were written for, e.g. `PUBLISHED_ROWS`; ranges
            and numbers are scaled by num_ws / of. None: numbers are this generator's own. Names
            always are of 18.

    Returns:
        ascending row numbers, each once, at least one.

    Raises:
        ConfigError: an unknown name, no rows at all, or a row that is not there.
    """
    if isinstance(rows, str):
        rows = parse_rows(rows)
    if isinstance(rows, str):
        start, stop = NAMED_ROWS[rows]
        chosen: Sequence[int] = range(*_scaled(start, stop, PUBLISHED_ROWS, num_ws))
    elif rows is None:
        chosen = range(num_ws)
    else:
        total = num_ws if of is None else of
        chosen = _listed(rows, total, num_ws)
    if not chosen:
        raise ConfigError(f"rows: expected at least one of the {num_ws} rows, got {rows!r}")
    return sorted(set(chosen))


def parse_rows(text: str) -> str | slice | list[int]:
    """Rows as typed: `fine`, `8-18` or `8:18` (half-open, as published), or `0,1,5`.

    Raises:
        ConfigError: anything else.
    """
    word = text.strip().lower()
    if word in NAMED_ROWS:
        return word
    bounds = re.fullmatch(r"(\d{0,4})[:-](\d{0,4})", word)
    if bounds and (bounds[1] or bounds[2]):
        return slice(int(bounds[1] or 0), int(bounds[2]) if bounds[2] else None)
    if re.fullmatch(r"\d{1,4}( *, *\d{1,4})*", word):
        return [int(number) for number in word.split(",")]
    close = difflib.get_close_matches(word, NAMED_ROWS, n=1)
    raise ConfigError(
        f"rows: expected {', '.join(NAMED_ROWS)}, a half-open range such as 8-18, or numbers such "
        f"as 0,1,5, got {text!r}" + (f"; did you mean {close[0]!r}?" if close else "")
    )


def _listed(rows: slice | range | Sequence[int] | int, total: int, num_ws: int) -> list[int]:
    if isinstance(rows, range) and rows.step == 1:
        rows = slice(rows.start, rows.stop)
    if isinstance(rows, slice) and rows.step in (None, 1):
        for bound in (rows.start, rows.stop):
            if bound is not None and abs(bound) > total:
                raise ConfigError(f"rows: expected bounds within {total} rows, got {bound}")
        start, stop, _ = rows.indices(total)
        return list(range(*_scaled(start, stop, total, num_ws)))
    if isinstance(rows, slice):
        rows = range(*rows.indices(total))
    chosen = []
    for row in [rows] if isinstance(rows, int) else rows:
        if not isinstance(row, int) or not -total <= row < total:
            raise ConfigError(f"rows: expected integers below {total}, got {row!r}")
        # The last row of one is the last row of the other, whatever rounding does.
        chosen.append(min(_round(row % total * num_ws / total), num_ws - 1))
    return chosen


def _scaled(start: int, stop: int, total: int, num_ws: int) -> tuple[int, int]:
    """Bounds in another count of rows; a range that was not empty keeps at least one row."""
    if stop <= start:
        return 0, 0
    first = min(_round(start * num_ws / total), num_ws - 1)
    return first, max(_round(stop * num_ws / total), first + 1)


def _round(value: float) -> int:
    return int(value + 0.5)  # halves up: round() would go to even, 2.5 down and 3.5 up
