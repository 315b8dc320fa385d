"""Answers as a vendor's wire has them, changed by a test before they go out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from enum import Enum
from typing import Any

from tests.fakes import anthropic_server, bedrock_server, google_server, openai_responses, openai_server
from tests.fakes.wire import Fault, Json, Say

Change = Callable[[str, Any], Any]
"""Gets a key and its value, and gives the value that goes out, or DROP."""


class Gone(Enum):
    """The value of a field that does not go out."""

    DROP = "dropped"


DROP = Gone.DROP
USAGE = frozenset(
    {
        *("prompt_tokens", "completion_tokens", "total_tokens", "input_tokens", "output_tokens"),
        *("promptTokenCount", "candidatesTokenCount", "totalTokenCount"),
        *("inputTokens", "outputTokens", "totalTokens"),
    }
)
"""Keys of counts of tokens, on all wires."""
_BODY = {"model": "m"}


def whole(kind: str, said: Say) -> Json:
    """Return a whole answer of a wire."""
    if kind == "anthropic":
        return anthropic_server.whole(said)
    if kind == "google_ai":
        return google_server.whole(said)
    if kind == "bedrock":
        return bedrock_server.whole(said)
    return openai_responses.whole(said, _BODY) if kind == "openai-responses" else openai_server.whole(said, _BODY)


def events(kind: str, said: Say) -> list[tuple[str, Any]]:
    """Return the events of a stream of a wire: their kinds and bodies; a text is no JSON, as an end mark."""
    if kind == "bedrock":
        return list(bedrock_server.events_of(said))
    if kind == "anthropic":
        frames = anthropic_server.frames_of(said)
    elif kind == "google_ai":
        frames = google_server.frames_of(said)
    else:
        made = openai_responses.frames_of(said, _BODY) if kind == "openai-responses" else openai_server.frames_of(said)
        frames = made
    return [_event(frame.decode()) for frame in frames]


def framed(kind: str, event: str, body: Any) -> bytes:
    """Return one event as it goes out."""
    if kind == "bedrock":
        return bedrock_server.frame(event, body if isinstance(body, bytes) else json.dumps(body).encode())
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {body if isinstance(body, str) else json.dumps(body)}\n\n".encode()


def changed(value: Any, change: Change, key: str = "") -> Any:
    """Return a JSON value in which every field went through a change, outer ones first."""
    if key:
        given, value = value, change(key, value)
        if value is not given:
            return value
    if isinstance(value, dict):
        inner = ((name, changed(each, change, name)) for name, each in value.items())
        return {name: each for name, each in inner if each is not DROP}
    return [changed(each, change) for each in value] if isinstance(value, list) else value


def keys_of(value: Any) -> set[str]:
    """Return the keys of all fields of a JSON value."""
    found: set[str] = set()

    def note(key: str, held: Any) -> Any:
        found.add(key)
        return held

    changed(value, note)
    return found


def raw(kind: str, pieces: Iterable[bytes], *, stream: bool, content_type: str = "") -> Fault:
    """Return the step of a script that sends these bytes."""
    streamed = "application/vnd.amazon.eventstream" if kind == "bedrock" else "text/event-stream"
    usual = streamed if stream else "application/json"
    return Fault("raw", 200, headers={"content-type": content_type or usual}, pieces=pieces)


def answer(kind: str, said: Say, change: Change, *, stream: bool) -> Fault:
    """Return the step of a script that sends a changed answer."""
    if not stream:
        return raw(kind, [json.dumps(changed(whole(kind, said), change)).encode()], stream=False)
    rows = [(event, body if isinstance(body, str) else changed(body, change)) for event, body in events(kind, said)]
    return raw(kind, [framed(kind, event, body) for event, body in rows], stream=True)


class Endless:
    """Pieces without end, which count what was taken of them."""

    def __init__(self, first: Iterable[bytes], again: bytes, *, most: int) -> None:
        self._first, self._again, self._most = first, again, most
        self.taken = 0

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._first:
            self.taken += len(piece)
            yield piece
        while self.taken < self._most:  # so that a reader without a limit fails, and does not take all memory
            self.taken += len(self._again)
            yield self._again


def _event(frame: str) -> tuple[str, Any]:
    lines = dict(line.split(": ", 1) for line in frame.strip().splitlines())
    data = lines["data"]
    return lines.get("event", ""), json.loads(data) if data.startswith("{") else data
