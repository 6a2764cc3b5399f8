"""Which figures are shown, in which unit, and which way is better; tables as text and as HTML."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.procface.methods import GIVEN
from bench.procface.pairs import STRATA
from bench.procface.score import CAP
from bench.procface.summary import GOALS, Figure, Row, Table


@dataclass(frozen=True)
class Column:
    """One figure of a table.

    Attributes:
        name: key in a `Row`.
        title: short heading.
        hint: what it is, in a sentence.
        factor, digits: how it is printed.
        better: "high", "low", or "" where neither is.

    """

    name: str
    title: str
    hint: str
    factor: float = 1.0
    digits: int = 1
    better: str = ""

    def text(self, figure: Figure | None, *, interval: bool = True) -> str:
        """Value and interval, or a dash."""
        if figure is None or not math.isfinite(figure.value):
            return "–"
        if self.exact(figure):
            return "exact"
        value, low, high = (self.number(v) for v in (figure.value, figure.low, figure.high))
        return f"{value} [{low}, {high}]" if interval else value

    def exact(self, figure: Figure) -> bool:
        """Whether a PSNR is that of equal pictures."""
        return self.name == "psnr" and figure.low >= CAP

    def number(self, value: float) -> str:
        """One number in this column's unit; very small ones in powers of ten."""
        shown = value * self.factor
        if shown and abs(shown) < 10.0**-self.digits / 2 and self.digits > 3:
            return f"{shown:.1e}"
        return f"{shown:.{self.digits}f}"

    @property
    def goal(self) -> str:
        """What good control would reach, or nothing."""
        if self.name not in GOALS:
            return ""
        sign = {"high": "≥ ", "low": "≤ ", "": "about "}[self.better]
        return f"{sign}{GOALS[self.name] * self.factor:g}"


_PSNR = Column("psnr", "PSNR, dB", "to the exact ideal, whole picture", 1, 1, "high")
_LOOK = Column("look", "look", "perceptual distance to the exact ideal", 1, 3, "low")
_NME = Column("nme", "NME, %", "judge's landmarks to the ideal's exact ones", 100, 1, "low")
_SECONDS = Column("seconds", "s", "wall seconds of one face", 1, 1, "low")

HEADLINE = (
    _PSNR,
    _LOOK,
    Column("look_share", "look / A's", "look to the ideal over A's own", 1, 2, "low"),
    _NME,
    Column("auc", "AUC@8", "area under the curve of NME to the ideal, to 8 %", 1, 2, "high"),
    Column("failures", "fail, %", "faces with an NME to the ideal above 8 %", 100, 0, "low"),
    Column("nme_b", "NME B, %", "judge's landmarks to B's exact ones, B's shape included", 100, 1),
    Column("gaming", "gaming", "judge's NME to B less that of the loss's network, points", 100, 1,
           "low"),
    _SECONDS,
)  # fmt: skip

CARRIED = (
    *(
        Column(f"carried_{name}", f"carried, {name}", f"share of the way to B, {name} motion", 1, 2,
               "high")
        for name, *_ in STRATA
    ),
    *(
        Column(f"carried_ideal_{name}", f"to ideal, {name}", "share of the way to the ideal", 1, 2,
               "high")
        for name, *_ in STRATA
    ),
    Column("auc_b", "AUC@8 B", "area under the curve of NME to B", 1, 2),
    Column("failures_b", "fail B, %", "faces with an NME to B above 8 %", 100, 0),
)  # fmt: skip

KEPT = (
    Column("kept", "kept", "perceptual distance to A outside eyes and mouth", 1, 3),
    Column("traits", "traits", "identity and appearance, by the encoder: 0 is A, 1 as far as B", 1,
           2, "low"),
    Column("reached", "reached, %", "faces that came within the goals at some step", 100, 0,
           "high"),
    Column("reach_seconds", "s to reach", "median of those", 1, 1, "low"),
    Column("cpu_seconds", "cpu s", "process seconds of one face", 1, 1, "low"),
)  # fmt: skip

INVERSION = (_PSNR, _LOOK, _NME, _SECONDS)
FEATURE = (
    Column("cross_talk", "cross-talk", "unasked motion of the rest over motion of the feature", 1,
           2, "low"),
    Column("carried", "moved", "share of the asked motion that was made", 1, 2),
    _PSNR, _LOOK, _NME,
)  # fmt: skip
DOSE = (
    Column("slope", "slope", "of achieved over asked dose", 1, 2),
    Column("r2", "R²", "of the line through the doses", 1, 3),
)
MOTION = (
    Column("jitter", "jitter", "acceleration over the truth's", 1, 2, "low"),
    Column("lag", "lag", "frames that the answer comes late", 1, 2),
    _PSNR, _LOOK, _NME,
    Column("seconds", "s / frame", "wall seconds of a frame", 1, 2, "low"),
)  # fmt: skip
INVARIANCE = (
    Column("w_batch", "in a batch", "largest difference of a face's w, over its spread; median", 1,
           6, "low"),
    Column("w_batch_largest", "worst", "of all faces", 1, 6, "low"),
    Column("w_shuffled_largest", "shuffled, worst", "the same in a shuffled batch", 1, 6, "low"),
    Column("levels_batch_largest", "levels, worst", "largest difference of a pixel, of 255", 1, 0,
           "low"),
)  # fmt: skip


def as_text(table: Table, columns: Sequence[Column]) -> str:
    """A table of values for a terminal, with the number of pairs."""
    used = _used(table, columns)
    head = ["", "pairs", *(column.title for column in used)]
    body = [
        [method, str(count(row)), *(c.text(row.get(c.name), interval=False) for c in used)]
        for method, row in table.items()
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in [head, *body]
    )


def as_html(table: Table, columns: Sequence[Column]) -> str:
    """A table with intervals, goals and the best methods in bold."""
    used = _used(table, columns)
    if not table:
        return "<p>Not run.</p>"
    head = "".join(
        f'<th title="{html.escape(column.hint)}">{html.escape(column.title)}</th>'
        for column in used
    )
    rows = []
    for method, row in table.items():
        cells = []
        for column in used:
            figure = row.get(column.name)
            best = method not in GIVEN and method == _best(table, column)
            cells.append(f"<td{' class=best' if best else ''}>{_cell(column, figure)}</td>")
        kind = " class=given" if method in GIVEN else ""
        rows.append(
            f"<tr{kind}><th>{html.escape(method)}</th><td>{count(row)}</td>{''.join(cells)}</tr>"
        )
    goals = ""
    if any(column.goal for column in used):
        cells_ = "".join(f"<td>{html.escape(column.goal)}</td>" for column in used)
        goals = f"<tr class=goal><th>to aim for</th><td></td>{cells_}</tr>"
    hints = "; ".join(f"<b>{html.escape(c.title)}</b> {html.escape(c.hint)}" for c in used)
    return (
        f"<div class=wide><table><thead><tr><th></th><th>pairs</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}{goals}</tbody></table></div><p class=hints>{hints}.</p>"
    )


def count(row: Mapping[str, Figure]) -> int:
    """Pairs behind a row: the most that any of its figures has."""
    return max((figure.count for figure in row.values()), default=0)


def _used(table: Table, columns: Sequence[Column]) -> list[Column]:
    """The columns that some row has a number for."""
    return [
        c
        for c in columns
        if any(c.name in row and math.isfinite(row[c.name].value) for row in table.values())
    ]


def _cell(column: Column, figure: Figure | None) -> str:
    if figure is None or not math.isfinite(figure.value):
        return "–"
    if column.exact(figure):
        return "exact"
    low, high = column.number(figure.low), column.number(figure.high)
    return f"{column.number(figure.value)}<small>{low} … {high}</small>"


def _best(table: Table, column: Column) -> str:
    """The method that does best in a column, or nothing where none is better."""
    if not column.better:
        return ""
    there: dict[str, Row] = {m: row for m, row in table.items() if m not in GIVEN}
    values = {
        m: row[column.name].value
        for m, row in there.items()
        if column.name in row and math.isfinite(row[column.name].value)
    }
    if len(values) < 2:
        return ""
    choose = max if column.better == "high" else min
    return choose(values, key=lambda method: values[method])
