"""Messages of chat completions for servers whose templates want users and assistants to take turns."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

Json = dict[str, Any]
_THOUGHTS = "reasoning_content"
_NOBODY: Json = {"role": "user", "content": "..."}
"""What a user says where the assistant would begin."""


def joined(messages: Iterable[Json]) -> list[Json]:
    """Return messages in which neighbours of one role are one, system messages come first alone, and the user begins.

    Results of tools stay apart, for each answers a call of its own.
    """
    found: list[Json] = []
    for message in messages:
        late = message["role"] == "system" and any(each["role"] != "system" for each in found)
        told = {**message, "role": "user"} if late else message
        if found and found[-1]["role"] == told["role"] != "tool":
            found[-1] = _both(found[-1], told)
        else:
            found.append(told)
    begin = 1 if found and found[0]["role"] == "system" else 0
    if len(found) > begin and found[begin]["role"] == "assistant":
        found.insert(begin, _NOBODY)
    return found


def _both(one: Json, other: Json) -> Json:
    """Return two messages of one role as one."""
    whole = {**one, "content": _contents(one["content"], other["content"])}
    if calls := [*one.get("tool_calls", ()), *other.get("tool_calls", ())]:
        whole["tool_calls"] = calls
    if thoughts := "\n".join(each[_THOUGHTS] for each in (one, other) if _THOUGHTS in each):
        whole[_THOUGHTS] = thoughts
    return whole


def _contents(one: Any, other: Any) -> Any:
    if isinstance(one, list) or isinstance(other, list):
        return [*_rows(one), *_rows(other)]
    return "\n".join(filter(None, (one, other))) or one


def _rows(content: Any) -> list[Json]:
    if isinstance(content, list):
        return content
    return [{"type": "text", "text": content}] if content else []
