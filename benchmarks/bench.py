"""What an agent server costs where users are: scenarios over REST, each also as a multiple of a bare gRPC call.

`python -m benchmarks.bench` measures this product, all in one process and each service in its own, with vendors of zero
latency that speak the real wires. `--base-url URL --model HANDLE` measures any server that speaks the REST, from the
outside. JSON and a page with plots go to `benchmarks/out`.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from benchmarks import scenarios
from benchmarks.http_client import HttpClient
from benchmarks.report import page
from benchmarks.scenarios import ECHO, PACED, VENDORS, Figures, Meter
from benchmarks.stacks import letta
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions

OUT = Path(__file__).parent / "out"
QUIET = {"LETTA_EMBED_MESSAGES": "false"}
"""Messages are embedded in the background, in batches; that would be counted to whatever runs meanwhile."""

Found = dict[str, Figures]


async def bare_call(count: int = 1000) -> Figures:
    """Measure a health check over gRPC, client and server in this process: what a call costs that does nothing."""
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(health.aio.HealthServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        rounds = []
        for _ in range(5):
            begun = time.process_time()
            for _ in range(count // 5):
                await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            rounds.append((time.process_time() - begun) * 1000 / (count // 5))
    await server.stop(None)
    return {"python_ms": statistics.median(rounds)}


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


def help_page() -> Figures:
    """Measure `letta --help`."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "letta_cli", "--help"]
    process = os.posix_spawn(
        sys.executable, command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, _, used = os.wait4(process, 0)
    return {"p50_ms": (time.perf_counter() - begun) * 1000, "python_ms": (used.ru_utime + used.ru_stime) * 1000}


async def whole(home: Path, seconds: float) -> Found:
    """Measure every scenario, all in one process."""
    async with scenarios.vendors() as environment:
        variables = {**QUIET, **environment, "LETTA_DATABASE_URL": ""}
        async with letta("server", home=home, environment=variables) as stack, HttpClient(stack.base_url) as client:
            meter, cpu = Meter(stack), stack.cpu()
            found: Found = {
                "start/server": {
                    "p50_ms": stack.seconds_to_healthy * 1000,
                    "python_ms": cpu.python * 1000,
                    "pss_mb": stack.pss_megabytes(),
                }
            }
            await stack.rest()
            await scenarios.bring_providers(client, environment)
            found |= await scenarios.messages(client, meter, {"echo": ECHO, **VENDORS})
            found |= await scenarios.tools(client, meter, VENDORS["openai_chat"])
            found |= await scenarios.streams(client, meter, PACED)
            found |= await scenarios.screens(client, meter)
            return found | await scenarios.crowd(client, meter, VENDORS["openai_chat"], seconds)


async def workers(home: Path, seconds: float) -> Found:
    """Measure the crowd where a process for each core serves everything, and what these take to start."""
    number = len(os.sched_getaffinity(0))
    async with scenarios.vendors() as environment:
        variables = {**QUIET, **environment}
        async with letta("server", "--workers", str(number), home=home, environment=variables) as stack:
            start = {"p50_ms": stack.seconds_to_healthy * 1000, "pss_mb": stack.pss_megabytes()}
            await stack.rest()
            async with HttpClient(stack.base_url) as client:
                found = await scenarios.crowd(client, Meter(stack), VENDORS["openai_chat"], seconds)
            return {f"workers_{number}/{name}": figures for name, figures in {"start": start, **found}.items()}


async def separate(home: Path) -> Found:
    """Measure start and a message where each service has a process of its own."""
    async with letta("up", home=home, environment=QUIET) as stack, HttpClient(stack.base_url) as client:
        cpu, pss = stack.cpu(), stack.pss_megabytes()
        start = {"p50_ms": stack.seconds_to_healthy * 1000, "python_ms": cpu.python * 1000, "pss_mb": pss}
        await stack.rest()
        found = await scenarios.messages(client, Meter(stack), {"echo": ECHO})
        return {"start/up": start} | {f"separate/{name}": figures for name, figures in found.items()}


async def without_fsync(home: Path) -> Found:
    """Measure a message where the disk is not waited for."""
    with EmbeddedPostgres(home / "quick", PostgresOptions(durable=False)) as quick:
        variables = {**QUIET, "LETTA_DATABASE_URL": quick.dsn()}
        async with letta("server", home=home, environment=variables) as stack, HttpClient(stack.base_url) as client:
            await stack.rest()
            found = await scenarios.messages(client, Meter(stack), {"echo": ECHO})
            return {f"without_fsync/{name}": figures for name, figures in found.items()}


async def own(seconds: float) -> tuple[Found, dict[str, float]]:
    """Measure this product in its shapes; return the figures and what they are measured against."""
    bare = await bare_call()
    with tempfile.TemporaryDirectory(prefix="letta-bench-") as scratch:
        home = Path(scratch)
        async with letta("server", home=home, environment=QUIET) as first:
            cold = {"p50_ms": first.seconds_to_healthy * 1000}
        found = {"start/cold": cold, "start/help": help_page()}
        found |= await whole(home, seconds)
        found |= await workers(home, seconds)
        found |= await separate(home)
        found |= await without_fsync(home)
        return found, {"bare_call_python_ms": bare["python_ms"], "fsync_p50_ms": fsync_ms(home)}


async def foreign(base_url: str, model: str, seconds: float) -> tuple[Found, dict[str, float]]:
    """Measure any server that speaks the REST, from the outside."""
    meter = Meter()
    async with HttpClient(base_url) as client:
        found = await scenarios.messages(client, meter, {model: model}, filler=model)
        found |= await scenarios.screens(client, meter, model)
        found |= await scenarios.crowd(client, meter, model, seconds)
    return found, {}


def related(found: Found, against: Mapping[str, float]) -> Found:
    """Add to each figure what it is as a multiple of a bare call."""
    bare = against.get("bare_call_python_ms")
    if not bare:
        return found
    return {
        name: figures | ({"python_bare_calls": figures["python_ms"] / bare} if "python_ms" in figures else {})
        for name, figures in found.items()
    }


def slope_us(found: Found, name: str) -> float | None:
    """Return what a message in context adds to the cost of the next one, in microseconds of Python."""
    few, many = (found.get(f"message/{name}/{length}", {}).get("python_ms") for length in (100, 1000))
    return None if few is None or many is None else (many - few) / 900 * 1000


def main() -> None:
    """Measure, print, and write JSON and a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--base-url", help="measure this server instead")
    parser.add_argument("--model", default=ECHO)
    parser.add_argument("--seconds", type=float, default=10.0)
    given = parser.parse_args()
    work = foreign(given.base_url, given.model, given.seconds) if given.base_url else own(given.seconds)
    found, against = asyncio.run(work)
    slopes = {name: slope for name in ("echo", *VENDORS) if (slope := slope_us(found, name)) is not None}
    result: dict[str, Any] = {"against": against, "us_a_message_in_context": slopes, "figures": related(found, against)}
    OUT.mkdir(exist_ok=True)
    (OUT / "bench.json").write_text(json.dumps(result, indent=2) + "\n")
    (OUT / "bench.html").write_text(page(result))
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    sys.stdout.write(f"wrote {OUT / 'bench.json'} and {OUT / 'bench.html'}\n")


if __name__ == "__main__":
    main()
