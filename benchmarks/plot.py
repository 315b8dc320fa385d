"""Bar charts as SVG, without a plotting library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, ROW, LEFT, GAP = 720, 22, 220, 34
COLOURS = ("#3b6ea5", "#c8793a", "#5b9a5b", "#9a5b8f")


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
    style = "font-family: sans-serif; font-size: 12px"
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 10}" style="{style}">'
    return "\n".join([head, '<rect width="100%" height="100%" fill="white"/>', *rows, "</svg>\n"])
