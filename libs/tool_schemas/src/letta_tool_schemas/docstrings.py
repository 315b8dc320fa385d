"""Docstrings of the usual styles (Google, NumPy, reST, Epydoc): what a function does and what each parameter means."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from inspect import cleandoc

import docstring_parser
from docstring_parser import DocstringStyle

_PARAMETERS = ("args", "arguments", "parameters", "params", "attributes")
# These sections help a model to choose, so they stay in the description; what is returned or raised does not.
_DESCRIPTIVE = ("example", "examples", "note", "notes", "warning", "warnings")
_OTHERS = ("returns", "return", "raises", "yields", "yield", "todo", "see also")
_ENTRY = re.compile(r"\s*\*{0,2}[^\W\d]\w*\s*(\(.*?\))?\s*:")
_OTHER_STYLES = (DocstringStyle.NUMPYDOC, DocstringStyle.REST, DocstringStyle.EPYDOC)


@dataclass(frozen=True, slots=True)
class Docstring:
    """The parts of a docstring that a schema is made of."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_docstring(text: str) -> Docstring:
    """Read a docstring. The description is everything before the first section; examples stay part of it."""
    text = cleandoc(text)
    # Google's style first, and by our own sections: the parser takes any word with a colon for one.
    google = _google(text)
    if google.parameters:
        return google
    for style in _OTHER_STYLES:
        parsed = _parsed(text, style)
        if parsed is not None and parsed.meta:
            return Docstring((parsed.description or "").strip(), _described(parsed.params))
    return google


def _google(text: str) -> Docstring:
    description: list[str] = []
    entries: list[str] = []
    target: list[str] | None = description
    for line in text.splitlines():
        section = _section(line)
        if section is None:
            if target is not None:
                target.append(line)
        elif section in _PARAMETERS:
            target = entries
        elif section in _OTHERS:
            target = None
        else:
            target = description
            description.append(line)
    # The parser expects a description first, so it gets an empty one.
    parsed = _parsed("\n\nArgs:\n" + "\n".join(_aligned(entries)), DocstringStyle.GOOGLE) if entries else None
    return Docstring("\n".join(description).strip(), _described(parsed.params) if parsed else {})


def _section(line: str) -> str | None:
    """Return the name of the section that a line at the left margin opens, or None."""
    if not line or line[0].isspace() or not line.rstrip().endswith(":"):
        return None
    name = line.strip()[:-1].lower()
    return name if name in (*_PARAMETERS, *_DESCRIPTIVE, *_OTHERS) else None


def _aligned(lines: list[str]) -> list[str]:
    """Indent what goes on below an entry, and leave out what comes before the first, as the parser wants it."""
    filled = [line for line in lines if line.strip()]
    indent = min((_indent(line) for line in filled), default=0)
    begins = [_indent(line) == indent and _ENTRY.match(line) is not None for line in filled]
    first = begins.index(True) if True in begins else len(filled)
    pairs = list(zip(filled, begins, strict=True))[first:]
    return [("    " if begin else "        ") + line.strip() for line, begin in pairs]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _parsed(text: str, style: DocstringStyle) -> docstring_parser.Docstring | None:
    try:
        return docstring_parser.parse(text, style)
    except Exception:  # anything may stand in a docstring; what cannot be read is no description
        return None


def _described(entries: Iterable[docstring_parser.DocstringParam]) -> dict[str, str]:
    found: dict[str, str] = {}
    for entry in entries:
        for name in entry.arg_name.split(","):  # NumPy describes several at once
            plain = name.strip().lstrip("*")
            if plain.isidentifier():
                found[plain] = " ".join((entry.description or "").split())
    return found
