"""Line charts as plain SVG: no library, no script, readable in a diff and on a dark page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 420
LEFT, RIGHT, TOP, BOTTOM = 64, 190, 40, 52
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd", "#ff7f0e", "#17becf", "#8c564b", "#e377c2", "#7f7f7f", "#bcbd22")
DASHES = ("", "6 3", "2 3")
POINTS_MAX = 240
"""Of one line: more than one for every second pixel shows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Axis:
    """`log` needs a `low` above 0."""

    title: str
    low: float
    high: float
    ticks: Sequence[float]
    log: bool = False

    def share(self, value: float) -> float:
        """Where on the axis, 0 to 1; beyond its ends at them."""
        value = min(self.high, max(self.low, value))
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def chart(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(value: float) -> float:
        return LEFT + width * x.share(value)

    def down(value: float) -> float:
        return TOP + height * (1 - y.share(value))

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
        ' font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{LEFT}" y="22" font-size="14">{escape(title)}</text>',
    ]
    for tick in x.ticks:
        at = f"{across(tick):.1f}"
        parts.append(f'<path d="M{at} {TOP}V{TOP + height}" stroke="#dddddd"/>')
        parts.append(f'<text x="{at}" y="{TOP + height + 16}" text-anchor="middle">{_number(tick)}</text>')
    for tick in y.ticks:
        at = f"{down(tick):.1f}"
        parts.append(f'<path d="M{LEFT} {at}H{LEFT + width}" stroke="#dddddd"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at}" dy="4" text-anchor="end">{_number(tick)}</text>')
    middle_x, middle_y = LEFT + width / 2, TOP + height / 2
    parts.append(f'<text x="{middle_x}" y="{HEIGHT - 14}" text-anchor="middle">{escape(x.title)}</text>')
    parts.append(
        f'<text transform="translate(16 {middle_y}) rotate(-90)" text-anchor="middle">{escape(y.title)}</text>'
    )
    for number, line in enumerate(lines):
        style = f'stroke="{COLOURS[number % len(COLOURS)]}" stroke-width="1.6"'
        dash = DASHES[number // len(COLOURS) % len(DASHES)]
        style += f' stroke-dasharray="{dash}"' if dash else ""
        path = "L".join(f"{across(a):.1f} {down(b):.1f}" for a, b in thinned(line.points))
        legend = TOP + 8 + 18 * number
        parts.append(f'<path d="M{path}" fill="none" {style}/>')
        parts.append(f'<path d="M{WIDTH - RIGHT + 12} {legend}h22" {style}/>')
        parts.append(f'<text x="{WIDTH - RIGHT + 40}" y="{legend}" dy="4">{escape(line.name)}</text>')
    return "\n".join((*parts, "</svg>", ""))


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    if len(points) <= POINTS_MAX:
        return points
    step = (len(points) - 1) / (POINTS_MAX - 1)
    return [points[round(step * at)] for at in range(POINTS_MAX)]


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:g}"
