"""The way out: which addresses are public, and that the checked address is the one connected to."""

import asyncio
import ipaddress
import socket
import ssl

import httpx2
import pytest

from letta_common.egress import (
    AddressGuard,
    ForbiddenAddress,
    TooMuchData,
    guarded_client,
    is_public,
    trusted_authorities,
)
from letta_common.errors import InvalidArgument


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "192.0.0.8",
        "192.0.0.170",
        "192.88.99.1",
        "198.18.0.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b::808:808",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "2002:808:808::1",
        "3fff::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_that_lead_inside(address):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "::ffff:8.8.8.8", "2606:4700:4700::1111", "2a00:1450::1"])
def test_addresses_that_lead_outside(address):
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::ffff:127.0.0.1]/",
        "http://localhost/",
        "http://LOCALHOST./",
        "http://internal/",
        "https://169.254.169.254/latest/meta-data",
        "http://user:password@8.8.8.8/",
        "file:///etc/passwd",
        "gopher://8.8.8.8/",
        "http://",
        "//8.8.8.8/",
        "",
    ],
)
async def test_addresses_that_are_refused_at_once(url):
    with pytest.raises(InvalidArgument):
        await AddressGuard().check_url(url)


async def test_what_is_allowed_on_purpose():
    guard = AddressGuard(["127.0.0.1", "10.0.0.0/8", "localhost", "[::1]"])
    for url in ("http://127.0.0.1:8/", "http://10.9.8.7/", "http://localhost/", "http://[::1]:9/", "http://8.8.8.8/"):
        await guard.check_url(url)
    for url in ("http://127.0.0.2/", "http://192.168.0.1/"):
        with pytest.raises(ForbiddenAddress):
            await guard.check_url(url)


@pytest.fixture
async def names(monkeypatch):
    """Answer names from a table; each name may answer otherwise each time."""
    table = {}
    loop = asyncio.get_running_loop()
    real = loop.getaddrinfo

    async def getaddrinfo(host, port, **options):
        if host not in table:
            return await real(host, port, **options)
        answers = table[host]
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(loop, "getaddrinfo", getaddrinfo)
    return table


async def test_one_inward_address_among_many_is_enough_to_refuse(names):
    names["evil.example"] = [["8.8.8.8", "127.0.0.1"]]
    with pytest.raises(ForbiddenAddress):
        await AddressGuard().check_url("http://evil.example/")


@pytest.fixture
async def website():
    """A server on loopback that counts connections and answers a page, a redirect or a flood."""
    hits = []

    async def serve(reader, writer):
        request = await reader.readuntil(b"\r\n\r\n")
        path = request.split()[1].decode()
        hits.append(request.decode())
        if path == "/redirect":
            writer.write(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2/\r\ncontent-length: 0\r\n\r\n")
        elif path == "/flood":
            writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + b"x" * 1_000_000)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], hits
    server.close()
    await server.wait_closed()


async def test_a_name_that_changes_its_address_does_not_get_through(names, website):
    port, hits = website
    names["rebind.example"] = [["8.8.8.8"], ["127.0.0.1"]]
    guard = AddressGuard()
    await guard.check_url(f"http://rebind.example:{port}/")

    async with guarded_client(guard, timeout=5, most_bytes=100) as client:
        with pytest.raises(ForbiddenAddress):
            await client.get(f"http://rebind.example:{port}/")

    assert hits == []


async def test_the_name_is_asked_once_and_stays_in_the_request(names, website):
    port, hits = website
    names["site.example"] = [["127.0.0.1"], ["127.0.0.9"]]

    async with guarded_client(AddressGuard(["127.0.0.1"]), timeout=5, most_bytes=100) as client:
        answer = await client.get(f"http://site.example:{port}/")

    assert answer.text == "hi"
    assert f"site.example:{port}" in hits[0]


async def test_redirects_are_not_followed(website):
    port, hits = website
    async with guarded_client(AddressGuard(["127.0.0.1"]), timeout=5, most_bytes=100) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/redirect")).status_code == 302
    assert len(hits) == 1


async def test_a_flood_ends_at_the_limit(website):
    port, _ = website
    async with guarded_client(AddressGuard(["127.0.0.1"]), timeout=5, most_bytes=10_000) as client:
        with pytest.raises(TooMuchData):
            await client.get(f"http://127.0.0.1:{port}/flood")


async def test_proxies_of_the_environment_are_ignored(website, monkeypatch):
    port, _ = website
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    async with guarded_client(AddressGuard(["127.0.0.1"]), timeout=5, most_bytes=100) as client:
        assert (await client.get(f"http://127.0.0.1:{port}/")).text == "hi"


async def test_unknown_names_are_connection_errors(names):
    async with guarded_client(AddressGuard(), timeout=5, most_bytes=100) as client:
        with pytest.raises(httpx2.ConnectError):
            await client.get("http://no-such-name.invalid/")


async def test_what_is_trusted_is_read_once_for_all_clients(monkeypatch):
    read = []
    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", lambda *places: read.append(places))
    trusted_authorities.cache_clear()
    try:
        for _ in range(3):
            await guarded_client(AddressGuard(), timeout=5, most_bytes=100).aclose()
    finally:
        trusted_authorities.cache_clear()

    assert len(read) == 1
