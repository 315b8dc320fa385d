"""Tools that may reach listed hosts: ordinary clients work, everything else stays out of reach. Each refusal has a
control: the same target is reached once it is listed."""

import importlib.util
import json
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from letta_common.egress import AddressGuard
from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.destinations import Destinations, read_destinations
from letta_sandbox.egress import Egress, EgressLimits
from letta_sandbox.local.provider import LocalProvider
from tests.fakes.destinations import certificate, destination

# ruff: noqa: E501 - sources of tools are text

LIBRARIES = (
    "requests",
    "urllib3",
    "certifi",
    "idna",
    "charset_normalizer",
    "httpx",
    "httpcore",
    "anyio",
    "h11",
    "typing_extensions",
)


@pytest.fixture(scope="module")
def tls():
    """A server with TLS, the certificate that clients trust, and what another such server needs."""
    context, trusted = certificate()
    with destination(context) as server:
        yield server, trusted, context


@pytest.fixture(scope="module")
def other():
    with destination() as server:
        yield server


@pytest.fixture(scope="module")
async def connected(provider):
    """A provider of the tier whose calls may reach what is listed, on loopback too."""
    egress = Egress(AddressGuard(("127.0.0.1", "localhost")), AddressGuard(), EgressLimits(tunnels=16))
    connected = LocalProvider(replace(provider._options, egress=egress))
    yield connected
    await connected.close()


@pytest.fixture(scope="module")
def libraries():
    """An environment with HTTP clients, as an installation would leave it."""
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    for name in LIBRARIES:
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:
            pytest.skip(f"{name} is not installed")
        if spec.submodule_search_locations:
            shutil.copytree(Path(spec.origin).parent, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(spec.origin, directory)
    yield Env(key="libraries", path=str(directory), organization_id="org-own")
    shutil.rmtree(directory)


@pytest.fixture
def call(connected):
    async def call(source, listed, env=None, organization="org-own", limits=None, **arguments):
        lists = Destinations(read_destinations(listed))
        made = SandboxCall(
            source, "f", json.dumps(arguments), destinations=lists, limits=limits or Limits(timeout_seconds=20)
        )
        return await connected.run(made, env or Env(organization_id=organization))

    return call


URLLIB = """
import ssl, urllib.request
def f(url, trusted=None):
    context = ssl.create_default_context(cadata=trusted) if trusted else None
    return urllib.request.urlopen(url, timeout=10, context=context).read().decode()
"""
REQUESTS = """
import requests, requests.adapters, ssl
def f(url, trusted):
    context = ssl.create_default_context(cadata=trusted)
    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *args, **kwargs):
            super().init_poolmanager(*args, ssl_context=context, **kwargs)
        def proxy_manager_for(self, proxy, **kwargs):
            return super().proxy_manager_for(proxy, ssl_context=context, **kwargs)
    session = requests.Session()
    session.mount("https://", Adapter())
    return [session.get(url, timeout=10).text for _ in range(2)][1]
"""
HTTPX = """
import httpx, ssl
def f(url, trusted):
    return httpx.get(url, timeout=10, verify=ssl.create_default_context(cadata=trusted)).text
"""
HTTPX_ASYNC = """
import asyncio, httpx, ssl
async def f(url, trusted):
    async with httpx.AsyncClient(timeout=10, verify=ssl.create_default_context(cadata=trusted)) as client:
        return (await asyncio.gather(*(client.get(url) for _ in range(3))))[2].text
"""


@pytest.mark.parametrize(
    "source", [URLLIB, REQUESTS, HTTPX, HTTPX_ASYNC], ids=["urllib", "requests", "httpx", "httpx async"]
)
async def test_ordinary_clients_reach_what_is_listed(call, tls, libraries, source):
    server, trusted, _ = tls
    at = f"127.0.0.1:{server.server_port}"
    result = await call(source, [at], env=libraries, url=f"https://{at}/", trusted=trusted)

    assert (result.status, result.result) == (CallEnding.SUCCESS, '"hello"'), result


@pytest.mark.parametrize("source", [URLLIB, REQUESTS, HTTPX], ids=["urllib", "requests", "httpx"])
async def test_what_is_not_listed_is_denied_and_the_setting_named(call, tls, libraries, other, source):
    server, trusted, _ = tls
    listed = [f"127.0.0.1:{other.server_port}"]
    result = await call(source, listed, env=libraries, url=f"https://127.0.0.1:{server.server_port}/", trusted=trusted)

    assert result.status is CallEnding.DENIED, result
    assert "tools_egress_hosts" in result.failure.message


async def test_certificates_that_nobody_vouches_for_are_not_trusted(call, tls):
    server, _, _ = tls
    at = f"127.0.0.1:{server.server_port}"
    result = await call(URLLIB, [at], url=f"https://{at}/")

    assert result.status is CallEnding.TOOL_ERROR
    assert "CERTIFICATE_VERIFY_FAILED" in result.failure.message


async def test_a_redirection_to_an_inner_host_is_refused(call, tls):
    server, trusted, context = tls
    with destination(context) as inner:
        at, inside = f"127.0.0.1:{server.server_port}", f"127.0.0.1:{inner.server_port}"
        url = f"https://{at}/to?https://{inside}/inner"
        refused = await call(URLLIB, [at], url=url, trusted=trusted)
        assert (refused.status, inner.seen) == (CallEnding.DENIED, []), refused

        reached = await call(URLLIB, [at, inside], url=url, trusted=trusted)
        assert (reached.result, inner.seen) == ('"hello"', ["/inner"]), reached


TUNNEL = """
import http.client
def f(port, way=("127.0.0.1", 3128)):
    connection = http.client.HTTPConnection(*way, timeout=5)
    connection.set_tunnel("127.0.0.1", port)
    connection.request("GET", "/tunnel")
    return connection.getresponse().read().decode()
"""
DIRECT = {
    "a connection": "import socket\ndef f(port):\n s = socket.create_connection(('127.0.0.1', port), 3)\n s.send(b'GET /direct HTTP/1.0\\r\\n\\r\\n')\n return s.recv(9).decode()",
    "a raw connection": "import ctypes, os, socket, struct\ndef f(port):\n libc = ctypes.CDLL(None, use_errno=True)\n fd = libc.socket(2, 1, 0)\n"
    " at = struct.pack('=H', 2) + struct.pack('!H4s8x', port, bytes([127, 0, 0, 1]))\n if fd < 0 or libc.connect(fd, at, 16) < 0: raise OSError(ctypes.get_errno(), 'no way')\n return fd",
    "fast open": "import socket\ndef f(port):\n s = socket.socket(socket.AF_INET, socket.SOCK_STREAM)\n s.sendto(b'GET /direct HTTP/1.0\\r\\n\\r\\n', 0x20000000, ('127.0.0.1', port))\n return s.recv(9).decode()",
    "a datagram": "import socket\ndef f(port):\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n s.sendto(b'x', ('127.0.0.1', port))",
    "IPv6": "import socket\ndef f(port):\n socket.socket(socket.AF_INET6).connect(('::1', port))",
    "a name service": "import socket\ndef f(port):\n return socket.getaddrinfo('example.com', port)",
    "a server of its own": "import socket\ndef f(port):\n s = socket.socket()\n s.bind(('127.0.0.1', 0))\n s.listen()",
    "a Unix socket": "import socket\ndef f(port):\n socket.socket(socket.AF_UNIX).connect('/run/x')",
    "an address of the host": "import socket\ndef f(port):\n socket.create_connection(('169.254.169.254', 80), 3)",
}


@pytest.mark.parametrize("way", list(DIRECT))
async def test_there_is_no_way_but_the_proxy(call, other, way):
    at = f"127.0.0.1:{other.server_port}"
    result = await call(DIRECT[way], [at], port=other.server_port)
    assert result.status is CallEnding.DENIED, result
    assert "/direct" not in other.seen

    assert (await call(TUNNEL, [at], port=other.server_port)).result == '"hello"'


async def test_the_list_of_another_organization_is_of_no_use(call, other):
    at, elsewhere = f"127.0.0.1:{other.server_port}", "127.0.0.1:1"
    before = len(other.seen)
    for organization, listed, status in (
        ("org-a", [at], CallEnding.SUCCESS),
        ("org-b", [elsewhere], CallEnding.DENIED),
        ("org-a", [at], CallEnding.SUCCESS),
        ("org-a", [elsewhere], CallEnding.DENIED),
    ):
        result = await call(TUNNEL, listed, organization=organization, port=other.server_port)
        assert result.status is status, (organization, result)

    assert len(other.seen) == before + 2


async def test_calls_without_a_list_have_no_network_at_all(call, connected, other):
    result = await connected.run(
        SandboxCall(TUNNEL, "f", json.dumps({"port": other.server_port})), Env(organization_id="org-own")
    )

    assert result.status is CallEnding.DENIED, result
    assert "tools_egress_hosts" in result.failure.message


async def test_a_provider_without_egress_opens_nothing(provider, other):
    lists = Destinations(read_destinations([f"127.0.0.1:{other.server_port}"]))
    arguments = json.dumps({"port": other.server_port})
    result = await provider.run(SandboxCall(TUNNEL, "f", arguments, destinations=lists), Env(organization_id="org-own"))

    assert result.status is CallEnding.DENIED, result


async def test_a_call_that_connects_without_end_is_bounded_and_hurts_no_other(call, other):
    at = f"127.0.0.1:{other.server_port}"
    flood = """
import socket, time
def f(port):
    held, refused, end = [], 0, time.monotonic() + 1
    while time.monotonic() < end:
        try:
            held.append(socket.create_connection(("127.0.0.1", 3128), 1))
        except OSError:
            refused += 1
    return [len(held), refused]
"""
    result = await call(flood, [at], limits=Limits(timeout_seconds=5, open_files=64), port=other.server_port)

    held, refused = json.loads(result.result)
    assert (held <= 64, refused > 0) == (True, True)
    assert (await call(TUNNEL, [at], organization="org-other", port=other.server_port)).result == '"hello"'


async def test_tunnels_end_with_their_call(call, connected, other):
    hold = "import socket, time\ndef f(port):\n s = socket.create_connection(('127.0.0.1', 3128), 3)\n s.send(f'CONNECT 127.0.0.1:{port} HTTP/1.1\\r\\n\\r\\n'.encode())\n s.recv(12)\n time.sleep(60)"
    at = f"127.0.0.1:{other.server_port}"
    result = await call(hold, [at], limits=Limits(timeout_seconds=0.5), port=other.server_port)

    assert result.status is CallEnding.TIMEOUT
    for _ in range(20):  # more than there are places, so each of them must have been given back
        assert (await call(TUNNEL, [at], port=other.server_port)).result == '"hello"'


async def test_the_tier_stays_what_it_was(connected, provider):
    assert (await connected.probe()).isolation is (await provider.probe()).isolation
    assert (await connected.probe()).isolation in (Isolation.NAMESPACE, Isolation.LANDLOCK)
