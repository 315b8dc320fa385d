"""Charts as SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

WIDTH, ROW, LEFT, GAP = 720, 22, 220, 34
HEIGHT = 320
COLOURS = ("#3b6ea5", "#c8793a", "#5b9a5b", "#9a5b8f", "#777777", "#b0413e")


def bars(series: Mapping[str, Mapping[str, float]], measures: Sequence[str]) -> str:
    """Draw one group of horizontal bars a measure, one bar a series, each group on a scale of its own."""
    rows: list[str] = []
    y = 10
    for measure in measures:
        values = {name: float(values[measure]) for name, values in series.items() if measure in values}
        if not values:
            continue
        y += GAP - 12
        rows.append(f'<text x="10" y="{y}" font-weight="bold">{escape(measure)}</text>')
        y += 8
        largest = max(values.values()) or 1.0
        for index, (name, value) in enumerate(values.items()):
            width = value / largest * (WIDTH - LEFT - 90)
            colour = COLOURS[index % len(COLOURS)]
            rows.append(f'<text x="20" y="{y + 14}">{escape(name)}</text>')
            rows.append(f'<rect x="{LEFT}" y="{y + 2}" width="{width:.1f}" height="{ROW - 6}" fill="{colour}"/>')
            rows.append(f'<text x="{LEFT + width + 6:.1f}" y="{y + 14}">{value:.2f}</text>')
            y += ROW
    return _svg(rows, y + 10)


def lines(series: Mapping[str, Mapping[float, float]], measure: str) -> str:
    """Draw one line a series over logarithmic x; y is logarithmic too, so that equal ratios look equal."""
    points = [(x, y) for values in series.values() for x, y in values.items() if x > 0 and y > 0]
    if not points:
        return ""
    (left, right), (low, high) = (_decades(each) for each in zip(*points, strict=True))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - left) / (right - left) * (WIDTH - LEFT - 60) + 60
        return across, HEIGHT - 30 - (math.log10(y) - low) / (high - low) * (HEIGHT - 60)

    rows = [f'<text x="10" y="16" font-weight="bold">{escape(measure)}</text>']
    for decade in range(left, right + 1):
        across, _ = place(10**decade, 10**low)
        rows.append(f'<text x="{across:.0f}" y="{HEIGHT - 10}">{10**decade:g}</text>')
    for decade in range(low, high + 1):
        _, down = place(10**left, 10**decade)
        rows.append(f'<text x="10" y="{down:.0f}">{10.0**decade:g}</text>')
    for index, (name, values) in enumerate(series.items()):
        colour = COLOURS[index % len(COLOURS)]
        path = " ".join(
            f"{x:.1f},{y:.1f}" for x, y in (place(*pair) for pair in sorted(values.items()) if min(pair) > 0)
        )
        rows.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        rows.append(f'<text x="{WIDTH - LEFT + 20}" y="{30 + index * ROW}" fill="{colour}">{escape(name)}</text>')
    return _svg(rows, HEIGHT)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))


def _svg(rows: Sequence[str], height: int) -> str:
    style = "font-family: sans-serif; font-size: 12px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *rows, "</svg>\n"])
