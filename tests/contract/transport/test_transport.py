"""What a stub and a handler may rely on, over the network and in process."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from letta_common.errors import PayloadTooLarge
from letta_rpc.client import streaming


async def test_unary_call_answers(probe: Any) -> None:
    answer = await probe.bare.Read(probe.ask("hello", 3), timeout=5)

    assert (answer.text, answer.count, answer.data) == ("hello", 3, b"\0\0\0")


async def test_both_sides_have_messages_of_their_own(probe: Any) -> None:
    request = probe.ask("before")
    await probe.bare.Read(request, timeout=5)
    request.text = "after"

    assert probe.servicer.request.text == "before"


async def test_call_can_be_awaited_twice(probe: Any) -> None:
    call = probe.bare.Read(probe.ask("x"), timeout=5)

    assert await call == await call


@pytest.mark.parametrize("count", [0, 1, 100])
async def test_stream_arrives_whole_and_in_order(probe: Any, count: int) -> None:
    received = [message.count async for message in probe.bare.Stream(probe.ask(count=count), timeout=5)]

    assert received == list(range(count))


async def test_stream_can_be_read_message_by_message(probe: Any) -> None:
    call = probe.bare.Stream(probe.ask(count=1), timeout=5)

    assert (await call.read()).count == 0
    assert await call.read() is grpc.aio.EOF
    assert await call.code() is grpc.StatusCode.OK
    assert call.done()


async def test_error_after_messages_comes_after_them(probe: Any) -> None:
    call = probe.bare.Stream(probe.ask("missing", count=2), timeout=5)

    assert [(await call.read()).count, (await call.read()).count] == [0, 1]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_unknown_method_is_unimplemented(probe: Any) -> None:
    call = probe.channel._inner.unary_unary("/letta.probe.v1.ProbeService/Nothing")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(b"", timeout=5)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_metadata_travels_both_ways(probe: Any) -> None:
    sent = (("x-text", "a"), ("x-raw-bin", b"\x00\xff"))
    call = probe.bare.Read(probe.ask("metadata"), timeout=5, metadata=sent)
    await call

    assert (probe.servicer.metadata["x-text"], probe.servicer.metadata["x-raw-bin"]) == ("a", b"\x00\xff")
    assert (await call.initial_metadata())["x-first"] == "1"
    assert (await call.trailing_metadata())["x-last"] == "2"
    assert (await call.trailing_metadata())["x-raw-bin"] == b"\x00\xff"


async def test_metadata_has_a_limit(probe: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await probe.bare.Read(probe.ask(), timeout=5, metadata=(("x-long", "a" * 40_000),))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_message_sizes_have_a_limit_each_way(probe: Any) -> None:
    with pytest.raises(PayloadTooLarge):
        await probe.stub.Read(probe.ask(data=bytes(17 << 20)), timeout=20)
    with pytest.raises(PayloadTooLarge):
        await probe.stub.Read(probe.ask(count=17 << 20), timeout=20)
    assert (await probe.stub.Read(probe.ask(data=bytes(1 << 20)), timeout=20)).data == bytes(1 << 20)


@pytest.mark.parametrize("kind", ["Read", "Stream"])
async def test_deadline_ends_the_call_and_the_handler(probe: Any, kind: str) -> None:
    call = getattr(probe.bare, kind)(probe.ask("hang"), timeout=0.3)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await (call if kind == "Read" else call.read())
    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_deadline_in_the_past_never_starts(probe: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await probe.bare.Read(probe.ask(), timeout=-1)

    assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert probe.servicer.calls == 0


async def test_cancelling_the_waiting_task_cancels_the_handler(probe: Any) -> None:
    async def call() -> None:
        await probe.bare.Read(probe.ask("hang"), timeout=60)

    task = asyncio.create_task(call())
    await asyncio.wait_for(probe.servicer.entered.wait(), 5)
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_cancelled_call_raises_cancelled(probe: Any) -> None:
    call = probe.bare.Read(probe.ask("hang"), timeout=60)
    await asyncio.wait_for(probe.servicer.entered.wait(), 5)

    assert call.cancel()
    assert not call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert call.cancelled()
    assert await call.code() is grpc.StatusCode.CANCELLED
    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_call_cancelled_at_once_ends(probe: Any) -> None:
    call = probe.bare.Read(probe.ask("hang"), timeout=60)
    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call


async def test_half_read_stream_can_be_cancelled(probe: Any) -> None:
    call = probe.bare.Stream(probe.ask("hang", count=2), timeout=60)
    await call.read()
    await asyncio.wait_for(probe.servicer.entered.wait(), 5)
    call.cancel()

    async def drain() -> None:
        while True:  # what had arrived may still be read
            await call.read()

    with pytest.raises(asyncio.CancelledError):
        await drain()
    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_leaving_a_streaming_block_cancels_a_handler_that_writes(probe: Any) -> None:
    async with streaming(probe.stub.Stream(probe.ask(count=1_000_000, data=bytes(1 << 16)), timeout=60)) as events:
        async for _ in events:
            break

    await asyncio.wait_for(probe.servicer.cancelled.wait(), 5)


async def test_slow_reader_holds_the_handler_back(probe: Any) -> None:
    async with streaming(probe.bare.Stream(probe.ask(count=1000, data=bytes(1 << 16)), timeout=60)) as call:
        await call.read()
        seen = -1
        while seen != probe.servicer.sent:  # until it stands still
            seen = probe.servicer.sent
            await asyncio.sleep(0.2)

        assert seen < 500
        rest = 0
        while await call.read() is not grpc.aio.EOF:
            rest += 1
        assert rest == 999


async def test_status_of_the_callee_is_no_cancellation_of_the_caller(probe: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await probe.bare.Read(probe.ask("abort"), timeout=5)

    assert (caught.value.code(), caught.value.details()) == (grpc.StatusCode.CANCELLED, "done here")


async def test_done_callback_is_called(probe: Any) -> None:
    done = asyncio.Event()
    call = probe.bare.Read(probe.ask(), timeout=5)
    call.add_done_callback(lambda _: done.set())
    await call

    await asyncio.wait_for(done.wait(), 5)


async def test_calls_run_side_by_side(probe: Any) -> None:
    answers = await asyncio.gather(*(probe.bare.Read(probe.ask(str(n)), timeout=20) for n in range(50)))

    assert [answer.text for answer in answers] == [str(n) for n in range(50)]


async def test_closed_channel_refuses_and_cancels(probe: Any) -> None:
    call = probe.bare.Read(probe.ask("hang"), timeout=60)
    await asyncio.wait_for(probe.servicer.entered.wait(), 5)
    await probe.channel.close()

    with pytest.raises(asyncio.CancelledError):
        await call
    with pytest.raises(grpc.aio.UsageError):
        await probe.bare.Read(probe.ask(), timeout=5)


async def test_health_is_open(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        stub = health_pb2_grpc.HealthStub(probe.channel._inner)
        for name in ("", "letta.probe.v1.ProbeService"):
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
async def test_reflection_is_open_and_bidirectional(start: Any, version: str) -> None:
    async with start(dev_mode=False) as probe:
        info = probe.channel._inner.stream_stream(
            f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
            request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
            response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
        )
        call = info(timeout=5)
        await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        names = {found.name for found in (await call.read()).list_services_response.service}
        await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol="letta.probe.v1.ProbeService"))
        found = await call.read()
        await call.done_writing()

        assert "letta.probe.v1.ProbeService" in names
        assert len(found.file_descriptor_response.file_descriptor_proto) >= 1
        assert await call.read() is grpc.aio.EOF


async def test_requests_of_a_stream_can_come_from_an_iterator(probe: Any) -> None:
    async def requests() -> Any:
        for _ in range(3):
            yield reflection_pb2.ServerReflectionRequest(list_services="")

    stub = reflection_pb2_grpc.ServerReflectionStub(probe.channel._inner)
    answers = [answer async for answer in stub.ServerReflectionInfo(requests(), timeout=5)]

    assert len(answers) == 3
