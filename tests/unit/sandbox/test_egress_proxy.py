"""The egress proxy by itself: what it opens, what it refuses, and what a client cannot make it do."""

import asyncio
import contextlib
import socket

import pytest

from letta_common.egress import AddressGuard
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.egress import Egress, EgressLimits, EgressProxy
from tests.fakes.destinations import destination

INSIDE = AddressGuard(("127.0.0.1", "localhost"))
PUBLIC = AddressGuard()
OPEN = b"HTTP/1.1 200 "


@pytest.fixture(scope="module")
def server():
    with destination() as server:
        yield server


@pytest.fixture
async def dial():
    """Return a function that sends bytes to a proxy with these lists and returns all that it answers."""
    async with contextlib.AsyncExitStack() as stack:

        async def dial(sent: bytes, operator=(), organization=(), guards=(INSIDE, PUBLIC), **limits) -> bytes:
            lists = Destinations(read_destinations(operator), read_destinations(organization))
            proxy = EgressProxy(Egress(*guards, EgressLimits(**limits)), lists)
            stack.push_async_callback(proxy.close)
            listener = socket.create_server(("127.0.0.1", 0))
            proxy.listen(listener)
            reader, writer = await asyncio.open_connection(*listener.getsockname())
            writer.write(sent)
            try:
                return await _answer(reader)
            finally:
                writer.close()

        yield dial


async def _answer(reader: asyncio.StreamReader) -> bytes:
    """Read the head, and after an open tunnel nothing more."""
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 15)
        return head if head.startswith(OPEN) else head + await reader.read()
    return b""


def connect(host, port, *headers):
    return "\r\n".join([f"CONNECT {host}:{port} HTTP/1.1", *headers, "", ""]).encode()


async def test_a_listed_host_is_connected_to(dial, server):
    port = server.server_port

    assert (await dial(connect("127.0.0.1", port, f"Host: 127.0.0.1:{port}"), [f"127.0.0.1:{port}"])).startswith(OPEN)
    assert (await dial(connect("LOCALHOST.", port), [f"localhost:{port}"])).startswith(OPEN)


async def test_a_host_that_is_not_listed_is_refused_and_the_setting_named(dial, server):
    for listed in ([], [f"127.0.0.1:{server.server_port + 1}"], [f"localhost:{server.server_port}"], ["127.0.0.1"]):
        answer = await dial(connect("127.0.0.1", server.server_port), listed)
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert b"tools_egress_hosts" in answer.split(b"\r\n")[0]


async def test_listed_hosts_that_lead_inside_need_the_operators_word(dial, server):
    port = server.server_port
    request = connect("localhost", port)
    refused = await dial(request, [f"localhost:{port}"], guards=(PUBLIC, PUBLIC))

    assert refused.startswith(b"HTTP/1.1 403 ")
    assert b"tools_egress_allowed_hosts" in refused.split(b"\r\n")[0]
    assert (await dial(request, [f"localhost:{port}"], guards=(AddressGuard(("localhost",)), PUBLIC))).startswith(OPEN)


async def test_what_an_organization_lists_never_leads_inside(dial, server):
    port = server.server_port
    for host in ("127.0.0.1", "localhost"):
        assert (await dial(connect(host, port), (), ["*:*", f"{host}:{port}"])).startswith(b"HTTP/1.1 403 ")
        assert (await dial(connect(host, port), [f"{host}:{port}"])).startswith(OPEN)


INWARD = [
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0.0.0.0", "[::1]", "[::]", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "169.254.169.254", "10.0.0.1",
    "192.168.0.1", "100.64.0.1", "[fe80::1]", "[fd00:ec2::254]", "localhost", "ip6-localhost",
]  # fmt: skip


@pytest.mark.parametrize("host", INWARD)
async def test_however_it_is_written_an_inward_address_is_refused(dial, server, host):
    answer = await dial(connect(host, server.server_port), ["*:*"], ["*:*"], guards=(PUBLIC, PUBLIC))

    assert answer.startswith((b"HTTP/1.1 403 ", b"HTTP/1.1 502 ")), answer
    assert not answer.startswith(OPEN)


SMUGGLED = {
    "another host in Host": "CONNECT {unlisted} HTTP/1.1\r\nHost: {listed}\r\n\r\n",
    "two authorities": "CONNECT {listed}@{unlisted} HTTP/1.1\r\n\r\n",
    "two requests": "CONNECT {unlisted} HTTP/1.1\r\n\r\nCONNECT {listed} HTTP/1.1\r\n\r\n",
    "a request after the head": "CONNECT {listed} HTTP/1.1\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    "a body": "CONNECT {listed} HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
    "a chunked body": "CONNECT {listed} HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n",
    "a body in other letters": "CONNECT {listed} HTTP/1.1\r\ntransfer-ENCODING: chunked\r\n\r\n",
    "a bare line feed": "CONNECT {listed} HTTP/1.1\nHost: x\r\n\r\n",
    "a bare carriage return": "CONNECT {listed}\rHTTP/1.1\r\n\r\n",
    "a folded header": "CONNECT {listed} HTTP/1.1\r\nA: b\r\n c\r\n\r\n",
    "a header without a name": "CONNECT {listed} HTTP/1.1\r\n: x\r\n\r\n",
    "a null byte": "CONNECT {listed}\0 HTTP/1.1\r\n\r\n",
    "spaces": "CONNECT  {listed}  HTTP/1.1\r\n\r\n",
    "a URL": "CONNECT http://{listed}/ HTTP/1.1\r\n\r\n",
    "a path": "CONNECT {listed}/x HTTP/1.1\r\n\r\n",
    "an escape": "CONNECT %31{listed} HTTP/1.1\r\n\r\n",
    "another version": "CONNECT {listed} HTTP/2.0\r\n\r\n",
    "a fetch": "GET http://{listed}/ HTTP/1.1\r\nHost: {listed}\r\n\r\n",
    "a post": "POST http://{listed}/ HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "a path alone": "GET / HTTP/1.1\r\n\r\n",
    "nonsense": "\x16\x03\x01\x00\r\n\r\n",
    "a port that is none": "CONNECT 127.0.0.1:99999 HTTP/1.1\r\n\r\n",
    "a long head": "CONNECT {listed} HTTP/1.1\r\nA: " + "x" * 9000 + "\r\n\r\n",
}


@pytest.mark.parametrize("way", list(SMUGGLED))
async def test_nothing_but_one_plain_request_opens_a_tunnel(dial, way):
    with destination() as listed, destination() as unlisted:
        names = {"listed": f"127.0.0.1:{listed.server_port}", "unlisted": f"127.0.0.1:{unlisted.server_port}"}
        answer = await dial(SMUGGLED[way].format(**names).encode("latin-1"), [names["listed"]])

        assert not answer.startswith(OPEN), answer
        assert (await dial(connect("127.0.0.1", listed.server_port), [names["listed"]])).startswith(OPEN)
        assert unlisted.seen == []


class Rebinding:
    """A name service that first tells a harmless address and then another one."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = list(addresses)

    async def resolve(self, host, port):
        return [self.addresses.pop(0)]


async def test_a_name_is_resolved_once_and_that_address_connected_to(dial, server):
    names = Rebinding("127.0.0.1", "127.0.0.66")
    answer = await dial(connect("rebind.test", server.server_port), ["*:*"], guards=(names, PUBLIC))

    assert answer.startswith(OPEN)
    assert names.addresses == ["127.0.0.66"]


async def test_a_host_that_does_not_answer_is_told_apart(dial):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        assert (await dial(connect("127.0.0.1", port), [f"127.0.0.1:{port}"])).startswith(b"HTTP/1.1 502 ")


@contextlib.asynccontextmanager
async def tunnel(server, **limits):
    """Yield an open tunnel to a server."""
    lists = Destinations(read_destinations([f"127.0.0.1:{server.server_port}"]))
    proxy = EgressProxy(Egress(INSIDE, PUBLIC, EgressLimits(**limits)), lists)
    exchange = proxy.exchange()
    try:
        reader, writer = await asyncio.open_unix_connection(sock=await take(exchange))
        writer.write(connect("127.0.0.1", server.server_port))
        assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)).startswith(OPEN)
        yield proxy, exchange, reader, writer
        writer.close()
    finally:
        exchange.close()
        await proxy.close()


async def take(exchange: socket.socket) -> socket.socket | None:
    """Ask an exchange for a stream."""
    exchange.send(b"+")
    _, fds, _, _ = await asyncio.to_thread(socket.recv_fds, exchange, 16, 1)
    return socket.socket(fileno=fds[0]) if fds else None


async def test_bytes_go_both_ways(server):
    async with tunnel(server) as (_, _, reader, writer):
        writer.write(b"GET /through HTTP/1.0\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(b"hello")
    assert "/through" in server.seen


async def test_a_tunnel_carries_no_more_than_its_bytes(server):
    async with tunnel(server, bytes=200_000) as (_, _, reader, writer):
        writer.write(b"GET /much HTTP/1.0\r\n\r\n")
        got = 0
        with contextlib.suppress(ConnectionError):
            while part := await asyncio.wait_for(reader.read(1 << 16), 10):
                got += len(part)
    assert got <= 200_000


async def test_a_tunnel_ends_when_its_time_is_up(server):
    async with tunnel(server, seconds=0.3) as (_, _, reader, _):
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_call_has_so_many_tunnels_at_once_and_in_all(server):
    async with tunnel(server, tunnels=2, asked=4) as (_, exchange, _, _):
        with await take(exchange):
            assert [await take(exchange), await take(exchange)] == [None, None]
            assert await asyncio.to_thread(exchange.recv, 1) == b""


async def test_a_tunnel_that_ended_makes_room_for_the_next(server):
    async with tunnel(server, tunnels=2, asked=1000) as (_, exchange, _, _):
        (await take(exchange)).close()
        for _ in range(100):
            if (again := await take(exchange)) is not None:
                break
        with again:
            assert again.fileno() >= 0


async def test_closing_ends_what_is_open(server):
    async with tunnel(server) as (proxy, exchange, reader, _):
        await proxy.close()
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 10) == b""
        with pytest.raises(BrokenPipeError):
            exchange.send(b"+")
