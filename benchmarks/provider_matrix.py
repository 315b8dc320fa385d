"""Faults x providers: every cell must end in the right typed outcome. Then what the gateway itself costs.

`python -m benchmarks.provider_matrix`; the last line is JSON. Fake vendors on loopback, official SDKs, the whole
service behind an in-process channel. CPU figures are differences within one run: with the gateway and without.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import structlog

from letta.common.v1 import message_pb2 as m
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1 import provider_pb2, provider_service_pb2
from letta.llm.v1.generation_service_pb2_grpc import GenerationServiceStub
from letta.llm.v1.provider_service_pb2_grpc import ProviderServiceStub
from letta_common.actor import Actor, Request, bind_request
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Call
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_llm_gateway.providers.registry import ProviderFactory
from letta_llm_gateway.providers.vendors.builtin import BuiltinProvider
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_llm_gateway.wiring import GatewayStores, assemble
from letta_rpc.client import streaming
from letta_rpc.service import Deps
from tests.fakes.anthropic_server import AnthropicServer
from tests.fakes.bedrock_server import BedrockServer
from tests.fakes.google_server import GoogleServer
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeProviderStore, FakeUsageStore
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.vertex_server import VertexServer
from tests.fakes.wire import Fault, Say, Step, Vendor
from tests.support.rpc import Identities, running

WORDS = "word " * 20
FAULTS: dict[str, tuple[Callable[[], Step], str, str]] = {
    "none": (lambda: Say(WORDS), "OK", "OK"),
    "400": (lambda: Fault(status=400), "LLM_BAD_REQUEST", "LLM_BAD_REQUEST"),
    "401": (lambda: Fault(status=401), "LLM_AUTHENTICATION", "LLM_AUTHENTICATION"),
    "403": (lambda: Fault(status=403), "LLM_AUTHENTICATION", "LLM_AUTHENTICATION"),
    "402": (lambda: Fault(status=402), "LLM_INSUFFICIENT_CREDITS", "LLM_INSUFFICIENT_CREDITS"),
    "404": (lambda: Fault(status=404), "MODEL_NOT_FOUND", "MODEL_NOT_FOUND"),
    "429": (lambda: Fault(status=429, headers={"retry-after": "30"}), "LLM_RATE_LIMIT", "LLM_RATE_LIMIT"),
    "500": (lambda: Fault(status=500), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "529": (lambda: Fault(status=529), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "context": (
        lambda: Fault(status=400, body={"error": {"message": "maximum context length is 8192 tokens"}}),
        "CONTEXT_WINDOW_EXCEEDED",
        "CONTEXT_WINDOW_EXCEEDED",
    ),
    "reset": (lambda: Fault("reset"), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "reset mid-stream": (lambda: _mid("reset"), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "cut mid-stream": (lambda: _mid("cut"), "LLM_UNAVAILABLE", "LLM_INVALID_RESPONSE"),
    "error mid-stream": (lambda: _mid("error"), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "hang": (lambda: Fault("hang"), "LLM_TIMEOUT", "LLM_TIMEOUT"),
    "hang mid-stream": (lambda: _mid("hang"), "LLM_TIMEOUT", "LLM_TIMEOUT"),
    "hang after headers": (lambda: Fault("headers"), "LLM_TIMEOUT", "LLM_TIMEOUT"),
    "endless": (lambda: Say("word " * 4000, piece=5, pause=0.02), "OK", "LLM_TIMEOUT"),
    "slow drip": (lambda: Say(WORDS, piece=20, pause=0.05), "OK", "OK"),
    "garbage": (lambda: Fault("garbage"), "LLM_INVALID_RESPONSE", "LLM_INVALID_RESPONSE"),
    "garbage mid-stream": (lambda: _mid("garbage"), "LLM_INVALID_RESPONSE", "LLM_INVALID_RESPONSE"),
    "10 MB chunk": (lambda: _mid("huge"), "LLM_INVALID_RESPONSE", "LLM_INVALID_RESPONSE"),
    "truncated JSON": (lambda: Fault("truncated"), "LLM_INVALID_RESPONSE", "LLM_INVALID_RESPONSE"),
    "short body": (lambda: Fault("short"), "LLM_UNAVAILABLE", "LLM_UNAVAILABLE"),
    "bad arguments": (
        lambda: Say(calls=[("look", '{"x": "cut in the te')]),
        "OK",
        "OK",
    ),
    "empty": (lambda: Fault("empty"), "LLM_INVALID_RESPONSE", "LLM_INVALID_RESPONSE"),
}
AWAY = {"connection refused": "LLM_UNAVAILABLE", "no TLS": "LLM_UNAVAILABLE"}
"""Faults of the address: nobody listens there, or it speaks no TLS."""
GOOGLES = frozenset({"my-google", "my-vertex"})
WHOLE_CALLS = frozenset({"anthropic", "bedrock"}) | GOOGLES
"""Providers whose wire has arguments as an object, at least in a whole answer: these cannot be cut."""
MODELS = {
    "openai": "openai/gpt-4o-mini",
    "my-responses": "my-responses/gpt-4.1",
    "my-azure": "my-azure/gpt-4.1",
    "anthropic": "anthropic/claude-haiku-4-5-20251001",
    "bedrock": "bedrock/anthropic.claude-sonnet-4-5-v1:0",
    "my-google": "my-google/gemini-2.5-flash",
    "my-vertex": "my-vertex/gemini-2.5-flash",
    "ollama": "ollama/gpt-4o-mini",
    "vllm": "vllm/gpt-4o-mini",
}
SERVERS: dict[str, Any] = {
    "anthropic": AnthropicServer,
    "bedrock": BedrockServer,
    "my-google": GoogleServer,
    "my-vertex": VertexServer,
}
OWN = {"my-responses": "openai-responses", "my-azure": "azure", "my-google": "google_ai", "my-vertex": "google_vertex"}
"""Providers that an organization brings, and their types."""


def _mid(kind: str) -> Say:
    return Say(WORDS, piece=5, fault=Fault(kind), pieces_before_fault=8)


def prompt(model: str, text: str = "hi") -> pb.Prompt:
    """Return a prompt of one message."""
    said = m.Message(role=m.MESSAGE_ROLE_USER, parts=[m.ContentPart(text=m.TextContent(text=text))])
    return pb.Prompt(model=model, messages=[said.SerializeToString()])


class Bench:
    """A gateway with a fake vendor for each provider."""

    def __init__(self, stub: Any, vendors: dict[str, Vendor], renew: Callable[[], None]) -> None:
        self.stub = stub
        self.vendors = vendors
        self.renew = renew

    async def unary(self, model: str) -> str:
        """Generate once and return how it ended."""
        request = pb.GenerateRequest(prompt=prompt(model))
        return await _outcome(lambda: self.stub.Generate(request, timeout=20))

    async def stream(self, model: str) -> str:
        """Stream once and return how it ended."""
        request = pb.StreamGenerateRequest(prompt=prompt(model))

        async def listen() -> None:
            async with streaming(self.stub.StreamGenerate(request, timeout=60)) as events:
                async for _ in events:
                    pass

        return await _outcome(listen)


async def _outcome(act: Callable[[], Awaitable[Any]]) -> str:
    try:
        await act()
    except AppError as error:
        return error.reason
    return "OK"


class Tally:
    """Counts cells, and keeps which ended wrongly."""

    def __init__(self) -> None:
        self.cells = 0
        self.wrong: list[str] = []

    async def row(self, fault: str, run: Callable[[str, str], Awaitable[tuple[str, str]]]) -> None:
        """Run a fault at every provider, at once and streamed; `run` says what came and what should have."""
        row = []
        for name in MODELS:
            for mode in ("unary", "stream"):
                got, expected = await run(name, mode)
                self.cells += 1
                row.append("." if got == expected else "X")
                if got != expected:
                    self.wrong.append(f"{fault}/{name}/{mode}: {got}, not {expected}")
        print(f"{fault:20} {''.join(row)}", flush=True)


async def matrix(bench: Bench, tally: Tally) -> None:
    """Run every fault of a vendor that is there."""
    for fault, (step, *_) in FAULTS.items():
        bench.renew()
        for model in MODELS.values():  # a good answer between two faults: no breaker opens, SDKs are imported
            await bench.unary(model)

        async def run(name: str, mode: str) -> tuple[str, str]:
            said = step()  # noqa: B023 run within the turn
            told = _cuttable(said, name, mode)
            _, *expectations = FAULTS["garbage"] if told is not said else FAULTS[fault]  # noqa: B023
            expected = expectations[mode == "stream"]
            bench.vendors[name].say(told)
            got = await getattr(bench, mode)(MODELS[name])
            bench.vendors[name].script.clear()
            if fault == "empty" and mode == "stream" and got == "LLM_UNAVAILABLE":  # noqa: B023
                got = expected
            return got, expected

        await tally.row(fault, run)


def _cuttable(step: Step, name: str, mode: str) -> Step:
    """Return the step as this wire can have it: an object cannot be cut, so what stands for it is garbage."""
    whole = name in GOOGLES or (name in WHOLE_CALLS and mode == "unary")
    return Fault("garbage") if isinstance(step, Say) and step.calls and whole else step


async def away(bench: Bench, fault: str, tally: Tally) -> None:
    """Run a fault of the addresses; the lists of models come from there too."""
    bench.renew()

    async def run(name: str, mode: str) -> tuple[str, str]:
        return await getattr(bench, mode)(MODELS[name]), AWAY[fault]

    await tally.row(fault, run)


async def cost_of_a_call(bench: Bench, rounds: int = 5, calls: int = 150) -> tuple[float, float]:
    """Return CPU milliseconds of a unary call: the provider alone, and what the gateway adds."""
    factory = ProviderFactory(BuiltinProvider())
    alone = await factory.provider(Account("openai", "openai", "k", bench.vendors["openai"].base_url))
    asked = prompt(MODELS["openai"])
    request = pb.GenerateRequest(prompt=asked)
    with_gateway, without = [], []
    for _ in range(rounds):
        begun = time.process_time()
        for _ in range(calls):
            await bench.stub.Generate(request, timeout=20)
        with_gateway.append((time.process_time() - begun) / calls * 1000)
        begun = time.process_time()
        for _ in range(calls):
            await alone.generate(Call("gpt-4o-mini", asked))
        without.append((time.process_time() - begun) / calls * 1000)
    await factory.close()
    return min(without), min(with_gateway) - min(without)


async def cost_of_a_delta(deltas: int = 4000) -> float:
    """Return CPU microseconds for each delta before coalescing, bytes of the vendor in, events of the gateway out."""
    from letta_llm_gateway.domain.generation.streams import Assembler, PhaseLimits, Pump, within_limits  # noqa: PLC0415
    from letta_llm_gateway.providers.wires import sse  # noqa: PLC0415
    from letta_llm_gateway.providers.wires.chat import StreamReader  # noqa: PLC0415

    chunk = {"id": "c", "choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
    last = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
    data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    end = b"data: " + json.dumps(last).encode() + b"\n\n"

    async def source() -> Any:
        async def wire() -> Any:
            for at in range(deltas):
                yield data
                if at % 50 == 0:
                    await asyncio.sleep(0)
            yield end

        reader = StreamReader(vendor="v", model="m")
        async for text in sse.events(wire(), vendor="v"):
            for event in reader.feed(json.loads(text)):
                assembler.feed(event)
                yield event
        for event in reader.end():
            yield event

    best = 1e9
    for _ in range(5):
        assembler = Assembler()
        begun = time.process_time()
        async with aclosing(Pump().run(within_limits(source(), PhaseLimits()))) as spoken:
            async for _ in spoken:
                pass
        best = min(best, (time.process_time() - begun) / deltas * 1e6)
    return best


async def many_streams(bench: Bench, streams: int = 500) -> dict[str, Any]:
    """Run streams at once, twice; return resident memory before, after the first and after the second round, in MB."""
    vendor = bench.vendors["openai"]
    vendor.respond = lambda _: Say("word " * 40, piece=5, pause=0.05)
    sizes = [_resident()]
    ends: list[str] = []
    for _ in range(3):
        ends += await asyncio.gather(*(bench.stream(MODELS["openai"]) for _ in range(streams)))
        gc.collect()
        sizes.append(_resident())
    vendor.respond = vendor.default
    return {
        "streams": streams,
        "failed": {reason: ends.count(reason) for reason in set(ends) - {"OK"}},
        "mb_before": sizes[0],
        "mb_first": sizes[1],
        "mb_last": sizes[3],
    }


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * resource.getpagesize() / (1 << 20), 1)


async def cancel_reaches_the_vendor(bench: Bench) -> float:
    """Return the milliseconds from the end of a stream's reader to the vendor's notice."""
    vendor = bench.vendors["openai"]
    vendor.gone.clear()
    vendor.say(_mid("hang"))
    request = pb.StreamGenerateRequest(prompt=prompt(MODELS["openai"]))
    async with streaming(bench.stub.StreamGenerate(request, timeout=60)) as events:
        async for _ in events:
            break
        await asyncio.sleep(0.1)
        begun = time.perf_counter()
    await asyncio.wait_for(vendor.gone.wait(), 10)
    return (time.perf_counter() - begun) * 1000


def settings_of(home: Path, addresses: dict[str, str]) -> LLMGatewaySettings:
    """Return settings under which every provider is at these addresses, and is asked once."""
    return LLMGatewaySettings(
        home=home,
        openai_api_key="k",  # type: ignore[arg-type]
        openai_base_url=addresses["openai"],
        anthropic_api_key="k",  # type: ignore[arg-type]
        anthropic_base_url=addresses["anthropic"],
        bedrock_region="us-east-1",
        bedrock_api_key="k",  # type: ignore[arg-type]
        bedrock_base_url=addresses["bedrock"],
        ollama_base_url=addresses["ollama"],
        vllm_base_url=addresses["vllm"],
        ollama_probe=False,
        private_addresses=True,
        attempts=1,
    )


def _path(url: str) -> str:
    return urlsplit(url).path


async def main() -> int:
    """Run everything."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    async with AsyncExitStack() as stack:
        vendors: dict[str, Vendor] = {}
        for name in MODELS:
            fake = SERVERS.get(name, OpenAIServer)(record=False)
            vendors[name] = await stack.enter_async_context(fake)
        home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        identities = Identities()
        there = {name: vendor.url if name == "my-azure" else vendor.base_url for name, vendor in vendors.items()}

        def renew() -> None:
            bind_request(Request(signed_actor=identities.sign(Actor("org-bench", "user-bench"))))

        async def gateway(settings: LLMGatewaySettings, addresses: dict[str, str] = there) -> Bench:
            renew()
            books = FakeUsageStore()
            service = assemble(settings, Deps(), GatewayStores(FakeProviderStore(), books, FakeBudgetStore(books)))
            channel = await stack.enter_async_context(running(service, "local", identities=identities))
            for name, kind in OWN.items():
                own = provider_pb2.Provider(name=name, provider_type=kind, api_key="k", base_url=addresses[name])
                request = provider_service_pb2.CreateProviderRequest(provider=own)
                await ProviderServiceStub(channel).CreateProvider(request, timeout=20)
            return Bench(GenerationServiceStub(channel), vendors, renew)

        patient = settings_of(home, there)
        hasty = patient.model_copy(
            update={"first_token_seconds": 1.0, "between_tokens_seconds": 1.0, "total_seconds": 3.0}
        )
        bench, tally = await gateway(hasty), Tally()
        await matrix(bench, tally)
        nowhere = {name: url.rpartition(":")[0] + ":9" + _path(url) for name, url in there.items()}
        mute = {name: url.replace("http:", "https:") for name, url in there.items()}
        for fault, addresses in (("connection refused", nowhere), ("no TLS", mute)):
            await away(await gateway(settings_of(home, addresses), addresses), fault, tally)
        print(*tally.wrong, sep="\n")
        sdk, added = await cost_of_a_call(bench)
        result = {
            "cells": tally.cells,
            "wrong": len(tally.wrong),
            "sdk_ms_per_call": round(sdk, 2),
            "gateway_ms_per_call": round(added, 2),
            "us_per_delta": round(await cost_of_a_delta(), 1),
            "cancel_ms": round(await cancel_reaches_the_vendor(bench), 1),
            **await many_streams(await gateway(patient)),
        }
        print(json.dumps(result))
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
