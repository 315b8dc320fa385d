"""What comes of a file: its text, and what that consists of."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class PartKind(Enum):
    """What a part is, and so where it may be cut."""

    TEXT = "text"
    TABLE = "table"
    CODE = "code"


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a document's text, from character `start` up to `end`. Parts follow each other without gaps.

    `titles` are the headings above it, outermost first. `page` is the number of its page, sheet or slide from 1; 0
    where there are none. The first `header` characters are the header of a table, each line after them one row.
    """

    kind: PartKind
    start: int
    end: int
    titles: tuple[str, ...] = ()
    page: int = 0
    header: int = 0


@dataclass(frozen=True, slots=True)
class Document:
    """The text of a file. Lines end in `\\n`; there are no NUL characters and no lone surrogates in it."""

    media_type: str
    text: str
    parts: tuple[Part, ...]
    title: str = ""
