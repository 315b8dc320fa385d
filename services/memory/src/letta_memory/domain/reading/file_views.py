"""What an agent sees of an open file: its lines with their numbers, from where it was opened, as many as fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from letta_common.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class LineRange:
    """Lines of a file. Both numbers count from 0; without an end it goes to the last line."""

    start: int = 0
    end: int | None = None
    """The first line that is not in it."""

    @property
    def whole(self) -> bool:
        """Say whether the file was opened as it is, without a choice of lines."""
        return self.start == 0 and self.end is None


def chosen(name: str, lines: int, offset: int | None, length: int | None) -> LineRange:
    """Return the lines of a file that somebody asks for. Raises InvalidArgument when it has no such line."""
    start = offset or 0
    if start and start >= lines:
        text = f"{name} has {lines} lines, so no offset above {max(0, lines - 1)}; the first line has the offset 0"
        raise InvalidArgument(text, field="offset", lines=str(lines))
    return LineRange(start, None if length is None else min(start + length, lines))


def view(text: str, lines: int, shown: LineRange, limit: int) -> str:
    """Return what is shown of a file of so many lines, at most `limit` characters.

    `text` begins with the first line that is shown and may end after as many characters as the limit has.
    """
    end = lines if shown.end is None else min(shown.end, lines)
    if shown.whole:
        parts = [f"[Viewing file start (out of {lines} lines)]"]
    else:
        parts = [f"[Viewing lines {min(shown.start + 1, end)} to {end} (out of {lines} lines)]"]
    left = limit - len(parts[0])
    for number, line in enumerate(lines_of(text), shown.start + 1):
        if number > end:
            break
        numbered = f"\n{number}: {line}"
        # What follows may need room to say that something is missing.
        room = left if number == end else left - len(_missing(number))
        if len(numbered) > room:
            kept = numbered[: max(0, left - len(_missing(number)))] if len(parts) == 1 else ""
            return ("".join(parts) + kept + _missing(number - (not kept)))[:limit]
        parts.append(numbered)
        left -= len(numbered)
    return "".join(parts)[:limit]


def _missing(shown_to: int) -> str:
    """Say that lines are missing, and how to see them."""
    return f"\n[Cut after line {shown_to}, where the view is full. Open the file at offset {shown_to} to read on.]"


def lines_of(text: str) -> Iterator[str]:
    """Yield the lines of a file's text, which end in `\\n` alone."""
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        end = len(text) if end < 0 else end
        yield text[at:end]
        at = end + 1
