"""A caller over HTTP, and servers of their own process whose models are the fake vendors of this process."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import httpx

from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Json, Step, Vendor
from tests.servers import RunningServer, letta_server

SCHEMAS = ("auth", "agent", "memory", "tools", "llm")
OPENAI, CLAUDE = "openai/gpt-4o-mini", "anthropic/claude-haiku-4-5-20251001"
PATIENCE = 300.0
"""Seconds after which what should happen counts as not happening."""
IMPATIENT = {
    "LETTA_LLM_GATEWAY_RETRY_PAUSE_SECONDS": "0.01",
    "LETTA_LLM_GATEWAY_FIRST_TOKEN_SECONDS": "2",
    "LETTA_LLM_GATEWAY_BETWEEN_TOKENS_SECONDS": "2",
}
"""A model gateway that gives up soon."""


class Api:
    """Letta's REST, for one caller."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http = http

    async def agent(self, model: str = OPENAI, **body: Any) -> str:
        """Make an agent and return its id."""
        made = await self.http.post("/v1/agents/", json={"model": model, **body})
        assert made.status_code == 200, made.text
        return str(made.json()["id"])

    async def send(self, agent_id: str, text: str, **body: Any) -> httpx.Response:
        """Send a message and wait for the answer."""
        return await self.http.post(f"/v1/agents/{agent_id}/messages", json={"input": text, **body})

    async def say(self, agent_id: str, text: str, **body: Any) -> Json:
        """Send a message that must be answered."""
        answer = await self.send(agent_id, text, **body)
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def begin(self, agent_id: str, text: str, **body: Any) -> Json:
        """Begin a run in the background."""
        answer = await self.http.post(f"/v1/agents/{agent_id}/messages/async", json={"input": text, **body})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def stream(self, agent_id: str, text: str, **body: Any) -> list[Json]:
        """Send a message and return the events of the answer, the error event among them."""
        path = f"/v1/agents/{agent_id}/messages/stream"
        return await self.events(path, {"input": text, "stream_tokens": True, **body})

    async def events(self, path: str, body: Json) -> list[Json]:
        """Return the events of a stream."""
        async with self.http.stream("POST", path, json=body) as response:
            if response.status_code != 200:
                raise AssertionError((await response.aread()).decode())
            return [event async for event in events_of(response)]

    async def history(self, agent_id: str) -> list[Json]:
        """Return all messages of an agent, oldest first."""
        path = f"/v1/agents/{agent_id}/messages"
        found = await self.http.get(path, params={"order": "asc", "limit": 1000})
        assert found.status_code == 200, found.text
        return list(found.json())

    async def run(self, run_id: str) -> Json:
        """Return a run."""
        return dict((await self.http.get(f"/v1/runs/{run_id}")).json())

    async def ended(self, run_id: str) -> Json:
        """Return a run once it has ended."""
        return await until(lambda: self.run(run_id), lambda run: run["status"] not in ("created", "running"))

    async def runs(self, agent_id: str) -> list[Json]:
        """Return the runs of an agent, oldest first."""
        found = await self.http.get("/v1/runs/", params={"agent_id": agent_id, "order": "asc", "limit": 1000})
        return list(found.json())

    async def running(self, agent_id: str) -> Json:
        """Return the run that an agent is in, once it is in one."""
        [run] = await until(lambda: self._running(agent_id), bool)
        return dict(run)

    async def _running(self, agent_id: str) -> list[Json]:
        return [run for run in await self.runs(agent_id) if run["status"] == "running"]


async def events_of(response: httpx.Response) -> AsyncIterator[Json]:
    """Yield the events of an SSE answer as they come; an error's has `message_type` error_message or `error`."""
    async for line in response.aiter_lines():
        data = line.removeprefix("data: ")
        if line.startswith("data: ") and data != "[DONE]":
            yield json.loads(data)


async def until(look: Callable[[], Awaitable[Any]], holds: Callable[[Any], Any], seconds: float = PATIENCE) -> Any:
    """Look again and again until what is seen holds; what was seen last explains the failure."""
    end = time.monotonic() + seconds
    while True:
        seen = await look()
        if holds(seen):
            return seen
        assert time.monotonic() < end, seen
        await asyncio.sleep(0.05)


@asynccontextmanager
async def serving(database_url: str, **options: Any) -> AsyncIterator[RunningServer]:
    """Run a server without keeping this process's fakes from answering it."""
    stack = ExitStack()
    try:
        yield await asyncio.to_thread(stack.enter_context, letta_server(database_url, **options))
    finally:
        await asyncio.to_thread(stack.close)


@asynccontextmanager
async def calling(server: RunningServer, headers: Mapping[str, str] | None = None) -> AsyncIterator[Api]:
    """Call a server."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(
        base_url=server.http_url, timeout=PATIENCE, limits=limits, headers=dict(headers or {})
    ) as http:
        yield Api(http)


def environment(*vendors: Vendor) -> dict[str, str]:
    """Return the variables that lead a server to the fakes."""
    found: dict[str, str] = {}
    for vendor in vendors:
        if isinstance(vendor, OpenAIServer):
            found |= {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": vendor.base_url}
        elif isinstance(vendor, AnthropicServer):
            found |= {"ANTHROPIC_API_KEY": "sk-ant-test", "ANTHROPIC_BASE_URL": vendor.base_url}
    return found


def texts(messages: list[Json], kind: str) -> list[str]:
    """Return the contents of the messages of a type."""
    return [str(message.get("content")) for message in messages if message["message_type"] == kind]


def orphans(messages: list[Json]) -> list[str]:
    """Return the ids of tool calls that have no return, or more than one."""
    made = [call["tool_call_id"] for message in messages for call in calls_in(message)]
    returned = Counter(
        returned["tool_call_id"]
        for message in messages
        if message["message_type"] == "tool_return_message"
        for returned in message.get("tool_returns") or [message]
    )
    return [call for call, number in Counter(made).items() if returned[call] != number]


def calls_in(message: Json) -> list[Json]:
    """Return the tool calls of a message."""
    if message["message_type"] != "tool_call_message":
        return []
    calls = message.get("tool_calls") or [message["tool_call"]]
    return list(calls if isinstance(calls, list) else [calls])


class Gate:
    """Makes a vendor wait: requests stand at the gate until it opens. Use it in `async with`."""

    def __init__(self, vendor: Vendor) -> None:
        self._vendor = vendor
        self._next = vendor.handle
        self.open = asyncio.Event()
        self.waiting = 0
        self._passes = asyncio.Semaphore(0)

    async def __aenter__(self) -> Gate:
        self._vendor.handle = self._handle  # type: ignore[method-assign]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.open.set()
        self._vendor.handle = self._next  # type: ignore[method-assign]

    async def _handle(self, request: Any, out: Any) -> None:
        if request.path.endswith("/models"):
            await self._next(request, out)
            return
        self.waiting += 1
        waits = asyncio.ensure_future(self.open.wait())
        passes = asyncio.ensure_future(self._passes.acquire())
        await asyncio.wait([waits, passes], return_when=asyncio.FIRST_COMPLETED)
        waits.cancel()
        passes.cancel()
        await self._next(request, out)

    def once(self) -> None:
        """Let one request through."""
        self._passes.release()

    async def reached(self, number: int = 1) -> None:
        """Wait until so many requests have come."""

        async def count() -> int:
            return self.waiting

        await until(count, lambda waiting: waiting >= number)


__all__ = ["Step"]
