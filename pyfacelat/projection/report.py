"""A chart of the losses, and one self-contained HTML page about a run."""

from __future__ import annotations

import html
import json
import math
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

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


def loss_chart(curves: dict[str, np.ndarray[Any, Any]]) -> Image.Image:
    """Draw curves over steps on a logarithmic scale.

    Args:
        curves: [steps] by name; NaN where a term is off, values <= 0 are left out.

    """
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(13)
    positive = [v[np.isfinite(v) & (v > 0)] for v in curves.values()]
    values = np.concatenate([*positive, np.empty(0)])
    if len(values) == 0:
        pen.text((_SIZE[0] // 2, _SIZE[1] // 2), "no positive losses", "black", font, anchor="mm")
        return image
    low = math.floor(math.log10(values.min()))
    high = max(math.ceil(math.log10(values.max())), low + 1)
    left, top, right, bottom = _MARGIN
    width, height = _SIZE[0] - left - right, _SIZE[1] - top - bottom
    steps = max(len(v) for v in curves.values())

    def place(step: float, value: float) -> tuple[float, float]:
        share = (math.log10(value) - low) / (high - low)
        return left + width * step / max(steps - 1, 1), top + height * (1 - share)

    for power in range(low, high + 1, max(1, (high - low) // 8)):
        _, y = place(0, 10.0**power)
        pen.line([(left, y), (left + width, y)], fill="#dddddd")
        pen.text((left - 8, y), f"1e{power}", "#555555", font, anchor="rm")
    for i in range(5):
        step = round((steps - 1) * i / 4)
        x, _ = place(step, 10.0**low)
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


def report_html(summary: dict[str, Any], strip: str, chart: str) -> str:
    """One page: pictures, losses, errors, timings, implementations, settings.

    Args:
        summary: `ProjectionResult.summary()`.
        strip: look, target, result and overlay, as a data URL.
        chart: the loss curves, as a data URL.

    """

    def table(title: str, rows: dict[str, Any]) -> str:
        body = "".join(
            f"<tr><th>{html.escape(str(k))}</th><td>{html.escape(_text(v))}</td></tr>"
            for k, v in rows.items()
        )
        return f"<h2>{html.escape(title)}</h2><table>{body}</table>"

    errors = {"all 68": summary["landmark_error"], **summary["landmark_error_by_group"]}
    shares = {k: ", ".join(f"{100 * value:.2f} %" for value in v) for k, v in errors.items()}
    tables = "".join(
        (
            table("Landmark error (of the outer eye corners' distance)", shares),
            table("Final losses", summary["final_losses"]),
            table("Seconds", summary["timings"]),
            table("Implementations", summary["backends"]),
            table("Versions", {k: summary[k] for k in ("version", "torch", "python")}),
        )
    )
    settings = html.escape(json.dumps(summary["config"], indent=1))
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>pyfacelat projection</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto }}
img {{ max-width: 100% }} th {{ text-align: left; padding-right: 2rem; font-weight: 500 }}
table {{ border-collapse: collapse }} td, th {{ border-bottom: 1px solid #ddd }}
pre {{ overflow: auto }}
</style>
<h1>Projection</h1>
<p>Look, landmark target, result, and the result with the landmarks of the target (green)
and its own (yellow).</p>
<img src="{strip}" alt="look, landmark target, result, overlay">
<h2>Losses</h2><img src="{chart}" alt="losses over steps">
{tables}
<h2>Settings</h2><pre>{settings}</pre>
</html>
"""


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(item) for item in value)
    return f"{value:.5g}" if isinstance(value, float) else str(value)
