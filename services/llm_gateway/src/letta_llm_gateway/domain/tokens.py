"""Counting tokens roughly, where the vendor does not say."""

from __future__ import annotations

from collections.abc import Iterable

from letta_llm_gateway.domain.answers import Part, Reasoning, RedactedReasoning, Text, ToolCall

_BYTES_A_TOKEN = 4


def of_bytes(size: int) -> int:
    """Return the tokens of a text of this size in UTF-8."""
    return -(-size // _BYTES_A_TOKEN)


def of_parts(parts: Iterable[Part]) -> int:
    """Return the tokens of an answer."""
    size = 0
    for part in parts:
        match part:
            case Text(text):
                size += len(text.encode())
            case Reasoning(reasoning):
                size += len(reasoning.encode())
            case RedactedReasoning(data):
                size += len(data)
            case ToolCall(_, name, arguments):
                size += len(name.encode()) + len(arguments.encode())
    return of_bytes(size)
