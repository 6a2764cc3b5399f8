"""Charts, and self-contained HTML pages about runs."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pyfacelat.images import data_url

_SIZE = (900, 420)
_MARGIN = (70, 24, 150, 40)  # left, top, right, bottom
_COLOURS = (
    "#d1495b",
    "#00798c",
    "#edae49",
    "#30638e",
    "#66a182",
    "#8d6a9f",
    "#c97b3d",
    "#5ec2d6",
    "#9a9a9a",
)
_TOTAL_COLOUR = "#1a1a1a"


def loss_chart(curves: Mapping[str, np.ndarray[Any, Any]], *, log: bool = True) -> Image.Image:
    """Draw curves over steps, or frames.

    Args:
        curves: [steps] by name; NaN where a term is off.
        log: a logarithmic scale, on which values <= 0 are left out; otherwise from 0, in percent.

    """
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    positive = [v[np.isfinite(v) & (v > 0)] for v in curves.values()]
    values = np.concatenate([*positive, np.empty(0)])
    if len(values) == 0:
        pen.text((_SIZE[0] // 2, _SIZE[1] // 2), "no positive losses", "black", font, anchor="mm")
        return image
    low = math.floor(math.log10(values.min())) if log else 0
    high = max(math.ceil(math.log10(values.max())), low + 1) if log else 1
    highest = float(values.max())
    left, top, right, bottom = _MARGIN
    width, height = _SIZE[0] - left - right, _SIZE[1] - top - bottom
    steps = max(len(v) for v in curves.values())

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(value) - low) / (high - low) if log else value / highest
        return left + width * step / max(steps - 1, 1), top + height * (1 - share)

    if log:
        powers = range(low, high + 1, max(1, (high - low) // 8))
        marks = [(10.0**power, f"1e{power}") for power in powers]
    else:
        marks = [(highest * i / 4, f"{100 * highest * i / 4:.2g} %") for i in range(5)]
    for value, text in marks:
        _, y = place(0, value)
        pen.line([(left, y), (left + width, y)], fill="#dddddd")
        pen.text((left - 8, y), text, "#555555", font, anchor="rm")
    for i in range(5):
        step = round((steps - 1) * i / 4)
        x, _ = place(step, marks[0][0])
        pen.text((x, top + height + 8), str(step), "#555555", font, anchor="mt")
    for index, (name, curve) in enumerate(curves.items()):
        colour = _TOTAL_COLOUR if name == "total" else _COLOURS[index % len(_COLOURS)]
        run: list[tuple[float, float]] = []
        for step, value in enumerate([*curve.tolist(), math.nan]):
            if math.isfinite(value) and value > 0:
                run.append(place(step, value))
            elif run:
                pen.line(run if len(run) > 1 else run * 2, fill=colour, width=2)
                run = []
        y = top + 10 + 20 * index
        pen.rectangle([left + width + 14, y - 2, left + width + 34, y + 2], colour)
        pen.text((left + width + 42, y), name, "black", font, anchor="lm")
    return image


def page(title: str, sections: Sequence[str]) -> str:
    """A whole page of sections, which are HTML already; nothing in it comes from elsewhere."""
    return _PAGE.format(title=html.escape(title), sections="\n".join(sections))


def picture(image: Image.Image, words: str) -> str:
    """A picture inside the page, with what it shows."""
    return f'<p>{html.escape(words)}</p><img src="{data_url(image)}" alt="{html.escape(words)}">'


def table(rows: Mapping[str, Any]) -> str:
    """Names and values, two columns."""
    body = "".join(
        f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(_text(v))}</td></tr>"
        for k, v in rows.items()
    )
    return f"<table>{body}</table>"


def bars(shares: Mapping[str, float]) -> str:
    """Values in percent by name, each with a bar; the longest is the largest."""
    top = max([*shares.values(), 1e-9])
    body = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{100 * value:.2f} %</td>"
        f'<td class="bar"><i style="width: {100 * max(0.0, value) / top:.1f}%"></i></td></tr>'
        for name, value in shares.items()
    )
    return f"<table>{body}</table>"


def section(title: str, *parts: str) -> str:
    """A heading and what is below it."""
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def settings(config: Mapping[str, Any]) -> str:
    """A configuration, folded away."""
    text = html.escape(json.dumps(config, indent=1))
    return f"<details><summary>as JSON</summary><pre>{text}</pre></details>"


def report_html(
    summary: Mapping[str, Any],
    strip: Image.Image,
    chart: Image.Image,
    history: Image.Image | None,
    index: int = 0,
) -> str:
    """The page about a projection.

    Args:
        summary: `ProjectionResult.summary()`.
        strip: look, target, result and overlay.
        chart: the loss curves.
        history: the image on its way through the steps, or None.
        index: which image of the batch the page is about.

    """
    groups = summary["landmark_error_by_group"]
    errors = {"all 68": summary["landmark_error"][index]}
    errors |= {group: values[index] for group, values in groups.items()}
    parts = [
        section(
            "Result",
            picture(
                strip,
                "Look, landmark target, result, and the result with the landmarks of the target "
                "(green) and its own (yellow).",
            ),
        ),
        section("Landmark error, of the outer eye corners' distance", bars(errors)),
        section("Losses", picture(chart, "Each term over the steps, before its weight.")),
    ]
    if history is not None:
        parts.append(section("On the way", picture(history, "From the first step to the last.")))
    final = {name: values[index] for name, values in summary["final_losses"].items()}
    versions = {name: summary[name] for name in ("version", "torch", "python")}
    parts += [
        section("Final losses", table(final)),
        section("Seconds", table(summary["timings"])),
        section("Implementations", table(summary["backends"])),
        section("Versions", table(versions)),
        section("Settings", settings(summary["config"])),
    ]
    return page("Projection", parts)


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pyfacelat: {title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto;
  padding: 0 1rem }}
img {{ max-width: 100% }} h2 {{ margin-top: 2rem }}
th {{ text-align: left; padding-right: 2rem; font-weight: 500 }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
td, th {{ border-bottom: 1px solid #ddd }} td.bar {{ width: 20rem; padding-left: 1rem }}
td.bar i {{ display: block; height: .7em; background: #00798c }}
pre {{ overflow: auto }}
</style>
<h1>{title}</h1>
{sections}
</html>
"""
