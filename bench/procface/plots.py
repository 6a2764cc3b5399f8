"""Plots as SVG text, written by hand so that a report needs no plotting library."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

# Okabe and Ito's palette, which colour-blind readers can tell apart; black is for the ideal.
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#E69F00",
    "#56B4E9",
    "#8C6D31",
    "#7F3C8D",
    "#999999",
)
_WIDTH, _HEIGHT = 640, 420
_LEFT, _TOP, _RIGHT, _BOTTOM = 62, 16, 16, 50
_Box = tuple[float, float, float, float]  # left, top, right, bottom
_STYLE = 'font-family="system-ui, sans-serif" font-size="12"'


@dataclass(frozen=True)
class Spot:
    """A point with intervals.

    Attributes:
        label: written beside it.
        x, y: value, lower end, upper end.
        colour: of all its marks.
        family: spots of one family are joined by a line, in their order.
        hollow: drawn as a ring.

    """

    label: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    colour: str
    family: str = ""
    hollow: bool = False


def scatter(spots: Sequence[Spot], x_label: str, y_label: str) -> str:
    """Points with crosses for their intervals, both axes from 0."""
    frame = _Frame(
        (0.0, _above(max((s.x[2] for s in spots), default=1.0))),
        (0.0, _above(max((s.y[2] for s in spots), default=1.0))),
    )
    parts = [frame.axes(x_label, y_label)]
    families: dict[str, list[Spot]] = {}
    for spot in spots:
        families.setdefault(spot.family or spot.label, []).append(spot)
    for members in families.values():
        if len(members) > 1:
            path = " ".join(f"{frame.x(s.x[0]):.1f},{frame.y(s.y[0]):.1f}" for s in members)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{members[0].colour}" '
                'stroke-dasharray="4 3"/>'
            )
    spots_at = [(frame.x(s.x[0]), frame.y(s.y[0])) for s in spots]
    taken: list[_Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots_at]
    for spot in spots:
        x, y = frame.x(spot.x[0]), frame.y(spot.y[0])
        for x1, y1, x2, y2 in (
            (frame.x(spot.x[1]), y, frame.x(spot.x[2]), y),
            (x, frame.y(spot.y[1]), x, frame.y(spot.y[2])),
        ):
            parts.append(
                f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
                f'stroke="{spot.colour}" opacity="0.45"/>'
            )
        fill = "white" if spot.hollow else spot.colour
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{fill}" stroke="{spot.colour}" '
            'stroke-width="2"/>'
        )
        parts.append(_label(spot.label, spot.colour, x, y, taken))
    return _svg(parts)


def bars(series: Mapping[str, Sequence[float]], names: Sequence[str], y_label: str) -> str:
    """Bars side by side: one group for each name, one bar in it for each series."""
    top = _above(max((v for values in series.values() for v in values), default=1.0))
    frame = _Frame((0.0, float(len(names))), (0.0, top), width=920, bottom=66)
    parts = [frame.axes("", y_label, ticks=False)]
    wide = 0.84 / max(len(series), 1)
    for s, (label, values) in enumerate(series.items()):
        for i, height in enumerate(values):
            x = frame.x(i + 0.08 + s * wide)
            y = frame.y(height)
            parts.append(
                f'<rect x="{x:.1f}" y="{y:.1f}" width="{frame.x(wide) - frame.x(0) - 1:.1f}" '
                f'height="{frame.y(0) - y:.1f}" fill="{colour_of(label, list(series))}">'
                f"<title>{html.escape(label)}, {html.escape(names[i])}: {height:.2f}</title></rect>"
            )
    for i, name in enumerate(names):
        parts.append(
            f'<text x="{frame.x(i + 0.5):.1f}" y="{frame.y(0) + 16:.1f}" '
            f'text-anchor="middle">{html.escape(name)}</text>'
        )
    return _svg(parts, width=920, height=_HEIGHT) + legend(list(series))


def curves(
    series: Mapping[str, Sequence[tuple[float, float, float, float]]],
    x_label: str,
    y_label: str,
) -> str:
    """Lines with bands: (x, value, lower end, upper end) for each point, and the diagonal."""
    points = [p for line in series.values() for p in line]
    most = max((p[0] for p in points), default=1.0)
    low = min((p[2] for p in points), default=0.0)
    frame = _Frame((0.0, most), (min(0.0, low), _above(max(most, *(p[3] for p in points)))))
    end = f'x2="{frame.x(most):.1f}" y2="{frame.y(most):.1f}"'
    parts = [
        frame.axes(x_label, y_label),
        f'<line x1="{frame.x(0):.1f}" y1="{frame.y(0):.1f}" {end} stroke="#bbb" '
        'stroke-dasharray="2 4"/>',
    ]
    for label, line in series.items():
        colour = colour_of(label, list(series))
        upper = [f"{frame.x(p[0]):.1f},{frame.y(p[3]):.1f}" for p in line]
        lower = [f"{frame.x(p[0]):.1f},{frame.y(p[2]):.1f}" for p in reversed(line)]
        middle = " ".join(f"{frame.x(p[0]):.1f},{frame.y(p[1]):.1f}" for p in line)
        parts.append(f'<polygon points="{" ".join(upper + lower)}" fill="{colour}" opacity=".12"/>')
        parts.append(
            f'<polyline points="{middle}" fill="none" stroke="{colour}" stroke-width="2"/>'
        )
    return _svg(parts) + legend(list(series))


def colour_of(label: str, labels: Sequence[str]) -> str:
    """Black for the ideal, grey for doing nothing, otherwise by place among the methods."""
    fixed = {"ideal": "#000000", "A itself": "#777777", "B itself": "#AAAAAA"}
    if label in fixed:
        return fixed[label]
    methods = [name for name in labels if name not in fixed]
    return COLOURS[methods.index(label) % len(COLOURS)]


def legend(labels: Sequence[str]) -> str:
    """Names with their colours, as HTML."""
    items = "".join(
        f'<span><i style="background:{colour_of(label, labels)}"></i>{html.escape(label)}</span>'
        for label in labels
    )
    return f'<p class="legend">{items}</p>'


class _Frame:
    """Data coordinates to pixels."""

    def __init__(
        self,
        x: tuple[float, float],
        y: tuple[float, float],
        *,
        width: int = _WIDTH,
        bottom: int = _BOTTOM,
    ) -> None:
        self._x, self._y = x, y
        self._width, self._bottom = width, bottom

    def x(self, value: float) -> float:
        low, high = self._x
        return _LEFT + (value - low) / (high - low) * (self._width - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        low, high = self._y
        inside = _HEIGHT - _TOP - self._bottom
        return _TOP + (1 - (value - low) / (high - low)) * inside

    def axes(self, x_label: str, y_label: str, *, ticks: bool = True) -> str:
        left, right = self.x(self._x[0]), self.x(self._x[1])
        bottom = self.y(self._y[0])
        parts = []
        for tick in _ticks(*self._y):
            y = self.y(tick)
            parts.append(
                f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" '
                'stroke="#e4e4e4"/>'
                f'<text x="{left - 8:.1f}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>'
            )
        for tick in _ticks(*self._x) if ticks else []:
            x = self.x(tick)
            parts.append(
                f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom:.1f}" stroke="#f0f0f0"/>'
                f'<text x="{x:.1f}" y="{bottom + 17:.1f}" text-anchor="middle">{tick:g}</text>'
            )
        middle = (_TOP + bottom) / 2
        parts.append(
            f'<text x="{(left + right) / 2:.1f}" y="{_HEIGHT - 10}" text-anchor="middle">'
            f"{html.escape(x_label)}</text>"
            f'<text x="16" y="{middle:.1f}" text-anchor="middle" '
            f'transform="rotate(-90 16 {middle:.1f})">{html.escape(y_label)}</text>'
        )
        return "".join(parts)


def _ticks(low: float, high: float) -> list[float]:
    """About five round numbers between low and high."""
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = min(
        (m * power for m in (1, 2, 2.5, 5, 10)), key=lambda candidate: abs(candidate - rough)
    )
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 12) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _above(value: float) -> float:
    """A little more than `value`, and never 0."""
    return 1.08 * value if value > 0 else 1.0


def _label(text: str, colour: str, x: float, y: float, taken: list[_Box]) -> str:
    """A name beside its point, where it lies on no other name or point if there is such a place."""
    wide = 6.6 * len(text)
    places = [
        (x + 9 if right else x - 9 - wide, y + down, right)
        for down in (-8, 16, -22, 30, -36, 44, -50, 58)
        for right in (True, False)
    ]
    inside = [p for p in places if p[0] >= _LEFT and p[0] + wide <= _WIDTH - _RIGHT] or places
    free = [p for p in inside if not _hits((p[0], p[1] - 10, p[0] + wide, p[1] + 3), taken)]
    left, base, _ = (free or inside)[0]
    taken.append((left, base - 10, left + wide, base + 3))
    return (
        f'<text x="{left:.1f}" y="{base:.1f}" textLength="{wide:.0f}" '
        f'lengthAdjust="spacingAndGlyphs" fill="{colour}">{html.escape(text)}</text>'
    )


def _hits(box: _Box, others: Sequence[_Box]) -> bool:
    return any(box[0] < o[2] and o[0] < box[2] and box[1] < o[3] and o[1] < box[3] for o in others)


def _svg(parts: Sequence[str], *, width: int = _WIDTH, height: int = _HEIGHT) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'width="{width}" height="{height}" {_STYLE}>{"".join(parts)}</svg>'
    )
