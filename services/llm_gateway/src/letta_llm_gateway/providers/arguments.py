"""Arguments of tool calls: read, repaired where that is safe, refused where it is not."""

from __future__ import annotations

import json
import re
from typing import Any
from uuid import uuid4

from letta_common.errors import LLMInvalidResponse

_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")


class CallIds:
    """Gives every call of an answer an id of its own; results find their calls by them."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def of(self, given: Any) -> str:
        """Return the vendor's id, or a new one when it gave none or the same one twice."""
        id = given if isinstance(given, str) and given and given not in self._seen else f"call_{uuid4().hex[:24]}"
        self._seen.add(id)
        return id


def complete(text: str) -> bool:
    """Say whether a text is a whole JSON object."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def checked(raw: Any, *, tool: str, vendor: str) -> str:
    """Return the arguments as the text of a JSON object. Raises LLMInvalidResponse when they cannot be read as one."""
    if isinstance(raw, dict):
        return json.dumps(raw, ensure_ascii=False)
    text = str(raw or "").strip()
    if not text:
        return "{}"
    for attempt in _readings(text):
        try:
            value = json.loads(attempt, strict=False)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, str):  # encoded twice
            return checked(value, tool=tool, vendor=vendor) if value != text else "{}"
        if isinstance(value, dict):
            return attempt if attempt is text and _is_strict(text) else json.dumps(value, ensure_ascii=False)
        break
    raise LLMInvalidResponse(
        f"{vendor} called tool {tool} with arguments that are no JSON object: {text[:200]}", provider=vendor, tool=tool
    )


def _readings(text: str) -> list[str]:
    """Return the text and the repairs that cannot change its meaning."""
    bare = match[1] if (match := _FENCE.match(text)) else text
    tidy = _TRAILING_COMMA.sub(r"\1", bare)
    return [text, bare, tidy, _closed(tidy)]


def _closed(text: str) -> str:
    """Close what a cut text left open, unless it was cut inside a string."""
    stack: list[str] = []
    quoted = escaped = False
    for char in text:
        if quoted:
            quoted = escaped or char != '"'
            escaped = char == "\\" and not escaped
        elif char == '"':
            quoted = True
        elif char in "{[":
            stack.append("}" if char == "{" else "]")
        elif char in "}]" and stack:
            stack.pop()
    return text if quoted else text.rstrip().rstrip(",") + "".join(reversed(stack))


def _is_strict(text: str) -> bool:
    """Say whether the text has no raw control characters, NaN or Infinity, which only Python's reader accepts."""
    return text.isprintable() and "NaN" not in text and "Infinity" not in text
