"""The page of a benchmark: a table of all figures, bars of each group, lines over the length of the history."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from benchmarks.plot import bars, lines

_COLUMNS = ("p50_ms", "p99_ms", "python_ms", "postgres_ms", "python_bare_calls", "per_second", "pss_mb")
_STYLE = (
    "body{font-family:sans-serif;max-width:60em;margin:2em auto}"
    "td,th{padding:.1em .8em;text-align:right}td:first-child{text-align:left}"
)


def page(result: Mapping[str, Any]) -> str:
    """Return the HTML of a result of `benchmarks.bench`."""
    figures: Mapping[str, Mapping[str, float]] = result["figures"]
    against = ", ".join(f"{name} {value:.3f}" for name, value in result["against"].items()) or "nothing"
    parts = [
        f'<!doctype html><meta charset="utf-8"><title>Benchmark</title><style>{_STYLE}</style><h1>Benchmark</h1>',
        f"<p>Measured against: {escape(against)}. Milliseconds belong to this machine and this run.</p>",
        "<h2>A message by messages in context</h2>",
        lines(_by_length(figures), "python_ms"),
        *(f"<h2>{escape(group)}</h2>{bars(rows, ['python_ms', 'p50_ms'])}" for group, rows in _groups(figures).items()),
        "<h2>All figures</h2>",
        _table(figures),
    ]
    return "\n".join(parts) + "\n"


def _by_length(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[float, float]]:
    """Return for each model what a message costs in Python at each length of the history."""
    found: dict[str, dict[float, float]] = {}
    for name, row in figures.items():
        kind, _, rest = name.partition("/")
        model, _, length = rest.rpartition("/")
        if kind == "message" and length.isdigit():
            found.setdefault(model, {})[float(length)] = row.get("python_ms", row["p50_ms"])
    return found


def _groups(figures: Mapping[str, Mapping[str, float]]) -> dict[str, dict[str, Mapping[str, float]]]:
    found: dict[str, dict[str, Mapping[str, float]]] = {}
    for name, row in figures.items():
        found.setdefault(name.partition("/")[0], {})[name] = row
    return found


def _table(figures: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f"<th>{escape(column)}</th>" for column in ("", *_COLUMNS))
    rows = "".join(
        f"<tr><td>{escape(name)}</td>"
        + "".join(f"<td>{_shown(row.get(column))}</td>" for column in _COLUMNS)
        + "</tr>\n"
        for name, row in figures.items()
    )
    return f"<table><tr>{head}</tr>\n{rows}</table>"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"
