"""What a connection may cost before anybody knows who calls."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import pytest

from tests.contract.http.conftest import Front, front, local_channel
from tests.unit.transcode.toy import Toy

PATIENCE = 20
GET = b"GET /v1/health/ HTTP/1.1\r\nhost: localhost\r\n"
POST = b"POST /v1/items/ HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"


@asynccontextmanager
async def brief(toy: Toy, **bounds: float) -> AsyncIterator[Front]:
    async with front({"toy": local_channel(toy)}, **bounds) as found:
        await found.gateway.ready()
        yield found


async def said(port: int, parts: Iterable[bytes], *, pause: float = 0) -> bytes:
    """Send parts and return all that is answered until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = asyncio.ensure_future(reader.read())
    try:
        for part in parts:
            if answer.done():
                break
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
    except ConnectionError:
        pass
    try:
        return await asyncio.wait_for(answer, PATIENCE)
    finally:
        writer.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1]) if answer else 0


def endless(part: bytes) -> Iterable[bytes]:
    """Yield a part a million times, which no server should wait for."""
    return (part for _ in range(1_000_000))


@pytest.mark.parametrize(
    "head",
    [
        GET + b"x-long: " + b"a" * 40_000 + b"\r\n\r\n",
        GET + b"x" * 40_000 + b": a\r\n\r\n",
        GET + b"".join(b"x-%d: a\r\n" % n for n in range(101)) + b"\r\n",
        GET + b"a: b\r\n" * 101 + b"\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n",
        GET + b"x: " + b"a" * 400 + b"\r\n" + b"y: " + b"b" * 32_600 + b"\r\n\r\n",
    ],
)
async def test_large_headers_are_431(served: Front, head: bytes):
    answer = await said(served.port, [head])

    assert status(answer) == 431
    assert b'{"detail":"' in answer


@pytest.mark.parametrize("part", [b"x-more: " + b"a" * 1000 + b"\r\n", b"a" * 1000, b"\r\n" * 500])
async def test_endless_headers_end(served: Front, part: bytes):
    first = b"" if part == b"\r\n" * 500 else GET + b"x: "

    assert status(await said(served.port, [first, *[part] * 100_000])) == 431


async def test_as_many_headers_as_clients_send_are_served(served: Front):
    head = GET + b"".join(b"x-%d: %s\r\n" % (n, b"a" * 300) for n in range(98)) + b"connection: close\r\n\r\n"

    assert status(await said(served.port, [head])) == 200
    assert status(await said(served.port, [head[at : at + 1000] for at in range(0, len(head), 1000)])) == 200


@pytest.mark.parametrize("parts", [[GET], [b"GE"], [GET, b"x-a: b\r\n"], endless(b"a: b\r\n")], ids=range(4))
async def test_headers_that_do_not_come_to_an_end_are_408(toy: Toy, parts: Iterable[bytes]):
    async with brief(toy, header_seconds=0.3) as found:
        first, *rest = [GET, parts] if not isinstance(parts, list) else [parts[0], parts[1:]]
        answer = await said(found.port, _joined(first, rest[0]), pause=0.05)

    assert status(answer) == 408


def _joined(first: bytes, rest: Iterable[bytes]) -> Iterable[bytes]:
    yield first
    yield from rest


async def test_a_connection_that_says_nothing_is_closed(toy: Toy):
    async with brief(toy, header_seconds=0.3) as found:
        assert await said(found.port, []) == b""


async def test_the_next_request_of_a_connection_has_the_same_time(toy: Toy):
    async with brief(toy, header_seconds=0.3) as found:
        answer = await said(found.port, [GET + b"\r\n", GET], pause=0.2)

    assert re.findall(rb"HTTP/1.1 (\d+)", answer) == [b"200", b"408"]


@pytest.mark.parametrize(
    "parts",
    [
        [POST + b"content-length: 100\r\n\r\n"],
        [POST + b"content-length: 100\r\n\r\n", b'{"label"'],
        [POST + b"transfer-encoding: chunked\r\n\r\n", b"5\r\n{"],
        [b"POST /nothing HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n"],
    ],
)
async def test_a_body_that_does_not_come_is_408_or_closed(toy: Toy, parts: list[bytes]):
    async with brief(toy, body_seconds=0.3) as found:
        answer = await said(found.port, parts)

    assert status(answer) == (404 if b"/nothing" in parts[0] else 408)


async def test_a_body_that_trickles_is_408(toy: Toy):
    async with brief(toy, body_seconds=0.3) as found:
        answer = await said(found.port, _joined(POST + b"content-length: 1000000\r\n\r\n", endless(b"a")), pause=0.02)

    assert status(answer) == 408


async def test_a_body_in_pieces_is_served(toy: Toy):
    async with brief(toy, body_seconds=5) as found:
        body = b'{"label": "x"}'
        head = POST + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(body)
        answer = await said(found.port, [head, *(bytes([byte]) for byte in body)], pause=0.01)

    assert status(answer) == 201


@pytest.mark.parametrize("path", [b"/nothing", b"/v1/items/", b"/v1/health/"])
async def test_a_body_without_an_end_ends(toy: Toy, path: bytes):
    async with brief(toy, max_body_bytes=10_000, max_form_bytes=10_000) as found:
        head = b"POST " + path + b" HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n"
        chunk = b"4000\r\n" + b"a" * 0x4000 + b"\r\n"
        answer = await said(found.port, [head, *[chunk] * 50_000])

    assert status(answer) in (404, 405, 413)


async def test_the_longest_idle_connection_makes_room(toy: Toy):
    async with brief(toy, max_connections=3) as found:
        idle = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(3)]
        for reader, writer in idle:
            writer.write(GET + b"\r\n")
            await reader.readuntil(b"}")
        answer = await said(found.port, [GET + b"connection: close\r\n\r\n"])

        assert status(answer) == 200
        assert await asyncio.wait_for(idle[0][0].read(), PATIENCE) == b""
        idle[1][1].write(GET + b"connection: close\r\n\r\n")
        assert status(await asyncio.wait_for(idle[1][0].read(), PATIENCE)) == 200
        for _, writer in idle:
            writer.close()


async def test_busy_connections_are_kept_and_one_more_is_told_so(toy: Toy):
    async with brief(toy, max_connections=2) as found:
        busy = [await asyncio.open_connection("127.0.0.1", found.port) for _ in range(2)]
        for _, writer in busy:
            writer.write(POST + b"content-length: 14\r\n\r\n")
        await asyncio.sleep(0.1)
        assert status(await said(found.port, [])) == 503
        for reader, writer in busy:
            writer.write(b'{"label": "x"}')
            assert (await asyncio.wait_for(reader.readline(), PATIENCE)).split()[1] == b"201"
            writer.close()
