"""Arguments of tool calls: read, and repaired where that is safe. What cannot be read is the agent's to refuse."""

from __future__ import annotations

import json
import re
import secrets
import string
from typing import Any

from letta.llm.v1.generation_service_pb2 import FinishReason, Generation
from letta_common.values.json_texts import json_object, too_deep
from letta_llm_gateway.providers.wires.wire_json import clean, finite

_FENCE = re.compile(r"^\s*```(?:json)?\s*(.*?)\s*```\s*$", re.DOTALL)
_TRAILING_COMMA = re.compile(r",(\s*[}\]])")
_HUGE = re.compile(r"\d[eE]\+?\d{3}|\\u[dD][89a-fA-F]")
_ALPHABET = string.ascii_letters + string.digits
_ID_LENGTH = 9
"""Mistral takes ids of exactly nine letters and digits, and every other vendor takes them too."""
# Models write raw line breaks into strings, which strict JSON refuses.
_DECODER = json.JSONDecoder(strict=False, parse_constant=lambda _: None, parse_float=finite)
Json = dict[str, Any]


def new_call_id() -> str:
    """Return an id for a call, in a form that every vendor takes; vendors' own ids repeat and differ in form."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(_ID_LENGTH))


class Balance:
    """Follows the braces of a JSON text that comes in pieces, without reading any piece twice."""

    def __init__(self) -> None:
        self._depth = 0
        self._quoted = self._escaped = False
        self._began = self._broken = False

    @property
    def complete(self) -> bool:
        """Say whether the text so far is an object that was closed."""
        return self._began and not self._broken and self._depth == 0

    def feed(self, text: str) -> None:
        """Take the next piece."""
        for char in text:
            if self._quoted:
                self._quoted = self._escaped or char != '"'
                self._escaped = char == "\\" and not self._escaped
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
            if not self._began and not char.isspace():
                self._began, self._broken = True, char != "{"


def readable(raw: str, *, cut: bool = False) -> str:
    """Return the arguments as the text of a JSON object; as they came when they cannot be read as one.

    `cut` says that the model was stopped in the middle of them, so nothing is added to make them whole.
    """
    text = raw.strip()
    if not text and not cut:
        return "{}"
    for attempt in _readings(text, cut=cut):
        found, whole = _object(attempt)
        if found is not None and not too_deep(found):
            return (
                text if whole and attempt is text and _is_strict(text) else clean(json.dumps(found, ensure_ascii=False))
            )
    return text


def finished(answer: Generation, *, objects: bool = False) -> Generation:
    """Read the arguments of the calls of a whole answer, which is returned.

    An answer that was cut ends within its last part. A call there is executed if its arguments came as the text of a
    whole object, for nothing can follow that. Where a vendor's whole answers carry `objects`, which look whole wherever
    they were cut, no such call is executed, streamed or not: its arguments stay a text that is no object.
    """
    last = len(answer.parts) - 1
    for at, part in enumerate(answer.parts):
        if part.HasField("tool_call"):
            cut = answer.finish_reason == FinishReason.FINISH_REASON_LENGTH and at == last
            text = readable(part.tool_call.input, cut=cut)
            part.tool_call.input = _open(text) if cut and (objects or not text) else text
    return answer


def _open(text: str) -> str:
    """Return arguments so that nobody takes them for a whole object."""
    return text[:-1] if json_object(text) is not None else text or "{"


def text_of(raw: Any) -> str:
    """Return arguments as text, however a server writes them."""
    if raw is None:
        return ""
    return raw if isinstance(raw, str) else json.dumps(raw, ensure_ascii=False)


def _object(text: str, *, twice: bool = True) -> tuple[Json | None, bool]:
    """Return the object that a text is or begins with, for models write a second one behind it; and if it is all."""
    try:
        value, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        return None, False
    if isinstance(value, str) and twice and end == len(text):  # encoded twice
        return (_object(value.strip(), twice=False)[0], False) if value.strip() else ({}, False)
    follows = text[end:].lstrip()
    if not isinstance(value, dict) or (follows and not follows.startswith("{")):
        return None, False
    return value, not follows


def _readings(text: str, *, cut: bool) -> list[str]:
    """Return the text and the repairs that cannot change its meaning."""
    bare = match[1] if (match := _FENCE.match(text)) else text
    tidy = _TRAILING_COMMA.sub(r"\1", bare)
    return [text, bare, tidy] if cut else [text, bare, tidy, _closed(tidy)]


def _closed(text: str) -> str:
    """Close what a text left open, unless it ends inside a string."""
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
    """Say whether the text has no raw control characters and nothing that only Python's reader accepts."""
    return text.isprintable() and "NaN" not in text and "Infinity" not in text and not _HUGE.search(text)
