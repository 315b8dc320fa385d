"""JSON and JSON Lines: the text as it is, with a part for each key, element or line."""

from __future__ import annotations

import json
import re

from letta_documents.inside.writing import CODE, TABLE, TextWriter, clean

_LONGEST_LINE = 2000
_LOOKED_AT = 20
_BEGINNING = 1 << 20
_INDENTATION = re.compile(r"^[ \t]*")
_KEY = re.compile(r'"((?:[^"\\]|\\.){0,200})"\s*:')


def is_json(text: str) -> bool:
    """Whether a text is a JSON object or array."""
    if text.lstrip("\ufeff \t\r\n")[:1] not in ("{", "["):
        return False
    try:
        json.loads(text.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return False
    return True


def is_lines(text: str) -> bool:
    """Whether each of the first lines of a text is a JSON object or array."""
    lines = [line for line in text[:_BEGINNING].split("\n", _LOOKED_AT)[:_LOOKED_AT] if line.strip()]
    return len(lines) > 1 and all(map(is_json, lines))


def write_json(writer: TextWriter, text: str) -> None:
    """Write JSON; what is one long line is indented."""
    if max(map(len, text.split("\n"))) > _LONGEST_LINE:
        text = json.dumps(json.loads(text.lstrip("\ufeff")), ensure_ascii=False, indent=2)
    lines = clean(text).splitlines(keepends=True)
    inner = _INDENTATION.findall(lines[1])[0] if len(lines) > 2 else ""
    number = -1
    writer.begin(CODE)
    for line in lines:
        if inner and line.startswith(inner) and line[len(inner)] not in " \t}]\n":
            number += 1
            key = _KEY.match(line, len(inner))
            if key or line[len(inner)] in "{[":
                writer.begin(CODE, key[1] if key else f"[{number}]")
        writer.write(line)


def write_lines(writer: TextWriter, text: str) -> None:
    """Write JSON Lines."""
    writer.begin(TABLE)
    writer.write(text)
