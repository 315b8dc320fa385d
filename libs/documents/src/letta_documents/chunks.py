"""Cuts documents into chunks: at what they consist of, and at lines, sentences, words where that is too long."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, replace

import regex

from letta_documents.documents import Document, Part, PartKind

_SENTENCE = regex.compile(r"[.!?。！？…][\"'”’)\]]*\s+|[。！？]")
_WORD = regex.compile(r"\s+")
_GRAPHEME = regex.compile(r"\X")
# What goes on a character before it; a cut in front of it would tear both apart.
_GOES_ON = regex.compile(r"[\p{M}\p{Emoji_Modifier}\u200d]")
# Two characters that never are of one grapheme.
_APART = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Latin}\p{Cyrillic}\p{Greek}\p{Nd}]{2}")
_LONGEST_GRAPHEME = 64
_SMALLEST = 32


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a document: `text` is its characters from `start` up to `end`, below the header of its table.

    Lines and pages count from 1, both ends included; pages are 0 where there are none.
    """

    text: str
    start: int
    end: int
    first_line: int
    last_line: int
    titles: tuple[str, ...] = ()
    first_page: int = 0
    last_page: int = 0


@dataclass(frozen=True, slots=True)
class _GrowingChunk:
    """A chunk that may still grow."""

    start: int
    end: int
    titles: tuple[str, ...]
    first_page: int
    last_page: int
    header: str = ""


def chunks(document: Document, size: int) -> list[Chunk]:
    """Cut a document into chunks of at most `size` characters, which together are all of its text but blank lines.

    A part that fits is kept whole; small ones that follow each other come together.
    Raises ValueError for a size below 32.
    """
    if size < _SMALLEST:
        raise ValueError(f"chunks of {size} characters are too small, the least is {_SMALLEST}")
    line_ends = [found.start() for found in regex.finditer("\n", document.text)]
    made = (_finished(document.text, each, line_ends) for each in _packed(document, size))
    return [chunk for chunk in made if chunk is not None]


def _packed(document: Document, size: int) -> Iterator[_GrowingChunk]:
    current: _GrowingChunk | None = None
    for part in document.parts:
        before = None
        if current is not None and not current.header and current.end - current.start < size // 3:
            before = current
            if part.end - before.start <= size:
                current = _joined(before, part)
                continue
        elif current is not None:
            yield current
        *whole, current = _pieces(document.text, before, part, size)
        yield from whole
    if current is not None:
        yield current


def _joined(before: _GrowingChunk, part: Part) -> _GrowingChunk:
    same = 0
    while before.titles[same : same + 1] and before.titles[same : same + 1] == part.titles[same : same + 1]:
        same += 1
    return replace(before, end=part.end, titles=part.titles[:same], last_page=part.page)


def _pieces(text: str, before: _GrowingChunk | None, part: Part, size: int) -> list[_GrowingChunk]:
    """Cut a part, and what is too small to stay alone before it."""
    body = part.start + part.header
    header = text[part.start : body] if part.header <= size // 2 else ""
    start = part.start if before is None else before.start
    pieces = [
        _GrowingChunk(begin, end, part.titles, part.page, part.page, header if begin >= body else "")
        for begin, end in _cuts(text, start, part, size - len(header))
    ]
    if before is not None:
        pieces[0] = replace(_joined(before, part), end=pieces[0].end)
    return pieces


def _cuts(text: str, start: int, part: Part, room: int) -> Iterator[tuple[int, int]]:
    while part.end - start > room:
        end = _best_cut(text, start, start + room, whole_lines=part.kind is PartKind.TABLE)
        yield start, end
        start = end
    yield start, part.end


def _best_cut(text: str, start: int, most: int, *, whole_lines: bool) -> int:
    """Return where to cut, at `most` or before: at a blank line of the latter two thirds, or a line, sentence, word."""
    least = start + (most - start) // 3
    if whole_lines:
        line = text.rfind("\n", start, most)
        if line >= start:
            return line + 1
    for mark in ("\n\n", "\n"):
        found = text.rfind(mark, least, most)
        if found >= 0:
            return found + len(mark)
    for pattern in (_SENTENCE, _WORD):
        ends = [found.end() for found in pattern.finditer(text, least, most) if not _GOES_ON.match(text, found.end())]
        if ends:
            return int(ends[-1])
    return _between_graphemes(text, start, most)


def _between_graphemes(text: str, start: int, most: int) -> int:
    """Return the last place up to `most` that is inside of no grapheme; `most` itself when one is longer than that."""
    if _APART.fullmatch(text, most - 1, most + 1) and text[most - 1 : most + 1].isalnum():
        return most
    best = start
    for found in _GRAPHEME.finditer(text, start, most + _LONGEST_GRAPHEME):
        if found.end() > most:
            break
        best = found.end()
    return best if best > start else most


def _finished(text: str, piece: _GrowingChunk, line_ends: list[int]) -> Chunk | None:
    """Return the chunk of a piece, without blank lines around it; nothing when there is nothing else."""
    inner = text[piece.start : piece.end]
    kept = inner.rstrip()
    if not kept:
        return None
    start = piece.start + len(kept) - len(kept.lstrip("\n"))
    end = piece.start + len(kept)
    return Chunk(
        text=piece.header + text[start:end],
        start=start,
        end=end,
        first_line=bisect_left(line_ends, start) + 1,
        last_line=bisect_left(line_ends, end - 1) + 1,
        titles=piece.titles,
        first_page=piece.first_page,
        last_page=piece.last_page,
    )
