"""How one text becomes another, line by line, at a cost that is bounded whatever the texts are."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence

_AROUND = 3
_MOST_PAIRS = 250_000
"""Pairs of lines to compare, at most some tenths of a second; texts with more are told as one replaced by the other."""

Change = tuple[int, int, int, int]
"""A range of lines of the former text, and the range of the other one that takes its place."""


def unified_diff(old: str, new: str, names: tuple[str, str]) -> str:
    """Return the lines that differ with three around them, as a unified diff; empty for equal texts."""
    before, after = old.split("\n"), new.split("\n")
    hunks = list(_hunks(_changes(before, after)))
    if not hunks:
        return ""
    lines = [f"--- {names[0]}", f"+++ {names[1]}"]
    for hunk in hunks:
        lines += _shown(hunk, before, after)
    return "\n".join(lines) + "\n"


def _changes(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    """Return the ranges that differ, in order."""
    start, most = 0, min(len(old), len(new))
    while start < most and old[start] == new[start]:
        start += 1
    end = 0
    while end < most - start and old[-1 - end] == new[-1 - end]:
        end += 1
    inner_old, inner_new = old[start : len(old) - end], new[start : len(new) - end]
    if not inner_old and not inner_new:
        return []
    if len(inner_old) * len(inner_new) > _MOST_PAIRS:
        return [(start, start + len(inner_old), start, start + len(inner_new))]
    codes = difflib.SequenceMatcher(None, inner_old, inner_new, autojunk=False).get_opcodes()
    return [(start + a, start + b, start + c, start + d) for kind, a, b, c, d in codes if kind != "equal"]


def _hunks(changes: Sequence[Change]) -> Iterator[list[Change]]:
    """Yield changes that stand so near that what is shown around them touches."""
    hunk: list[Change] = []
    for change in changes:
        if hunk and change[0] - hunk[-1][1] > 2 * _AROUND:
            yield hunk
            hunk = []
        hunk.append(change)
    if hunk:
        yield hunk


def _shown(hunk: Sequence[Change], old: Sequence[str], new: Sequence[str]) -> list[str]:
    """Return a hunk as lines, its head first."""
    first, last = max(hunk[0][0] - _AROUND, 0), min(hunk[-1][1] + _AROUND, len(old))
    head = hunk[0][2] - (hunk[0][0] - first), hunk[-1][3] + (last - hunk[-1][1])
    lines = [f"@@ -{_range(first, last)} +{_range(*head)} @@"]
    at = first
    for begin, end, to, until in hunk:
        lines += [f" {line}" for line in old[at:begin]]
        lines += [f"-{line}" for line in old[begin:end]]
        lines += [f"+{line}" for line in new[to:until]]
        at = end
    return lines + [f" {line}" for line in old[at:last]]


def _range(first: int, last: int) -> str:
    """Return a range of lines as heads of hunks have it: where it begins, and how many it is unless one."""
    count = last - first
    begin = first + 1 if count else first
    return str(begin) if count == 1 else f"{begin},{count}"
