"""Requests that are no message of their method, over the network and in process."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from tests.contract.transport.conftest import PATH

BAD = [b"\xff\xff\xff", b"\x0a\x05abc", b"\x0a\x02\xff\xfe"]
HEALTH = "/grpc.health.v1.Health/"


async def code_of(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value.code()


@pytest.mark.parametrize("data", BAD)
async def test_what_cannot_be_read_is_an_invalid_argument(probe: Any, data: bytes) -> None:
    channel = probe.channel._inner
    calls = [
        channel.unary_unary(PATH + "Write")(data, timeout=5),
        channel.unary_stream(PATH + "Stream")(data, timeout=5).read(),
        channel.unary_unary(HEALTH + "Check")(data, timeout=5),
        channel.unary_stream(HEALTH + "Watch")(data, timeout=5).read(),
    ]
    for version in ("v1", "v1alpha"):
        path = f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"
        calls.append(channel.stream_stream(path)(iter([data]), timeout=5).read())

    assert [await code_of(call) for call in calls] == [grpc.StatusCode.INVALID_ARGUMENT] * 6
    assert probe.servicer.calls == 0


async def test_nobody_learns_of_messages_without_a_credential(start: Any) -> None:
    async with start(dev_mode=False) as probe:
        for data in BAD:
            call = probe.channel._inner.unary_unary(PATH + "Write")(data, timeout=5)
            assert await code_of(call) is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("text", ["\0", "a\0b"])
async def test_nul_of_outsiders_is_refused_and_of_services_taken(probe: Any, text: str) -> None:
    assert await code_of(probe.bare.Write(probe.ask(text), timeout=5)) is grpc.StatusCode.INVALID_ARGUMENT
    assert (await probe.stub.Write(probe.ask(text), timeout=5)).text == text


@pytest.mark.parametrize("metadata", [("user_id", "a b"), ("authorization", "Bearer a b"), ("user_id", "x" * 5000)])
async def test_names_of_callers_are_printable(probe: Any, metadata: tuple[str, str]) -> None:
    code = await code_of(probe.bare.Read(probe.ask(), timeout=5, metadata=(metadata,)))

    assert code in (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.UNAUTHENTICATED)
