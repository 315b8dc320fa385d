"""How soon a service that was away is used again."""

from __future__ import annotations

import asyncio
import itertools
import time
from pathlib import Path
from statistics import median

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio

from letta_common.process.settings import Settings
from letta_rpc.client import bare_channel


async def test_an_absent_service_is_looked_for_several_times_a_second(tmp_path: Path) -> None:
    seen: list[float] = []
    enough = asyncio.Event()

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(time.monotonic())
        writer.close()
        if len(seen) >= 8:
            enough.set()

    listener = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    channel = bare_channel(f"127.0.0.1:{port}", Settings(home=tmp_path))
    looking = asyncio.create_task(_keep_connecting(channel))
    await asyncio.wait_for(enough.wait(), 30)
    looking.cancel()
    await channel.close()
    listener.close()

    gaps = [later - sooner for sooner, later in itertools.pairwise(seen)]
    assert median(gaps[4:7]) < 1.0  # two seconds would be the time that callers are refused for nothing


async def test_a_service_that_is_back_answers(tmp_path: Path) -> None:
    first, port = await _serve(0)
    channel = bare_channel(f"127.0.0.1:{port}", Settings(home=tmp_path))
    stub = health_pb2_grpc.HealthStub(channel)
    await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
    await first.stop(None)
    end = time.monotonic() + 1
    while time.monotonic() < end:  # long enough for the pauses to grow as far as they may
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
        await asyncio.sleep(0.05)

    second, _ = await _serve(port)
    for _attempt in range(100):
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=5)
            break
        except grpc.aio.AioRpcError:
            await asyncio.sleep(0.05)
    else:
        pytest.fail("the service was not found again")
    await channel.close()
    await second.stop(None)


async def _serve(port: int) -> tuple[grpc.aio.Server, int]:
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    health = health_aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    bound = server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    return server, bound


async def _keep_connecting(channel: grpc.aio.Channel) -> None:
    while True:
        state = channel.get_state(try_to_connect=True)
        await channel.wait_for_state_change(state)
