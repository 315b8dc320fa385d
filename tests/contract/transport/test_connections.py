"""What a connection to a gRPC server may cost before anybody knows who calls."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable

import grpc
import pytest
from pydantic import SecretStr

from letta_common.process.settings import Settings
from tests.contract.transport.conftest import PATH, Probe, ProbeServicer, ProbeStub, probe_service
from tests.servers import free_port
from tests.support.rpc import SECRET, running

PATIENCE = 20
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = b"\0\0\0\x04\0\0\0\0\0"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def header(name: bytes, value: bytes) -> bytes:
    """Write a header for HPACK, as it is."""
    return b"\0" + bytes([len(name)]) + name + bytes([len(value)]) + value


@pytest.fixture
async def small() -> AsyncIterator[tuple[Probe, int]]:
    """A server that waits for few connections, and not long."""
    port = free_port()
    settings = Settings(
        bind=f"127.0.0.1:{port}",
        cluster_secret=SecretStr(SECRET),
        drain_seconds=1,
        handshake_seconds=0.5,
        max_connections=4,
    )
    servicer = ProbeServicer()
    async with running(probe_service(servicer), "network", settings=settings) as channel:
        probe = Probe(servicer, channel, None, "network")  # type: ignore[arg-type]
        call = probe.bare.Read(probe.ask(), timeout=10)
        await call
        yield probe, port


async def ended(port: int, parts: Iterable[bytes]) -> bytes:
    """Send parts, and return what is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.read())
    try:
        for part in parts:
            if answer.done():
                break
            writer.write(part)
            await writer.drain()
        return await asyncio.wait_for(answer, PATIENCE)
    except ConnectionError:
        return b""
    finally:
        answer.cancel()
        writer.close()


@pytest.mark.parametrize("parts", [[], [b"PRI"], [PREFACE], [b"GET / HTTP/1.1\r\n\r\n"], [b"\x16\x03\x01"]])
async def test_a_connection_that_does_not_begin_is_closed(small: tuple[Probe, int], parts: list[bytes]) -> None:
    await ended(small[1], parts)


async def test_endless_headers_end_the_connection(small: tuple[Probe, int]) -> None:
    head = header(b":method", b"POST") + header(b":path", (PATH + "Read").encode()) + header(b":scheme", b"http")
    more = b"".join(header(b"x-%03d" % number, b"a" * 100) for number in range(100))
    parts = [PREFACE + SETTINGS, frame(1, 0, 1, head), *[frame(9, 0, 1, more)] * 20_000]

    await ended(small[1], parts)
    assert (await small[0].bare.Read(small[0].ask("on"), timeout=10)).text == "on"


async def test_more_connections_than_allowed_are_closed(small: tuple[Probe, int]) -> None:
    held = [await asyncio.open_connection("127.0.0.1", small[1]) for _ in range(10)]
    for _, writer in held:
        writer.write(PREFACE + SETTINGS)

    ends = [asyncio.ensure_future(reader.read()) for reader, _ in held]
    done, _ = await asyncio.wait(ends, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)

    assert done
    assert (await small[0].bare.Read(small[0].ask("on"), timeout=10)).text == "on"
    for each in ends:
        each.cancel()
    for _, writer in held:
        writer.close()


async def test_metadata_is_bounded(small: tuple[Probe, int]) -> None:
    for metadata in ((("x", "a" * 40_000),), tuple((f"x-{n}", "a" * 100) for n in range(400))):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await ProbeStub(small[0].channel._inner).Read(small[0].ask(), timeout=10, metadata=metadata)
        assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
