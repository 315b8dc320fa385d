"""Puts a document together: clean text, and the parts it consists of."""

from __future__ import annotations

import re
from typing import Any

from letta_documents.inside.faults import TooLarge

TEXT, TABLE, CODE = "text", "table", "code"

_LINE_ENDS = re.compile("\r\n?|[\v\f\x1c-\x1e\x85\u2028\u2029]")
# Controls but tab and line end, halves of surrogate pairs, and what no text has.
_BROKEN = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffe\uffff]")
_HALVES = re.compile("[\ud800-\udfff]")
_BLANKS = re.compile(r"\s+")
_LONGEST_TITLE = 200
_DEEPEST = 6
_MOST_PARTS = 200_000


def clean(text: str) -> str:
    """Return text with line ends `\\n`, and without characters that are none."""
    if _LINE_ENDS.search(text):
        text = _LINE_ENDS.sub("\n", text)
    return _HALVES.sub("\ufffd", _BROKEN.sub("", text))


def flat(text: str) -> str:
    """Return text as one line."""
    return _BLANKS.sub(" ", clean(text)).strip()


class TextWriter:
    """Collects text and parts. Every write may raise TooLarge."""

    def __init__(self, most_characters: int) -> None:
        self._most = most_characters
        self._pieces: list[str] = []
        self._length = 0
        self._parts: list[list[Any]] = []
        self._headings: list[tuple[int, str]] = []
        self._kind, self._header, self._started = TEXT, 0, 0
        self._named: str | None = None
        self._listing = False
        self.page = 0
        self.title = ""

    def write(self, text: str) -> None:
        """Write text as it is, but clean."""
        text = clean(text)
        self._length += len(text)
        if self._length > self._most:
            raise TooLarge(f"its text has more than {self._most} characters")
        self._pieces.append(text)

    def begin(self, kind: str = TEXT, name: str | None = None) -> None:
        """Begin a part, which may have a name of its own: the last of its titles."""
        self._end_list()
        self._end()
        self._kind, self._named = kind, name

    def paragraph(self, text: str) -> None:
        """Write a paragraph; nothing for one that is empty."""
        text = clean(text).strip("\n")
        if text.strip():
            self._end_list()
            self.write(text + "\n\n")

    def item(self, mark: str, text: str) -> None:
        """Write an item of a list; nothing for one that is empty."""
        text = clean(text).strip()
        if text:
            self.write(f"{mark} {text}\n")
            self._listing = True

    def _end_list(self) -> None:
        if self._listing:
            self._listing = False
            self.write("\n")

    def heading(self, level: int, text: str) -> None:
        """Begin a section with a heading; nothing for one that is empty."""
        text = flat(text)
        if not text:
            return
        level = max(1, min(level, _DEEPEST))
        self.section(level, text)
        self.write(f"{'#' * level} {text}\n\n")

    def section(self, level: int, text: str) -> None:
        """Begin a section whose heading is written by the caller."""
        self.begin()
        while self._headings and self._headings[-1][0] >= level:
            self._headings.pop()
        self._headings.append((level, flat(text)[:_LONGEST_TITLE]))

    def table(self, rows: list[list[str]]) -> None:
        """Write a table with its first row as header."""
        table = Rows(self)
        for row in rows:
            table.row(row)
        table.end()

    def header_ends(self) -> None:
        """Say that what the part has so far is the header of its table."""
        self._header = self._length - self._started

    def _end(self) -> None:
        if self._length > self._started:
            titles = [text for _, text in self._headings]
            if self._named:
                titles.append(flat(self._named)[:_LONGEST_TITLE])
            if len(self._parts) < _MOST_PARTS:
                self._parts.append([self._kind, self._started, self._length, titles, self.page, self._header])
            else:
                self._parts[-1][2] = self._length
            self._started = self._length
        self._kind, self._header, self._named = TEXT, 0, None

    def turn(self, page: int) -> None:
        """Begin another page, sheet or slide."""
        self._end_list()
        self._end()
        self.page = page

    def result(self, media_type: str) -> dict[str, Any]:
        """Return the document as values of JSON."""
        self._end()
        return {
            "media_type": media_type,
            "text": "".join(self._pieces),
            "parts": self._parts,
            "title": flat(self.title)[:_LONGEST_TITLE],
        }


class Rows:
    """Writes a table row by row; the first that is not empty is its header."""

    def __init__(self, writer: TextWriter) -> None:
        self._writer = writer
        self._begun = False

    def row(self, cells: list[str]) -> None:
        """Write a row; nothing for one that is empty."""
        cells = [flat(cell).replace("|", "\\|") for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if not cells:
            return
        first = not self._begun
        if first:
            self._writer.begin(TABLE)
            self._begun = True
        self._writer.write(f"| {' | '.join(cells)} |\n")
        if first:
            self._writer.write(f"|{'---|' * len(cells)}\n")
            self._writer.header_ends()

    def end(self) -> None:
        """End the table."""
        if self._begun:
            self._writer.write("\n")
            self._writer.begin()
