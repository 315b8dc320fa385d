"""Google-style docstrings: what a function does and what each parameter means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from inspect import cleandoc

_PARAMETERS = ("args", "arguments", "parameters", "params", "attributes")
_DESCRIPTIVE = ("example", "examples", "note", "notes", "warning", "warnings")
_OTHERS = ("returns", "return", "raises", "yields", "yield", "todo", "see also")
_ENTRY = re.compile(r"^\*{0,2}(?P<name>[^\W\d]\w*)\s*(?:\((?P<type>[^:]*?)\))?\s*:(?:\s+(?P<text>.*))?$")


@dataclass(frozen=True, slots=True)
class Docstring:
    """The parts of a docstring that a schema is made of."""

    description: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict)


def read_docstring(text: str) -> Docstring:
    """Read a docstring. The description is everything before the first section; examples stay part of it."""
    description: list[str] = []
    entries: list[str] = []
    target: list[str] | None = description
    for line in cleandoc(text).splitlines():
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
    return Docstring("\n".join(description).strip(), _read_entries(entries))


def _section(line: str) -> str | None:
    """Return the name of the section that a line at the left margin opens, or None."""
    if not line or line[0].isspace() or not line.rstrip().endswith(":"):
        return None
    name = line.strip()[:-1].lower()
    return name if name in (*_PARAMETERS, *_DESCRIPTIVE, *_OTHERS) else None


def _read_entries(lines: list[str]) -> dict[str, str]:
    indent = min((_indent(line) for line in lines if line.strip()), default=0)
    entries: dict[str, list[str]] = {}
    current: list[str] | None = None
    for line in lines:
        match = _ENTRY.match(line.strip()) if line.strip() and _indent(line) == indent else None
        if match:
            current = entries.setdefault(match["name"], [])
            current.append((match["text"] or "").strip())
        elif current is not None and line.strip():
            current.append(line.strip())
    return {name: " ".join(filter(None, parts)) for name, parts in entries.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())
