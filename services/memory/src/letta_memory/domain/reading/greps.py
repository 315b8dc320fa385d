"""Finding lines by a regular expression in time that grows with the text alone, whatever the expression."""

from __future__ import annotations

import time
from collections.abc import Iterator

import re2

from letta_common.errors import InvalidArgument

MOST_PATTERN = 1_000  # characters
_MOST_PROGRAM = 10_000  # instructions: a step over a character costs as many at worst
_WINDOW = 64 << 10
"""Bytes that are searched at once, between two looks at the clock."""
_OVERLAP = 4 << 10
"""Bytes by which pieces of a line longer than a window overlap: what is longer over their border is not found."""
_MEMORY = 8 << 20


class Grep:
    """A regular expression, in any case, that is searched for line by line."""

    def __init__(self, pattern: str) -> None:
        """Raises InvalidArgument when the expression cannot be searched for."""
        if not pattern or len(pattern) > MOST_PATTERN:
            raise InvalidArgument(f"a pattern has 1 to {MOST_PATTERN} characters", field="pattern")
        options = re2.Options()
        options.case_sensitive = False
        options.never_capture = True
        options.never_nl = True
        options.log_errors = False
        options.max_mem = _MEMORY
        try:
            # In front, since without it ^ and $ would mean the text in place of its lines.
            self._regexp = re2.compile(f"(?m){pattern}", options)
        except re2.error as error:
            what = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            text = (
                f"the pattern cannot be read: {what}. It is a regular expression in the syntax of RE2, which has "
                "neither look-around nor back-references"
            )
            raise InvalidArgument(text, field="pattern") from error
        if self._regexp.programsize > _MOST_PROGRAM:
            raise InvalidArgument("the pattern is too large: repeat less in it", field="pattern")

    def lines(self, text: bytes, deadline: float) -> Iterator[int]:
        """Yield the numbers, from 0, of lines that match. Raises TimeoutError past the deadline, a monotonic time."""
        at, number, counted = 0, 0, 0
        last = len(text) - text.endswith(b"\n")
        while at <= last and text:
            if time.monotonic() > deadline:
                raise TimeoutError
            end, whole = _window(text, at, last)
            found = self._regexp.search(text, at, end)
            if found is None:
                at = end + 1 if whole else end - _OVERLAP
                continue
            number += text.count(b"\n", counted, found.start())
            counted = found.start()
            yield number
            after = text.find(b"\n", found.end())
            at = last + 1 if after < 0 else after + 1


def _window(text: bytes, at: int, last: int) -> tuple[int, bool]:
    """Return where the piece ends that is searched next, and whether a line ends there."""
    end = at + _WINDOW
    if end >= last:
        return last, True
    newline = text.rfind(b"\n", at, end)
    return (newline, True) if newline >= 0 else (end, False)
