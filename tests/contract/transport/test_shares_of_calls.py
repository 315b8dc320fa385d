"""How many calls an organization has at once, and that what it has delays no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from prometheus_client import REGISTRY
from pydantic import SecretStr

from letta_common.actor import Actor, acting_as
from letta_common.process.settings import Settings
from letta_rpc.rpc_errors import DETAILS_KEY
from tests.callers import until
from tests.contract.transport.conftest import PACKAGE, Probe, ProbeServicer, probe_service
from tests.support.rpc import ALL_SCOPES, SECRET, Identities, running

ANN = Actor("org-a", "user-ann", ALL_SCOPES)
AMY = Actor("org-a", "user-amy", ALL_SCOPES)
BOB = Actor("org-b", "user-bob", ALL_SCOPES)
Start = Callable[[int], AbstractAsyncContextManager[Probe]]


@pytest.fixture(params=["network", "local"])
def shared(request: pytest.FixtureRequest) -> Start:
    """Start a probe service that serves so many calls of one organization."""

    @asynccontextmanager
    async def started(most: int) -> AsyncIterator[Probe]:
        servicer, identities = ProbeServicer(), Identities({actor.user_id: actor for actor in (ANN, AMY, BOB)})
        settings = Settings(
            bind="127.0.0.1:0", cluster_secret=SecretStr(SECRET), drain_seconds=1, max_calls_of_organization=most
        )
        service = probe_service(servicer)
        async with running(service, request.param, identities=identities, settings=settings, dev_mode=False) as channel:
            yield Probe(servicer, channel, identities, request.param)

    return started


def begin(probe: Probe, actor: Actor, method: str, text: str, count: int = 0) -> Any:
    """Begin a call that comes from outside."""
    metadata = (("authorization", f"Bearer {actor.user_id}"),)
    return getattr(probe.bare, method)(probe.ask(text, count=count), timeout=30, metadata=metadata)


async def write(probe: Probe, actor: Actor, text: str) -> str:
    return str((await begin(probe, actor, "Write", text)).text)


async def _answer(call: Any) -> Any:
    return await call


async def held(probe: Probe, *actors: Actor) -> list[asyncio.Future[Any]]:
    """Begin a call of each that ends when the servicer is told; return once all are at work."""
    before = probe.servicer.calls
    tasks = [asyncio.ensure_future(_answer(begin(probe, actor, "Read", "wait"))) for actor in actors]

    async def calls() -> int:
        return probe.servicer.calls - before

    await until(calls, lambda seen: seen == len(actors))
    return tasks


async def refused(call: Any) -> None:
    """Expect to be told that the organization has its share, and when to come back."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    [data] = [value for key, value in caught.value.trailing_metadata() if key == DETAILS_KEY]
    info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
    details = status_pb2.Status.FromString(data).details
    assert any(detail.Unpack(info) for detail in details)
    assert any(detail.Unpack(retry) for detail in details)
    assert (info.reason, retry.retry_delay.seconds) == ("RATE_LIMITED", 1)


async def freed(probe: Probe, actor: Actor) -> None:
    """Wait until a call of the organization is served; what was cancelled gives its place back soon."""

    async def tried() -> str:
        try:
            return await write(probe, actor, "again")
        except grpc.aio.AioRpcError as error:
            return error.code().name

    assert await until(tried, lambda seen: seen != "RESOURCE_EXHAUSTED") == "again"


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0


async def test_an_organization_at_its_bound_is_refused_and_another_is_served(shared: Start) -> None:
    service = f"{PACKAGE}.ProbeService"
    before = counted("letta_rpc_beyond_share_total", service=service)
    async with shared(2) as probe:
        tasks = await held(probe, ANN, AMY)

        for actor in (ANN, AMY):
            await refused(begin(probe, actor, "Write", "more"))
        await refused(begin(probe, ANN, "Stream", "more", count=1).read())
        assert probe.servicer.calls == 2
        assert await write(probe, BOB, "other") == "other"
        assert counted("letta_rpc_beyond_share_total", service=service) == before + 3

        probe.servicer.released.set()
        await asyncio.gather(*tasks)
        assert await write(probe, ANN, "next") == "next"


async def test_a_stream_counts_until_it_ends(shared: Start) -> None:
    async with shared(1) as probe:
        stream = begin(probe, ANN, "Stream", "wait", count=1)
        assert (await stream.read()).count == 0
        await refused(begin(probe, ANN, "Write", "more"))
        assert await write(probe, BOB, "other") == "other"

        probe.servicer.released.set()
        assert await stream.read() is grpc.aio.EOF
        assert await write(probe, ANN, "next") == "next"


async def test_a_cancelled_stream_gives_its_place_back(shared: Start) -> None:
    async with shared(1) as probe:
        stream = begin(probe, ANN, "Stream", "hang", count=1)
        assert (await stream.read()).count == 0
        await refused(begin(probe, ANN, "Stream", "hang", count=1).read())

        stream.cancel()
        await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)
        await freed(probe, ANN)


@pytest.mark.parametrize("text", ["missing", "bug", "abort"])
async def test_a_failed_call_gives_its_place_back(shared: Start, text: str) -> None:
    async with shared(1) as probe:
        for method in ("Write", "Read"):
            with pytest.raises(grpc.aio.AioRpcError):
                await begin(probe, ANN, method, text)
        with pytest.raises(grpc.aio.AioRpcError):
            await begin(probe, ANN, "Stream", text, count=0).read()

        assert await write(probe, ANN, "next") == "next"


async def test_a_refused_request_gives_its_place_back(shared: Start) -> None:
    async with shared(1) as probe:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await begin(probe, ANN, "Write", "", count=-1)

        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert await write(probe, ANN, "next") == "next"


async def test_a_call_counts_once_however_many_services_it_passes(shared: Start) -> None:
    async with shared(1) as probe:
        probe.servicer.next = probe.stub
        assert await write(probe, ANN, "forward") == "forward"
        assert probe.servicer.calls == 2


async def test_calls_of_services_never_count(shared: Start) -> None:
    async with shared(1) as probe:
        with acting_as(probe.identities.sign(ANN)):
            inner = [asyncio.ensure_future(_answer(probe.stub.Read(probe.ask("wait"), timeout=30))) for _ in range(3)]
        tasks = await held_beside(probe, inner)

        await refused(begin(probe, ANN, "Write", "more"))
        with acting_as(probe.identities.sign(ANN)):
            assert (await probe.stub.Write(probe.ask("inner"), timeout=5)).text == "inner"
        probe.servicer.released.set()
        await asyncio.gather(*tasks)


async def held_beside(probe: Probe, inner: list[asyncio.Future[Any]]) -> list[asyncio.Future[Any]]:
    """Begin one call of Ann beside those of services, once they are at work."""

    async def calls() -> int:
        return probe.servicer.calls

    await until(calls, lambda seen: seen == len(inner))
    return [*inner, *await held(probe, ANN)]


async def test_nothing_is_kept_of_calls_that_ended(shared: Start) -> None:
    before = counted("letta_slots_held", what="calls")
    async with shared(1) as probe:
        tasks = await held(probe, ANN, BOB)
        assert counted("letta_slots_held", what="calls") == before + 2

        probe.servicer.released.set()
        await asyncio.gather(*tasks)
        assert counted("letta_slots_held", what="calls") == before


async def test_zero_is_any_number(shared: Start) -> None:
    async with shared(0) as probe:
        tasks = await held(probe, *[ANN] * 20)

        assert await write(probe, ANN, "more") == "more"
        probe.servicer.released.set()
        await asyncio.gather(*tasks)
