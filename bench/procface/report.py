"""What a run leaves behind: results.json, contact_sheet.png, report.html, and tables as text."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench.procface import plots, summary, tables
from bench.procface.methods import GIVEN
from bench.procface.pairs import Pair
from bench.procface.plots import Spot
from bench.procface.sheet import contact_sheet
from bench.procface.store import Record
from bench.procface.summary import Figure, Table, Tables
from bench.procface.tasks import DOSES, FEATURES
from pyfacelat.faces.groups import GROUPS
from pyfacelat.files import write_atomically
from pyfacelat.images import data_url, save_png

_ABOUT = """Face A gives the look, face B the landmarks. Both are drawn by a program, so the right
answer, the <b>ideal</b>, is known to the pixel: A's identity, hair, skin and light with B's pose
and expression. A landmark network that no loss has seen, the <b>judge</b>, reads all landmarks.
Figures are medians over pairs with 90 % bootstrap intervals. <b>A itself</b> is what doing nothing
scores, <b>B itself</b> what becoming B scores, and <b>ideal</b> what a perfect answer would: the
floor of the judge."""


def write(
    folder: Path,
    pictures: Sequence[Path],
    records: Sequence[Record],
    pairs: Sequence[Pair],
    about: Mapping[str, Any],
    families: Mapping[str, str],
    goals: dict[str, float],
) -> str:
    """Write the files of a run that is complete, or as far as it came.

    Args:
        folder: where to.
        pictures: folders of the runs, where their pictures are.
        records: all of them.
        pairs: rows of the contact sheet.
        about: machine, versions, files, settings; JSON values.
        families: family by method, in the order of the rows.
        goals: of the time to reach; see `summary.transfer`.

    Returns:
        the tables as text.

    """
    found = summary.tabulate(records, list(families), goals)
    result = {**about, "summary": found.json(), "records": records}
    write_atomically(folder / "results.json", _dense(result).encode())
    page = contact_sheet(pictures, list(found.transfer), pairs, found.transfer)
    if page is not None:
        save_png(folder / "contact_sheet.png", page)
    write_atomically(folder / "report.html", _html(found, about, families, goals, page).encode())
    return _text(found)


def _text(found: Tables) -> str:
    shown = [
        ("T1 inversion of A", found.inversion, tables.INVERSION),
        ("T2 look of A, landmarks of B", found.transfer, tables.HEADLINE),
        ("T2 motion carried", found.transfer, tables.CARRIED),
        ("T2 what is kept, and time", found.transfer, tables.KEPT),
    ]
    for feature, table in found.features.items():
        shown.append((f"T3 {feature} alone", table, tables.FEATURE))
    shown.append(("T4 dose", found.doses, tables.DOSE))
    for variant, table in found.motion.items():
        shown.append((f"T5 clips, {variant} points", table, tables.MOTION))
    shown.append(("T6 batch against alone", found.invariance, tables.INVARIANCE))
    return "\n\n".join(
        f"{title}\n{tables.as_text(table, columns)}" for title, table, columns in shown if table
    )


def _html(
    found: Tables,
    about: Mapping[str, Any],
    families: Mapping[str, str],
    goals: dict[str, float],
    page: Image.Image | None,
) -> str:
    sections = []
    headline = found.transfer
    if headline:
        sections.append(_section("T2: look of A, landmarks of B", _verdict(headline)))
        if page is not None:
            sections.append(f'<img class="sheet" src="{data_url(page)}" alt="contact sheet">')
        sections.append(tables.as_html(headline, tables.HEADLINE))
        sections.append("<h3>Landmarks against look</h3>" + _pareto(headline, families))
        sections.append("<h3>Landmark groups</h3>" + _groups(headline))
        reach = (
            f"Goals of the time to reach: NME to the ideal at most {100 * goals['nme']:g} %, look "
            f"distance to it at most {goals['look_share']:g} of A's own."
        )
        sections.append(
            f"<h3>Motion carried</h3>{tables.as_html(headline, tables.CARRIED)}"
            f"<h3>What is kept, and time</h3>{tables.as_html(headline, tables.KEPT)}<p>{reach}</p>"
        )
        whole = found.transfer_all
        if any(tables.count(whole[m]) != tables.count(headline[m]) for m in headline):
            sections.append(
                "<h3>Every pair a method has</h3><p>Above are the pairs that all methods have; "
                f"rows below are about different pairs.</p>{tables.as_html(whole, tables.HEADLINE)}"
            )
    if found.inversion:
        table = tables.as_html(found.inversion, tables.INVERSION)
        sections.append(_section("T1: inversion of A", table))
    if any(found.features.values()):
        inner = "".join(
            f"<h3>{name} ({', '.join(FEATURES[name])})</h3>{tables.as_html(t, tables.FEATURE)}"
            for name, t in found.features.items()
        )
        sections.append(_section("T3: one feature alone", inner))
    if found.doses:
        table = tables.as_html(found.doses, tables.DOSE)
        sections.append(_section("T4: dose", table + _doses(found.doses)))
    if any(found.motion.values()):
        inner = "".join(
            f"<h3>{name} points</h3>{tables.as_html(t, tables.MOTION)}"
            for name, t in found.motion.items()
        )
        sections.append(_section("T5: clips", inner))
    if found.invariance:
        table = tables.as_html(found.invariance, tables.INVARIANCE)
        sections.append(_section("T6: in a batch against alone", table))
    sections.append(_section("How it was run", _about(about)))
    return _PAGE.format(about=_ABOUT, sections="\n".join(sections), date=html.escape(about["date"]))


def _verdict(headline: Table) -> str:
    """Two sentences: who comes closest, and where doing nothing stands."""
    ours = {m: row for m, row in headline.items() if m not in GIVEN}
    if not ours:
        return ""
    best = max(ours, key=lambda m: ours[m]["psnr"].value)
    row = ours[best]
    text = (
        f"Closest to the ideal in PSNR comes <b>{html.escape(best)}</b>: "
        f"{row['psnr'].value:.1f} dB, look distance {row['look'].value:.3f}, NME "
        f"{100 * row['nme'].value:.1f} %."
    )
    if "A itself" in headline:
        a = headline["A itself"]
        text += (
            f" A itself, that is doing nothing, stands at {a['psnr'].value:.1f} dB, "
            f"{a['look'].value:.3f} and {100 * a['nme'].value:.1f} %."
        )
    return f"<p>{text}</p>"


def _pareto(headline: Table, families: Mapping[str, str]) -> str:
    labels = list(headline)
    spots = [
        Spot(
            method,
            _triple(row["look"]),
            _triple(row["nme"], 100),
            plots.colour_of(method, labels),
            families.get(method, ""),
            hollow=method in GIVEN,
        )
        for method, row in headline.items()
    ]
    return plots.scatter(spots, "look distance to the ideal", "NME to the ideal, %") + (
        "<p>The ideal is at the lower left. NME to B alone would rank by how much of B leaks in."
        "</p>"
    )


def _groups(headline: Table) -> str:
    names = [group.replace("_", " ") for group in GROUPS]
    series = {
        method: [100 * row[f"nme_{group}"].value for group in GROUPS]
        for method, row in headline.items()
        if method != "B itself"
    }
    return plots.bars(series, names, "NME to the ideal, %")


def _doses(t4: Table) -> str:
    series = {
        method: [
            (dose, *_triple(row[f"dose_{dose:.2f}"])) for dose in DOSES if f"dose_{dose:.2f}" in row
        ]
        for method, row in t4.items()
    }
    return plots.curves(series, "asked dose", "achieved dose")


def _triple(figure: Figure, factor: float = 1.0) -> tuple[float, float, float]:
    return factor * figure.value, factor * figure.low, factor * figure.high


def _about(about: Mapping[str, Any]) -> str:
    rows = []
    for name, content in about.items():
        if isinstance(content, Mapping):
            inner = "<br>".join(
                f"{html.escape(str(k))}: {html.escape(_words(v))}" for k, v in content.items()
            )
        else:
            inner = html.escape(_words(content))
        rows.append(f"<tr><th>{html.escape(name)}</th><td class=left>{inner}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _words(content: Any) -> str:
    if isinstance(content, list | tuple):
        return ", ".join(_words(item) for item in content)
    if isinstance(content, Mapping):
        return json.dumps(content)
    return str(content)


def _section(title: str, inner: str) -> str:
    return f"<h2>{html.escape(title)}</h2>{inner}"


def _dense(result: dict[str, Any]) -> str:
    """JSON with one record a line: readable, and small in a diff."""
    head = json.dumps({k: v for k, v in result.items() if k != "records"}, indent=1)
    records = ",\n".join("  " + json.dumps(record) for record in result["records"])
    return f'{head[:-2]},\n "records": [\n{records}\n ]\n}}\n'


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Landmark control on procedural faces</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem;
  color: #1a1a1a }}
h2 {{ margin-top: 2.5rem; border-bottom: 1px solid #ccc }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .25rem .7rem; border-bottom: 1px solid #e2e2e2; text-align: right;
  white-space: nowrap; vertical-align: top }}
tbody th, td.left {{ text-align: left; font-weight: 500 }} td.left {{ white-space: normal }}
thead th {{ font-weight: 600 }}
small {{ display: block; color: #777; font-size: .75em; line-height: 1.1 }}
.best {{ font-weight: 700 }} .best small {{ font-weight: 400 }}
.given th, .given td {{ color: #777 }}
.goal td, .goal th {{ color: #777; font-style: italic; border-bottom: 0 }}
.hints {{ font-size: .85em; color: #555; max-width: 60rem }}
.wide {{ overflow-x: auto }} .sheet {{ max-width: 100% }}
.legend span {{ margin-right: 1.2rem; white-space: nowrap }}
.legend i {{ display: inline-block; width: .8em; height: .8em; margin-right: .4em }}
svg {{ max-width: 100%; height: auto }}
</style>
<h1>Landmark control on procedural faces</h1>
<p>{date}</p>
<p>{about}</p>
{sections}
</html>
"""
