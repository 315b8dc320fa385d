"""What people do with an agent server, as units whose cost is measured: messages, tools, streams, screens, crowds.

Every scenario speaks REST, so that any server of it can be measured the same way.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any

from benchmarks.http_client import HttpClient
from benchmarks.stacks import Stack
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Say

ECHO, PACED = "builtin/echo", "lmstudio/gpt-4o-mini"
"""A model that takes no time, and one that says a piece each `PACE_SECONDS`."""
LENGTHS = (10, 100, 1000)
"""Messages in context."""
WARM, COUNT = 2, 12
"""Units of a scenario that are not counted, and that are."""
WINDOW = 1_000_000
TOKENS, PACE_SECONDS, PIECE = 100, 0.02, 5
"""Of a streamed answer: pieces, time between two of them, characters of one."""
LISTED = 50
PASSAGES = 100
CLIENTS = 64
VENDORS = {
    "openai_chat": "openai/gpt-4o-mini",
    "openai_responses": "bench-responses/gpt-4.1",
    "anthropic": "anthropic/claude-haiku-4-5-20251001",
    "google": "bench-google/gemini-2.5-flash",
    "compatible": "vllm/gpt-4o-mini",
}
"""Wires of vendors, and the model that is asked over each."""
TOOL = """def count(text: str) -> int:
    '''Count letters.

    Args:
        text: The text.
    '''
    return len(text)
"""
CALLS = {
    "memory_tool": 'CALL memory_insert {"label": "human", "new_string": "Likes tea."}',
    "python_tool": 'CALL count {"text": "tea"}',
}

Figures = dict[str, float]
Unit = Callable[[], Awaitable[Any]]


class Meter:
    """Measures units of work by the clock and, of a stack of ours, by its processor time."""

    def __init__(self, stack: Stack | None = None) -> None:
        self._stack = stack

    async def cost(self, unit: Unit, count: int = COUNT, warm: int = WARM, per: int = 1) -> Figures:
        """Run a unit so often; return milliseconds a unit, or a `per`-th of one."""
        for _ in range(warm):
            await unit()
        before, taken = self._stack and self._stack.cpu(), []
        for _ in range(count):
            begun = time.perf_counter()
            await unit()
            taken.append((time.perf_counter() - begun) * 1000 / per)
        found = {"p50_ms": statistics.median(taken), "p99_ms": sorted(taken)[int(len(taken) * 0.99)]}
        return found | self._cpu(before, count * per)

    def _cpu(self, before: Any, units: float) -> Figures:
        if self._stack is None or before is None:
            return {}
        used = self._stack.cpu().since(before)
        return {"python_ms": used.python * 1000 / units, "postgres_ms": used.postgres * 1000 / units}

    async def crowd(self, units: list[Unit], seconds: float) -> Figures:
        """Run units side by side for a time; return units a second, latency and cost of one."""
        taken: list[float] = []
        before, begun = self._stack and self._stack.cpu(), time.perf_counter()

        async def work(unit: Unit) -> None:
            while (start := time.perf_counter()) < begun + seconds:
                await unit()
                taken.append((time.perf_counter() - start) * 1000)

        await asyncio.gather(*map(work, units))
        cuts = statistics.quantiles(taken, n=100)
        found = {"per_second": len(taken) / (time.perf_counter() - begun), "p50_ms": cuts[49], "p99_ms": cuts[98]}
        return found | self._cpu(before, len(taken))


@asynccontextmanager
async def vendors() -> AsyncIterator[Mapping[str, str]]:
    """Run servers of zero latency that speak the vendors' wires; yield the environment that leads to them."""
    async with AsyncExitStack() as ends:
        openai, anthropic, google = [
            await ends.enter_async_context(kind(record=False)) for kind in (OpenAIServer, AnthropicServer, GoogleServer)
        ]
        paced = await ends.enter_async_context(OpenAIServer(record=False))
        paced.respond = lambda _: Say("x" * PIECE * TOKENS, piece=PIECE, pause=PACE_SECONDS)
        yield {
            "OPENAI_BASE_URL": openai.base_url,
            "OPENAI_API_KEY": "k",
            "ANTHROPIC_BASE_URL": anthropic.base_url,
            "ANTHROPIC_API_KEY": "k",
            "VLLM_BASE_URL": openai.base_url,
            "LMSTUDIO_BASE_URL": paced.base_url,
            "BENCH_GOOGLE_URL": google.base_url,
        }


async def bring_providers(client: HttpClient, environment: Mapping[str, str]) -> None:
    """Make the providers that no setting configures."""
    places = {
        "bench-responses": ("openai-responses", "OPENAI_BASE_URL"),
        "bench-google": ("google_ai", "BENCH_GOOGLE_URL"),
    }
    for name, (kind, variable) in places.items():
        body = {"name": name, "provider_type": kind, "api_key": "k", "base_url": environment[variable]}
        await client.call("POST", "/v1/providers/", body)


async def new_agent(client: HttpClient, model: str, **more: Any) -> str:
    """Create an agent with two blocks and return its id."""
    blocks = [{"label": "human", "value": "Name: Sam."}, {"label": "persona", "value": "I am brief."}]
    body = {"model": model, "memory_blocks": blocks, "context_window_limit": WINDOW, **more}
    return str((await client.call("POST", "/v1/agents/", body))["id"])


async def send(client: HttpClient, agent_id: str, text: str = "What is my name?") -> None:
    """Send one message and check that it was answered."""
    body = {"messages": [{"role": "user", "content": text}]}
    answer = await client.call("POST", f"/v1/agents/{agent_id}/messages", body)
    if answer["stop_reason"]["stop_reason"] != "end_turn":
        raise RuntimeError(f"unexpected answer: {answer}")


async def messages(
    client: HttpClient, meter: Meter, models: Mapping[str, str], filler: str = ECHO
) -> dict[str, Figures]:
    """Measure a message by model and by messages in context; `filler` is the model that fills the context."""
    found = {}
    for length in LENGTHS:
        agent_id = ""
        for name, model in models.items():
            if not agent_id or length < 5 * COUNT:  # a short context would grow too much for another model
                agent_id = await new_agent(client, filler)
                for _ in range(length // 2):
                    await send(client, agent_id)
            await client.call("PATCH", f"/v1/agents/{agent_id}", {"model": model, "context_window_limit": WINDOW})
            found[f"message/{name}/{length}"] = await meter.cost(partial(send, client, agent_id))
    return found


async def tools(client: HttpClient, meter: Meter, model: str) -> dict[str, Figures]:
    """Measure a message with one call of a memory tool, and one of a Python tool of the user's own."""
    made = await client.call("PUT", "/v1/tools/", {"source_code": TOOL, "source_type": "python"})
    agent_id = await new_agent(client, model, tool_ids=[made["id"]])
    return {f"message/{name}": await meter.cost(partial(send, client, agent_id, text)) for name, text in CALLS.items()}


async def streams(
    client: HttpClient, meter: Meter, model: str, at_once: tuple[int, ...] = (1, 16)
) -> dict[str, Figures]:
    """Measure a token of streams whose vendor says one each `PACE_SECONDS`."""
    found = {}
    for number in at_once:
        async with AsyncExitStack() as ends:
            listeners = [
                (await ends.enter_async_context(client.another()), await new_agent(client, model))
                for _ in range(number)
            ]
            unit = partial(_listen_all, listeners)
            found[f"token/{number}_streams"] = await meter.cost(unit, count=2, warm=1, per=number * TOKENS)
    return found


async def _listen_all(listeners: Sequence[tuple[HttpClient, str]]) -> None:
    await asyncio.gather(*(listen(client, agent_id) for client, agent_id in listeners))


async def listen(client: HttpClient, agent_id: str) -> None:
    """Hear one streamed answer to its end and check that it came in pieces."""
    body = {"messages": [{"role": "user", "content": "Tell me."}], "stream_tokens": True, "streaming": True}
    text = await client.read("POST", f"/v1/agents/{agent_id}/messages/stream", body)
    if text.count(b"assistant_message") < 2:
        raise RuntimeError(f"not a stream: {text[:500]!r}")


async def screens(client: HttpClient, meter: Meter, model: str = ECHO) -> dict[str, Figures]:
    """Measure what a screen asks for: one agent, a list of them, a list of passages; and making one."""
    agent_id = await new_agent(client, model)
    for number in range(LISTED):
        await new_agent(client, model, name=f"listed-{number}")
    for number in range(PASSAGES):
        await client.call("POST", f"/v1/agents/{agent_id}/archival-memory", {"text": f"Fact {number}: Sam likes tea."})
    paths = {
        "agent/retrieve": f"/v1/agents/{agent_id}",
        f"agent/list_{LISTED}": f"/v1/agents/?limit={LISTED}",
        f"passage/list_{PASSAGES}": f"/v1/agents/{agent_id}/archival-memory?limit={PASSAGES}",
    }
    found = {"agent/create": await meter.cost(partial(new_agent, client, model), count=20)}
    for name, path in paths.items():
        found[name] = await meter.cost(partial(client.call, "GET", path), count=20)
    return found


async def crowd(client: HttpClient, meter: Meter, model: str, seconds: float) -> dict[str, Figures]:
    """Measure `CLIENTS` clients that talk to an agent each."""
    async with AsyncExitStack() as ends:
        units = []
        for _ in range(CLIENTS):
            one, agent_id = await ends.enter_async_context(client.another()), await new_agent(client, model)
            units.append(partial(send, one, agent_id))
        return {f"crowd/{CLIENTS}_clients": await meter.crowd(units, seconds)}
