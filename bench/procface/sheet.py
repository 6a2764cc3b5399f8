"""The contact sheet: A, B, each method's picture and the ideal, with the numbers underneath."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from bench.procface.pairs import Pair
from bench.procface.run import picture_path
from bench.procface.summary import Row
from bench.procface.tables import HEADLINE

_TILE = 128
_GAP = 6
_GUTTER = 132
_HEAD = 46
_LINE = 20
_INK, _SOFT = "#1a1a1a", "#6b6b6b"
_LINES = {
    "psnr": "PSNR to the ideal, dB",
    "look": "look to the ideal",
    "nme": "NME to the ideal, %",
    "nme_b": "NME to B, %",
}


def contact_sheet(
    folders: Sequence[Path],
    methods: Sequence[str],
    pairs: Sequence[Pair],
    table: Mapping[str, Row],
) -> Image.Image | None:
    """Lay out the pictures kept by a run.

    Args:
        folders: of the run, or of the runs that were merged.
        methods: columns, A and B first and the ideal last.
        pairs: rows; those are left out that a column has no picture of.
        table: figures by method and name, printed under the columns.

    Returns:
        the sheet, or None when there is no full row.

    """
    rows = [
        pair for pair in pairs if all(_find(folders, m, pair.index) is not None for m in methods)
    ]
    if not rows or not methods:
        return None
    tile = max(_TILE, _open(folders, methods[0], rows[0].index).width)
    width = _GUTTER + len(methods) * (tile + _GAP)
    height = _HEAD + len(rows) * (tile + _GAP) + len(_LINES) * _LINE + 44
    page = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(page)
    font, small = ImageFont.load_default(14), ImageFont.load_default(12)
    for c, method in enumerate(methods):
        middle = _GUTTER + c * (tile + _GAP) + tile // 2
        for k, line in enumerate(_heading(method)):
            pen.text((middle, 14 + 17 * k), line, _INK, font, anchor="mm")
    for r, pair in enumerate(rows):
        top = _HEAD + r * (tile + _GAP)
        lines = (
            f"pair {pair.index}",
            f"{pair.stratum} motion",
            f"{pair.displacement:.2f} of the eyes",
        )
        for k, line in enumerate(lines):
            pen.text((8, top + tile // 2 - 18 + 18 * k), line, _INK if k == 0 else _SOFT, small,
                     anchor="lm")  # fmt: skip
        for c, method in enumerate(methods):
            image = _open(folders, method, pair.index)
            if image.width != tile:
                image = image.resize((tile, tile), Image.Resampling.BICUBIC)
            page.paste(image, (_GUTTER + c * (tile + _GAP), top))
    foot = _HEAD + len(rows) * (tile + _GAP) + 6
    columns = [column for column in HEADLINE if column.name in _LINES]
    for k, column in enumerate(columns):
        y = foot + k * _LINE + _LINE // 2
        pen.line([(0, y - _LINE // 2), (width, y - _LINE // 2)], "#dddddd")
        pen.text((8, y), _LINES[column.name], _SOFT, small, anchor="lm")
        for c, method in enumerate(methods):
            middle = _GUTTER + c * (tile + _GAP) + tile // 2
            text = column.text(table.get(method, {}).get(column.name), interval=False)
            pen.text((middle, y), text, _INK, font, anchor="mm")
    count = max((row["psnr"].count for row in table.values()), default=0)
    note = (
        f"Numbers are medians over {count} pairs; NME in outer eye corner distances, by the judge."
    )
    pen.text((8, foot + len(_LINES) * _LINE + 16), note, _SOFT, small, anchor="lm")
    return page


def _heading(method: str) -> list[str]:
    """A column's title in at most two lines."""
    titles = {"A itself": ["A", "the look"], "B itself": ["B", "the landmarks"],
              "ideal": ["ideal", "A, as B poses"]}  # fmt: skip
    if method in titles:
        return titles[method]
    name, _, rest = method.removeprefix("preset:").partition(":")
    return [name, rest] if rest else [name]


def _find(folders: Sequence[Path], method: str, pair: int) -> Path | None:
    paths = (picture_path(folder, method, pair) for folder in folders)
    return next((path for path in paths if path.is_file()), None)


def _open(folders: Sequence[Path], method: str, pair: int) -> Image.Image:
    path = _find(folders, method, pair)
    assert path is not None
    with Image.open(path) as image:
        picture: Image.Image = image.convert("RGB")
    return picture
