"""Records what the REST answers while tests drive it, and compares it with what was kept.

What differs between two runs is replaced: ids by their number in order of appearance, times, durations and ports. The
rest is compared as text, so that names, their order, numbers and spaces count. Events of a stream are compared by their
kinds and keys, since how many deltas a text arrives in is not fixed.
"""

from __future__ import annotations

import difflib
import json
import re
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

KEPT = Path(__file__).parent / "data" / "rest"
_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_ID = re.compile(rf'(?:\b[a-z_]+-)?{_UUID}|\bcall_[0-9a-zA-Z]+\b|(?<="tool_call_id":")\w+')
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)?")
_DAY = re.compile(r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d [AP]M [A-Z]+[+-]\d+)?")
_WEEKDAY = re.compile(r"\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b")
_CLOCK = re.compile(r"\d\d:\d\d(?::\d\d)?(?: [AP]M)?")
_DURATION = re.compile(r'("[a-z_]*(?:_ns|_ms|_seconds|duration|latency)[a-z_]*": ?)[\d.]+')
_PORT = re.compile(r"(127\.0\.0\.1|localhost):\d+")
_MADE_UP = re.compile(r'("name": ?|agent name: |name=)"?[A-Z][a-z]+[A-Z][a-z]+\b')
_RANDOM = re.compile(r"\b[0-9a-f]{64}\b|(?<=state=)[\w%.-]+|(?<=code=)[\w%.-]+")
_VECTOR = re.compile(r'("embedding": ?)\[[^\]]*\]')
_PLACE = re.compile(rf"{re.escape(sys.executable)}|{re.escape(str(Path(__file__).parents[1]))}")
_SCORE = re.compile(r'("(?:score|rrf_score|vector_score|relevance)": ?)-?[\d.e-]+')
# The prompt names the day, and a Wednesday is longer than a Monday.
_COUNTED = re.compile(
    r'("(?:prompt_tokens|total_tokens|context_tokens|context_window_size_current'
    r'|num_tokens_system|num_tokens_external_memory_summary)": ?)\d+'
)


class Record:
    """What was asked and answered, one text a call."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self._ids: dict[str, str] = {}

    def add(self, request: httpx.Request, status: int, kind: str, body: bytes) -> None:
        """Keep one answer."""
        asked = f"{request.method} {request.url.raw_path.decode()}"
        answer = _events(body) if kind.startswith("text/event-stream") else body.decode(errors="replace")
        self.calls.append(self._neutral(f"{asked}\n{status} {kind}\n{answer}"))

    def _neutral(self, text: str) -> str:
        text = _ID.sub(lambda found: self._number(found[0]), text)
        for pattern, shown in (
            (_MADE_UP, r"\1<name>"),
            (_RANDOM, "<random>"),
            (_TIME, "<time>"),
            (_DAY, "<day>"),
            (_WEEKDAY, "<weekday>"),
            (_CLOCK, "<clock>"),
            (_DURATION, r"\g<1>0"),
            (_VECTOR, r"\1[]"),
            (_PLACE, "<place>"),
            (_SCORE, r"\g<1>0"),
            (_COUNTED, r"\g<1>0"),
            (_PORT, r"\1:<port>"),
        ):
            text = pattern.sub(shown, text)
        return text

    def _number(self, id: str) -> str:
        prefix = "uuid" if re.fullmatch(_UUID, id) else id.split("-")[0] if "-" in id else "call"
        return self._ids.setdefault(id, f"<{prefix} {len(self._ids) + 1}>")


def _events(body: bytes) -> str:
    """Return the kinds of events of a stream, each once, with their keys in order."""
    seen: dict[str, None] = {}
    for line in body.decode(errors="replace").splitlines():
        if line.startswith("data: {"):
            event = json.loads(line[6:])
            seen.setdefault(f"{event.get('message_type')}: {' '.join(event)}")
        elif line and not line.startswith("data: {"):
            seen.setdefault(line.split(": ")[0] if line.startswith("id:") else line)
    return "\n".join(seen)


@contextmanager
def recording(record: Record) -> Iterator[None]:
    """Keep what every httpx client of this process is answered to calls below `/v1/`."""
    sync, asynchronous = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request

    def handle(self: Any, request: httpx.Request) -> httpx.Response:
        response = sync(self, request)
        if _is_ours(request):
            response.stream = _Tee(record, request, response, response.stream)
        return response

    async def handle_async(self: Any, request: httpx.Request) -> httpx.Response:
        response = await asynchronous(self, request)
        if _is_ours(request):
            response.stream = _AsyncTee(record, request, response, response.stream)
        return response

    httpx.HTTPTransport.handle_request = handle  # type: ignore[method-assign]
    httpx.AsyncHTTPTransport.handle_async_request = handle_async  # type: ignore[method-assign]
    try:
        yield
    finally:
        httpx.HTTPTransport.handle_request = sync  # type: ignore[method-assign]
        httpx.AsyncHTTPTransport.handle_async_request = asynchronous  # type: ignore[method-assign]


def _is_ours(request: httpx.Request) -> bool:
    return request.url.host in ("127.0.0.1", "localhost") and request.url.path.startswith("/v1/")


class _Tee(httpx.SyncByteStream):
    def __init__(self, record: Record, request: httpx.Request, response: httpx.Response, inner: Any) -> None:
        self._keep = (record, request, response)
        self._inner = inner
        self._body = b""

    def __iter__(self) -> Iterator[bytes]:
        for part in self._inner:
            self._body += part
            yield part

    def close(self) -> None:
        self._inner.close()
        _finish(self._keep, self._body)


class _AsyncTee(httpx.AsyncByteStream):
    def __init__(self, record: Record, request: httpx.Request, response: httpx.Response, inner: Any) -> None:
        self._keep = (record, request, response)
        self._inner = inner
        self._body = b""

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            self._body += part
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()
        _finish(self._keep, self._body)


def _finish(keep: tuple[Record, httpx.Request, httpx.Response], body: bytes) -> None:
    record, request, response = keep
    if response.headers.get("content-encoding", "identity") == "identity":
        record.add(request, response.status_code, response.headers.get("content-type", ""), body)


def compare(name: str, record: Record, *, renew: bool) -> None:
    """Hold a record against the one kept under this name; keep it instead when asked."""
    path = KEPT / f"{name}.txt"
    text = "\n\n".join(record.calls) + "\n"
    if renew:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    else:
        assert path.exists(), f"no record {name} is kept; keep one with LETTA_RENEW_RECORDS=1"
        kept = path.read_text()
        lines = difflib.unified_diff(kept.splitlines(), text.splitlines(), "kept", "now", lineterm="", n=0)
        assert kept == text, "the REST answers otherwise than before:\n" + "\n".join(line[:2000] for line in lines)
