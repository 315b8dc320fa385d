"""What the model gateway itself costs: CPU of a call by history, CPU of a delta, memory of 500 streams at once.

`python -m benchmarks.llm_gateway`; the last line is JSON, also kept in `benchmarks/out/llm_gateway.json`. The vendor is
a process of its own; the gateway, its whole service behind an in-process channel, is alone with its caller in this one.
CPU is this process's, as differences within one run; the ratios to a bare gRPC call hold on busy machines too.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc.aio
import httpx2
import structlog
import uvloop
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1.generation_service_pb2_grpc import GenerationServiceStub
from letta_common.actor import Actor, Request, bind_request
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account, Provider
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import GatewayStores, assemble
from letta_rpc.client import streaming
from letta_rpc.service import Deps
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeProviderStore, FakeUsageStore
from tests.support.rpc import Identities, running

OUT = Path(__file__).parent / "out" / "llm_gateway.json"
MODEL = "gpt-4o-mini"
PIECE = 8
"""Characters of a delta of the fake vendor."""
DELTAS = 1500
ROUNDS = 7
CALLS = 100
STREAMS = (100, 500)
PACE_SECONDS = 0.3
PACED_DELTAS = 30
LONG_ROUNDS = 5
HISTORIES = (10, 100, 1000)
"""Messages in the prompts of calls whose cost is compared by length."""
HISTORY_CALLS = 20
WIRES = {
    "openai": ("openai_server", "OpenAIServer", "gpt-4o-mini"),
    "openai-responses": ("openai_server", "OpenAIServer", "gpt-5"),
    "vllm": ("openai_server", "OpenAIServer", "llama"),
    "anthropic": ("anthropic_server", "AnthropicServer", "claude-sonnet-4-5"),
    "google_ai": ("google_server", "GoogleServer", "gemini-2.5-flash"),
    "bedrock": ("bedrock_server", "BedrockServer", "anthropic.claude-sonnet-4-5"),
}
"""Fake vendor and model of each type of provider."""
_SERVE = """
import asyncio, sys
from tests.fakes.{0} import {1}
from tests.fakes.wire import Say
async def main():
    server = {1}(record=False)
    server.respond = lambda body: Say("Yes.")
    await server.start()
    print(server.base_url, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


class Books(FakeUsageStore):
    """Books that keep nothing, so that memory is the gateway's."""

    async def add(self, *_: Any) -> None:
        """Forget."""


def prompt(model: str, text: str = "hi") -> pb.Prompt:
    """Return a prompt of one message."""
    said = m.Message(role=m.MESSAGE_ROLE_USER, parts=[m.ContentPart(text=m.TextContent(text=text))])
    return pb.Prompt(model=model, messages=[said.SerializeToString()])


@asynccontextmanager
async def vendor(text: str, pause: float = 0.0) -> AsyncIterator[str]:
    """Run a fake of OpenAI in a process of its own and yield its address."""
    command = [sys.executable, "-m", "tests.fakes.openai_server", "--port", "0", "--text", text, "--pause", str(pause)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def gateway(base_url: str, transport: str = "local") -> AsyncIterator[Caller]:
    """Run the service and yield a caller of it."""
    with tempfile.TemporaryDirectory() as home:
        settings = LLMGatewaySettings(
            home=Path(home),
            openai_api_key="k",  # type: ignore[arg-type]
            openai_base_url=base_url,
            ollama_probe=False,
            dev_mode=True,
            attempts=1,
        )
        books, identities = Books(), Identities()
        service = assemble(settings, Deps(), GatewayStores(FakeProviderStore(), books, FakeBudgetStore(books)))
        async with running(service, transport, identities=identities) as channel:
            yield Caller(GenerationServiceStub(channel), identities)


class Caller:
    """Who calls the gateway; a signed actor is good for a minute, so each call takes a new one."""

    def __init__(self, stub: Any, identities: Identities) -> None:
        self._stub, self._identities = stub, identities
        self._signed, self._until = b"", 0.0

    async def generate(self, asked: pb.Prompt | None = None) -> None:
        """Ask once."""
        self._renew()
        await self._stub.Generate(pb.GenerateRequest(prompt=asked or prompt(f"openai/{MODEL}")), timeout=20)

    async def listen(self) -> int:
        """Stream once and return how many events came."""
        self._renew()
        number = 0
        request = pb.StreamGenerateRequest(prompt=prompt(f"openai/{MODEL}"))
        async with streaming(self._stub.StreamGenerate(request, timeout=120)) as events:
            async for _ in events:
                number += 1
        return number

    def _renew(self) -> None:
        if time.monotonic() > self._until:
            self._signed = self._identities.sign(Actor("org-bench", "user-bench"))
            self._until = time.monotonic() + 20
        bind_request(Request(signed_actor=self._signed))


async def cpu_ms(unit: Callable[[], Awaitable[Any]], times: int) -> float:
    """Return the CPU milliseconds of this process for one of so many."""
    begun = time.process_time()
    for _ in range(times):
        await unit()
    return (time.process_time() - begun) * 1000 / times


async def in_turns(units: dict[str, Callable[[], Awaitable[Any]]], times: int) -> dict[str, list[float]]:
    """Measure units in turns, so that a noisy moment strikes all of them."""
    for unit in units.values():
        await cpu_ms(unit, max(2, times // 10))
    found: dict[str, list[float]] = {name: [] for name in units}
    for _ in range(ROUNDS):
        for name, unit in units.items():
            found[name].append(await cpu_ms(unit, times))
    return found


def more(found: dict[str, list[float]], one: str, other: str) -> float:
    """Return how much more one costs than the other, by the median of the rounds."""
    return statistics.median(a - b for a, b in zip(found[one], found[other], strict=True))


async def calls() -> dict[str, float]:
    """Measure unary calls: a bare gRPC call, the SDK alone, the gateway in process, the gateway over the network."""
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(vendor("Yes."))
        server = grpc.aio.server()
        health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        stack.push_async_callback(server.stop, None)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(f"127.0.0.1:{port}"))
        probe = health_pb2_grpc.HealthStub(channel)
        factory = ProviderFactory(BuiltinProvider())
        stack.push_async_callback(factory.close)
        alone = await factory.provider(Account("openai", "openai", "k", address))
        local = await stack.enter_async_context(gateway(address))
        asked = prompt(f"openai/{MODEL}")
        found = await in_turns(
            {
                "bare": lambda: probe.Check(health_pb2.HealthCheckRequest(), timeout=5),
                "sdk": lambda: alone.generate(Call(MODEL, asked)),
                "local": local.generate,
            },
            CALLS,
        )
        remote = await stack.enter_async_context(gateway(address, "network"))
        found |= await in_turns(
            {
                "sdk again": lambda: alone.generate(Call(MODEL, asked)),
                "network": remote.generate,
            },
            CALLS,
        )
    bare = statistics.median(found["bare"])
    added, over_network = more(found, "local", "sdk"), more(found, "network", "sdk again")
    return {
        "bare_grpc_call_cpu_ms": round(bare, 3),
        "sdk_call_cpu_ms": round(statistics.median(found["sdk"]), 3),
        "gateway_call_cpu_ms": round(added, 3),
        "gateway_call_network_cpu_ms": round(over_network, 3),
        "gateway_call_over_bare": round(added / bare, 2),
        "gateway_call_network_over_bare": round(over_network / bare, 2),
    }


async def deltas(bare_ms: float) -> dict[str, float]:
    """Measure a delta: HTTP read, event read, put together, joined, sent; and the HTTP read alone."""
    async with vendor("x" * PIECE * DELTAS) as address, gateway(address) as caller, httpx2.AsyncClient() as http:
        body = {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "hi"}]}

        async def read() -> None:
            async with http.stream("POST", f"{address}/chat/completions", json=body) as response:
                async for _ in response.aiter_bytes():
                    pass

        found = await in_turns({"http": read, "gateway": caller.listen}, 2)
    whole = statistics.median(found["gateway"]) / DELTAS * 1000
    added = more(found, "gateway", "http") / DELTAS * 1000
    return {
        "delta_cpu_us": round(whole, 1),
        "delta_cpu_us_without_http": round(added, 1),
        "delta_over_bare_call": round(whole / bare_ms / 1000, 3),
    }


def conversation(model: str, length: int) -> pb.Prompt:
    """Return a prompt of so many messages: users ask, the model calls a tool, reads what it returns, and answers."""
    said = []
    for at in range(length - 1):
        text = m.ContentPart(text=m.TextContent(text=f"This is message {at} of a conversation; it says a little more."))
        call_id = f"call{at // 4:05d}"
        match at % 4:
            case 0:
                message = m.Message(role=m.MESSAGE_ROLE_USER, parts=[text])
            case 1:
                wish = m.ToolCallContent(id=call_id, name="archival_memory_search", input='{"query": "a word"}')
                message = m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[m.ContentPart(tool_call=wish)])
            case 2:
                found = m.ToolReturnContent(tool_call_id=call_id, name="archival_memory_search", content="Nothing.")
                message = m.Message(role=m.MESSAGE_ROLE_TOOL, parts=[m.ContentPart(tool_return=found)])
            case _:
                message = m.Message(role=m.MESSAGE_ROLE_ASSISTANT, parts=[text])
        said.append(kept(at, message))
    last = m.ContentPart(text=m.TextContent(text="hi"))
    said.append(kept(length, m.Message(role=m.MESSAGE_ROLE_USER, parts=[last])))
    return pb.Prompt(model=model, system="You are kind. " * 100, messages=said)


@asynccontextmanager
async def wire(kind: str) -> AsyncIterator[str]:
    """Run the fake vendor of a type of provider in a process of its own and yield its address."""
    code = _SERVE.format(*WIRES[kind])
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


def kept(at: int, message: m.Message) -> bytes:
    """Return a message as it is kept, with its ids."""
    message.id, message.run_id, message.step_id = f"message-{at:036d}", f"run-{at:036d}", f"step-{at:036d}"
    message.created_at.seconds = 1_790_000_000 + at
    return message.SerializeToString()


@asynccontextmanager
async def account_of(kind: str, address: str) -> AsyncIterator[Provider]:
    """Make the provider of an account."""
    factory = ProviderFactory(BuiltinProvider())
    try:
        yield await factory.provider(Account(kind, kind, "k", address, region="us-east-1"))
    finally:
        await factory.close()


async def whole_histories() -> dict[str, float]:
    """Measure a call of the whole service by length of history, on OpenAI's chat completions."""
    async with wire("openai") as address, gateway(address) as caller:
        units = {}
        for length in HISTORIES:
            asked = conversation(f"openai/{MODEL}", length)
            units[str(length)] = lambda asked=asked: caller.generate(asked)
        found = await in_turns(units, HISTORY_CALLS)
    return {name: round(statistics.median(each), 2) for name, each in found.items()}


async def histories() -> dict[str, Any]:
    """Measure a call from the bytes of its request on, by provider and length of history."""
    told: dict[str, Any] = {}
    for kind, (_, _, model) in WIRES.items():
        async with wire(kind) as address, account_of(kind, address) as provider:
            units = {}
            for length in HISTORIES:
                data = pb.GenerateRequest(prompt=conversation(f"{kind}/{model}", length)).SerializeToString()

                async def call(data: bytes = data, model: str = model) -> None:
                    asked = pb.GenerateRequest.FromString(data).prompt
                    await provider.generate(Call(model, asked))

                units[str(length)] = call
            found = await in_turns(units, HISTORY_CALLS)
        spent = {name: round(statistics.median(each), 2) for name, each in found.items()}
        few, many = HISTORIES[0], HISTORIES[-1]
        slope = more(found, str(many), str(few)) * 1000 / (many - few)
        told[kind] = {"cpu_ms_by_messages": spent, "us_a_message": round(slope, 2)}
    return told


def resident_mb() -> float:
    """Return the resident memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


async def crowd(caller: Caller, streams: int) -> tuple[float, int]:
    """Run streams at once; return resident megabytes while all of them run, and how many failed."""
    tasks = []
    for at in range(streams):
        tasks.append(asyncio.create_task(caller.listen()))
        if at % 25 == 24:
            await asyncio.sleep(0.05)
    await asyncio.sleep(1.0)
    peak = resident_mb()
    ends = await asyncio.gather(*tasks, return_exceptions=True)
    gc.collect()
    return peak, sum(isinstance(end, BaseException) for end in ends)


async def streams() -> dict[str, Any]:
    """Measure the memory of streams at once, and the CPU of a whole paced stream."""
    async with vendor("x" * PIECE * PACED_DELTAS, PACE_SECONDS) as address, gateway(address) as caller:
        await crowd(caller, 20)
        idle = resident_mb()
        few, failed = await crowd(caller, STREAMS[0])
        rounds, busy = [], 0.0
        for _ in range(LONG_ROUNDS):
            begun = time.process_time()
            peak, missed = await crowd(caller, STREAMS[1])
            failed += missed
            busy += time.process_time() - begun
            rounds.append({"peak_mb": round(peak, 1), "after_mb": round(resident_mb(), 1)})
    growth = rounds[0]["peak_mb"] - few
    return {
        "streams": STREAMS[1],
        "failed_streams": failed,
        "idle_mb": round(idle, 1),
        f"peak_mb_at_{STREAMS[0]}": round(few, 1),
        "rounds": rounds,
        "kb_per_stream": round(growth * 1024 / (STREAMS[1] - STREAMS[0]), 1),
        "growth_mb_after_first_round": round(rounds[-1]["after_mb"] - rounds[0]["after_mb"], 1),
        "stream_cpu_ms": round(busy * 1000 / (LONG_ROUNDS * STREAMS[1]), 2),
    }


async def measured() -> dict[str, Any]:
    """Measure everything."""
    first = await calls()
    by_length = {"call_cpu_ms_by_messages": await whole_histories(), "histories": await histories()}
    return {**first, **by_length, **await deltas(first["bare_grpc_call_cpu_ms"]), **await streams()}


def main() -> None:
    """Measure, print, and write JSON."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    result = uvloop.run(measured())
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
