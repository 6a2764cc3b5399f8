"""The page about an animation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PIL import Image
from torch import Tensor

from pyfacelat.projection import report

_WORDS = {
    "landmark_error": "landmark error, mean over frames",
    "landmark_error_95": "landmark error, 95th percentile of frames",
    "jitter": "jitter: acceleration of the landmarks over the driving track's",
    "lag": "lag, frames",
    "flicker": "flicker, levels of 255",
    "driving_flicker": "flicker of the driving frames",
}
_PERCENT = ("landmark_error", "landmark_error_95")


def error_chart(errors: Mapping[str, Tensor]) -> Image.Image:
    """Landmark errors [F] by name over the frames."""
    return report.loss_chart({name: e.numpy() for name, e in errors.items()}, log=False)


def animation_report(
    summary: Mapping[str, Any],
    strip: Image.Image,
    overlay: Image.Image,
    charts: Mapping[str, Image.Image],
) -> str:
    """One self-contained page.

    Args:
        summary: `AnimationResult.summary()`.
        strip: frames that drive, and those they drive.
        overlay: frames with both sets of landmarks.
        charts: curves by title.

    """
    measured = {
        _WORDS[name]: f"{100 * value:.2f} %" if name in _PERCENT else value
        for name, value in summary["metrics"].items()
    }
    facts = {name: summary[name] for name in ("frames", "fps", "resolution", "complete")}
    facts["frames worked out in a second"] = summary["frames_per_second"]
    facts |= {f"steps: {name}": count for name, count in summary["steps"].items()}
    versions = {name: summary[name] for name in ("version", "torch", "python")}
    parts = [
        report.section(
            "Frames",
            report.picture(strip, "What drives, above, and the look that is driven, below."),
            report.picture(overlay, "With the landmarks asked for (green) and reached (yellow)."),
        ),
        report.section("How well, and how steadily", report.table(measured)),
        report.section(
            "Landmark error by group, of the outer eye corners' distance",
            report.bars(summary["landmark_error_by_group"]),
        ),
        *(report.section(title, report.picture(chart, title)) for title, chart in charts.items()),
        report.section("Clip", report.table(facts)),
        report.section("Seconds", report.table(summary["timings"])),
        report.section("Implementations", report.table(summary["backends"])),
        report.section("Versions", report.table(versions)),
        report.section("Settings", report.settings(summary["config"])),
    ]
    return report.page("Animation", parts)
