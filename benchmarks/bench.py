"""What a message costs: latency, throughput, processor time and memory, against a bare call in the same run.

`python -m benchmarks.bench` measures this product, all in one process and each service in its own, with a model that
takes no time. `--base-url URL --model HANDLE` measures any server that speaks the REST, from the outside.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.http_client import HttpClient
from benchmarks.plot import bars
from benchmarks.stacks import Stack, letta
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions

OUT = Path(__file__).parent / "out"
MODEL = "builtin/echo"
CONVERSATION = 30
"""Messages sent to an agent before the next one is taken: the window stays as long as real ones."""
QUIET = {"LETTA_EMBED_MESSAGES": "false"}


async def create_agent(client: HttpClient, model: str) -> str:
    """Create an agent with two blocks and return its id."""
    blocks = [{"label": "human", "value": "Name: Sam."}, {"label": "persona", "value": "I am brief."}]
    agent = await client.call("POST", "/v1/agents/", {"model": model, "memory_blocks": blocks})
    return str(agent["id"])


async def send(client: HttpClient, agent_id: str) -> None:
    """Send one message and check that it was answered."""
    body = {"messages": [{"role": "user", "content": "What is my name?"}]}
    answer = await client.call("POST", f"/v1/agents/{agent_id}/messages", body)
    if answer["stop_reason"]["stop_reason"] != "end_turn":
        raise RuntimeError(f"unexpected answer: {answer}")


async def agents_for(base_url: str, model: str, count: int) -> list[str]:
    """Return warm agents for as many messages, a conversation of `CONVERSATION` messages each."""
    async with HttpClient(base_url) as client:
        made = [await create_agent(client, model) for _ in range(-(-count // CONVERSATION))]
        for agent_id in made:
            for _ in range(2):
                await send(client, agent_id)
        return made


async def latency(base_url: str, agents: Sequence[str], count: int) -> dict[str, float]:
    """Send one message after another; return milliseconds."""
    async with HttpClient(base_url) as client:
        taken = []
        for number in range(count):
            begun = time.perf_counter()
            await send(client, agents[number // CONVERSATION % len(agents)])
            taken.append((time.perf_counter() - begun) * 1000)
    cuts = statistics.quantiles(taken, n=100)
    return {"p50_ms": cuts[49], "p95_ms": cuts[94], "min_ms": min(taken)}


async def throughput(base_url: str, model: str, concurrency: int, seconds: float) -> float:
    """Send to as many agents at once; return messages a second."""
    sent = 0
    clients = [await HttpClient(base_url).__aenter__() for _ in range(concurrency)]
    agents = [await create_agent(client, model) for client in clients]
    end = time.perf_counter() + seconds

    async def keep_sending(client: HttpClient, agent_id: str) -> None:
        nonlocal sent
        while time.perf_counter() < end:
            await send(client, agent_id)
            sent += 1

    begun = time.perf_counter()
    await asyncio.gather(*(keep_sending(client, agent) for client, agent in zip(clients, agents, strict=True)))
    taken = time.perf_counter() - begun
    for client in clients:
        await client.__aexit__(None, None, None)
    return sent / taken


async def bare_call(port: int, count: int = 500) -> dict[str, float]:
    """Time a health check over gRPC: what a call costs that does nothing."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        taken = []
        for _ in range(count):
            begun = time.perf_counter()
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            taken.append((time.perf_counter() - begun) * 1000)
    return {"p50_ms": statistics.median(taken)}


def fsync_ms(directory: Path, count: int = 50) -> float:
    """Return the median time of writing 8 KiB and syncing it, in milliseconds."""
    taken = []
    with tempfile.NamedTemporaryFile(dir=directory) as file:
        for _ in range(count):
            begun = time.perf_counter()
            os.pwrite(file.fileno(), b"x" * 8192, 0)
            os.fdatasync(file.fileno())
            taken.append((time.perf_counter() - begun) * 1000)
    return statistics.median(taken)


async def measured(stack: Stack, count: int, seconds: float) -> dict[str, Any]:
    """Measure one stack."""
    idle_rss = stack.rss_megabytes()
    bare = await bare_call(stack.grpc_port)
    agents = await agents_for(stack.base_url, MODEL, count)
    before = stack.cpu()
    one = await latency(stack.base_url, agents, count)
    used = stack.cpu().since(before)
    before = stack.cpu()
    await latency(stack.base_url, agents[:1], count)
    long = stack.cpu().since(before)
    before, begun = stack.cpu(), time.perf_counter()
    per_second = await throughput(stack.base_url, MODEL, 16, seconds)
    crowd, sent = stack.cpu().since(before), per_second * (time.perf_counter() - begun)
    return {
        "seconds_to_healthy": stack.seconds_to_healthy,
        "rss_mb_idle": idle_rss,
        "rss_mb_after": stack.rss_megabytes(),
        "bare_call_p50_ms": bare["p50_ms"],
        **one,
        "cpu_ms_per_message_python": used.python * 1000 / count,
        "cpu_ms_per_message_postgres": used.postgres * 1000 / count,
        "cpu_ms_per_message_python_long_conversation": long.python * 1000 / count,
        "cpu_ms_per_message_python_at_16": crowd.python * 1000 / sent,
        "cpu_ms_per_message_postgres_at_16": crowd.postgres * 1000 / sent,
        "messages_per_second_at_16": per_second,
        "p50_over_bare_call": one["p50_ms"] / bare["p50_ms"],
    }


async def own(count: int, seconds: float) -> dict[str, Any]:
    """Measure this product in its shapes."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="letta-bench-") as scratch:
        home = Path(scratch)
        async with letta("server", home=home, environment=QUIET) as first:
            result["cold_start_seconds"] = first.seconds_to_healthy
        async with letta("server", home=home, environment=QUIET) as stack:
            result["all_in_one"] = await measured(stack, count, seconds)
        async with letta("up", home=home, environment=QUIET) as stack:
            result["separate_processes"] = await measured(stack, count, seconds)
        result["fsync_p50_ms"] = fsync_ms(home)
        with EmbeddedPostgres(home / "quick", PostgresOptions(durable=False)) as quick:
            variables = {**QUIET, "LETTA_DATABASE_URL": quick.dsn()}
            async with letta("server", home=home, environment=variables) as stack:
                result["all_in_one_without_fsync"] = await measured(stack, count, seconds)
    result["separate_over_all_in_one_cpu"] = (
        result["separate_processes"]["cpu_ms_per_message_python"] / result["all_in_one"]["cpu_ms_per_message_python"]
    )
    return result


async def foreign(base_url: str, model: str, count: int, seconds: float) -> dict[str, Any]:
    """Measure any server that speaks the REST, from the outside."""
    one = await latency(base_url, await agents_for(base_url, model, count), count)
    return {"base_url": base_url, **one, "messages_per_second_at_16": await throughput(base_url, model, 16, seconds)}


def main() -> None:
    """Measure, print, and write JSON and a plot."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", help="measure this server instead")
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    work = (
        foreign(given.base_url, given.model, given.count, given.seconds)
        if given.base_url
        else own(given.count, given.seconds)
    )
    result = asyncio.run(work)
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    shapes = {name: shape for name, shape in result.items() if isinstance(shape, dict)} or {"server": result}
    (OUT / "bench.svg").write_text(bars(shapes, ["p50_ms", "cpu_ms_per_message_python", "messages_per_second_at_16"]))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(f"wrote {OUT / 'bench.json'} and {OUT / 'bench.svg'}\n")


if __name__ == "__main__":
    main()
