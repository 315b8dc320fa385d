"""How many calls a process serves at once, and what the others are told."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydantic import SecretStr

from letta_common.errors import Overloaded
from letta_common.process.settings import Settings
from letta_rpc.rpc_errors import DETAILS_KEY
from tests.callers import until
from tests.contract.transport.conftest import Probe, ProbeServicer, probe_service
from tests.support.rpc import SECRET, running


@pytest.fixture(params=["network", "local"])
def crowded(request: pytest.FixtureRequest) -> Any:
    """Start a probe service that serves so many calls at once."""

    async def started(ends: AsyncExitStack, most: int) -> Probe:
        servicer = ProbeServicer()
        settings = Settings(
            bind="127.0.0.1:0", cluster_secret=SecretStr(SECRET), drain_seconds=1, max_calls=most, dev_mode=True
        )
        channel = await ends.enter_async_context(running(probe_service(servicer), request.param, settings=settings))
        return Probe(servicer, channel, None, request.param)  # type: ignore[arg-type]

    return started


def begin(probe: Probe, count: int) -> list[Any]:
    """Begin calls of outsiders that end when the servicer is told."""
    return [probe.bare.Read(probe.ask("wait"), timeout=30) for _ in range(count)]


async def entered(probe: Probe, count: int) -> None:
    async def calls() -> int:
        return probe.servicer.calls

    await until(calls, lambda seen: seen == count)


async def refused(call: Any) -> dict[str, Any]:
    """Return the details of a refusal, by type."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    [data] = [value for key, value in caught.value.trailing_metadata() if key == DETAILS_KEY]
    found = {}
    for detail in status_pb2.Status.FromString(data).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.RetryInfo):
            if detail.Is(kind.DESCRIPTOR):
                found[kind.__name__] = kind.FromString(detail.value)
    return found


async def test_more_calls_than_allowed_are_told_when_to_come_back(crowded: Any) -> None:
    async with AsyncExitStack() as ends:
        probe = await crowded(ends, 2)
        held = begin(probe, 2)
        tasks = [asyncio.ensure_future(_answer(call)) for call in held]
        await entered(probe, 2)

        told = await refused(probe.bare.Write(probe.ask(), timeout=5))
        assert told["ErrorInfo"].reason == "OVERLOADED"
        assert told["RetryInfo"].retry_delay.seconds == 1
        assert probe.servicer.calls == 2
        health = health_pb2_grpc.HealthStub(probe.channel._inner)
        answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING

        probe.servicer.released.set()
        await asyncio.gather(*tasks)
        assert (await probe.bare.Write(probe.ask("next"), timeout=5)).text == "next"


@pytest.mark.parametrize("most", [0, 3])
async def test_as_many_as_allowed_are_served(crowded: Any, most: int) -> None:
    async with AsyncExitStack() as ends:
        probe = await crowded(ends, most)
        tasks = [asyncio.ensure_future(_answer(call)) for call in begin(probe, 2)]
        await entered(probe, 2)

        assert (await probe.bare.Write(probe.ask("third"), timeout=5)).text == "third"
        probe.servicer.released.set()
        await asyncio.gather(*tasks)


async def test_streams_count_for_as_long_as_they_last(crowded: Any) -> None:
    async with AsyncExitStack() as ends:
        probe = await crowded(ends, 1)
        stream = probe.bare.Stream(probe.ask("hang", count=1), timeout=30)
        assert (await stream.read()).count == 0

        await refused(probe.bare.Write(probe.ask(), timeout=5))
        stream.cancel()
        await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)
        assert (await probe.bare.Write(probe.ask("after"), timeout=5)).text == "after"


async def test_a_failed_call_makes_room(crowded: Any) -> None:
    async with AsyncExitStack() as ends:
        probe = await crowded(ends, 1)
        for text in ("missing", "bug", "abort"):
            with pytest.raises(grpc.aio.AioRpcError):
                await probe.bare.Write(probe.ask(text), timeout=5)

        assert (await probe.bare.Write(probe.ask("next"), timeout=5)).text == "next"


async def test_work_that_was_admitted_may_call_on_within_its_process(crowded: Any) -> None:
    async with AsyncExitStack() as ends:
        probe = await crowded(ends, 1)
        [held] = begin(probe, 1)
        task = asyncio.ensure_future(_answer(held))
        await entered(probe, 1)

        if probe.transport == "local":
            assert (await probe.stub.Write(probe.ask("inner"), timeout=5)).text == "inner"
        else:  # a service of another process waits as anyone does
            with pytest.raises(Overloaded):
                await probe.stub.Write(probe.ask("inner"), timeout=5)
        probe.servicer.released.set()
        await task


async def test_services_come_back_with_what_may_be_repeated() -> None:
    async with AsyncExitStack() as ends:
        settings = Settings(bind="127.0.0.1:0", cluster_secret=SecretStr(SECRET), max_calls=1, dev_mode=True)
        servicer = ProbeServicer()
        channel = await ends.enter_async_context(running(probe_service(servicer), "network", settings=settings))
        probe = Probe(servicer, channel, None, "network")  # type: ignore[arg-type]
        [held] = begin(probe, 1)
        task = asyncio.ensure_future(_answer(held))
        await entered(probe, 1)

        again = asyncio.ensure_future(probe.stub.Read(probe.ask("again"), timeout=10))
        await asyncio.sleep(0.1)
        servicer.released.set()
        await task
        assert (await again).text == "again"


async def _answer(call: Any) -> Any:
    return await call
