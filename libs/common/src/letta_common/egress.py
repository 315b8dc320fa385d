"""The way out to the network: each address of a name is checked, and the checked address is connected to."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import socket
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import httpcore2
import httpx2

from letta_common.errors import InvalidArgument

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Addresses that lead inside although `ipaddress` calls them global: translations, tunnels and relays.
_INWARD: tuple[Network, ...] = tuple(
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "240.0.0.0/4",
        "::/96",
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "100::/64",
        "2001::/23",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fc00::/7",
        "fe80::/10",
        "fec0::/10",
    )
)
_PORTS = {"http": 80, "https": 443}  # an address with its usual port is the same place as one without
_METADATA_IPV6 = ipaddress.ip_address("fd00:ec2::254")  # AWS's, not link-local as its other one is
_METADATA_HOSTS = frozenset({"metadata", "metadata.google.internal", "instance-data"})


class ForbiddenAddress(InvalidArgument):
    """The address does not lead to the public internet, and the deployment does not allow it."""


class TooMuchData(Exception):
    """The answer is larger than the limit."""


def is_public(address: Address) -> bool:
    """Say whether an address leads to the public internet, however it is written."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    if not address.is_global or address.is_multicast or address.is_reserved or address.is_unspecified:
        return False
    return not any(address.version == network.version and address in network for network in _INWARD)


def _gives_metadata(address: Address) -> bool:
    """Say whether a cloud may answer here with the machine's own credentials."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return address.is_link_local or address == _METADATA_IPV6


def origin_of(url: str) -> str:
    """Return scheme, host and port of an address in one form: what a secret that is sent there is bound to."""
    try:
        read = httpx2.URL(url.strip())
    except (httpx2.InvalidURL, ValueError):
        return url  # no other address is the same as one that cannot be read
    host = read.raw_host.decode("ascii", "replace").lower().rstrip(".")
    return f"{read.scheme}://{host}:{read.port or _PORTS.get(read.scheme, 0)}"


class AddressGuard:
    """Decides where connections may go.

    Allowed are host names, addresses and networks that lead inside on purpose; `*` allows all but metadata services.
    """

    def __init__(self, allowed: Sequence[str] = ()) -> None:
        self._names: set[str] = set()
        self._networks: list[Network] = []
        self._anywhere = False
        for entry in allowed:
            if entry == "*":
                self._anywhere = True
                continue
            try:
                self._networks.append(ipaddress.ip_network(entry.strip("[]"), strict=False))
            except ValueError:
                self._names.add(entry.lower().rstrip("."))

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, all of them allowed. Raises ForbiddenAddress, OSError."""
        name = host.lower().rstrip(".").strip("[]")  # a dot at its end makes no other name of it
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(name, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if name not in self._names:
            for text in addresses:
                self._check(name, ipaddress.ip_address(text.partition("%")[0]))
            if name in _METADATA_HOSTS:
                raise _forbidden(name)
        return addresses

    async def check_url(self, url: str) -> httpx2.URL:
        """Return the address read. Raises ForbiddenAddress, and InvalidArgument for one that is none."""
        try:
            read = httpx2.URL(url)
        except (httpx2.InvalidURL, ValueError, TypeError) as error:
            raise InvalidArgument(f"`{url[:200]}` is no address", field="url") from error
        if read.scheme not in {"http", "https"} or not read.host:
            raise InvalidArgument("the address must begin with http:// or https:// and name a host", field="url")
        if read.userinfo:
            raise InvalidArgument("the address must not contain credentials", field="url")
        # A name without a dot is completed by the search domains of this host, which lie inside.
        bare = "." not in read.host and ":" not in read.host
        if bare and not self._anywhere and read.host.lower() not in self._names:
            raise _forbidden(read.host)
        with suppress(OSError, UnicodeError):  # a name that is not known now is checked when it is connected to
            await self.resolve(read.host, read.port or 443)
        return read

    def _check(self, host: str, address: Address) -> None:
        if is_public(address) or (self._anywhere and not _gives_metadata(address)):
            return
        if not any(address.version == network.version and address in network for network in self._networks):
            raise _forbidden(host)


class GuardedBackend(httpcore2.AsyncNetworkBackend):
    """Connects to checked addresses only; TLS and the Host header keep the name."""

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard
        self._inner = httpcore2.AnyIOBackend()

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  (the signature is httpcore's)
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore2.AsyncNetworkStream:
        """Resolve once, check every address, connect to the first that answers."""
        try:
            async with asyncio.timeout(timeout):
                addresses = await self._guard.resolve(host, port)
        except (OSError, UnicodeError) as error:
            raise httpcore2.ConnectError(f"the name {host} cannot be resolved") from error
        last: Exception = httpcore2.ConnectError(f"{host} has no address")
        # Each address may take the whole timeout, so a name with many dead ones must not hold up its caller for long.
        for address in addresses[:4]:
            try:
                return await self._inner.connect_tcp(address, port, timeout, local_address, socket_options)
            except (httpcore2.ConnectError, httpcore2.ConnectTimeout) as error:
                last = error
        raise last

    async def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore2.AsyncNetworkStream:
        """Refuse."""
        raise httpcore2.ConnectError("unix sockets are out of reach")

    async def sleep(self, seconds: float) -> None:
        """Wait between attempts."""
        await asyncio.sleep(seconds)


trusted_authorities = functools.cache(httpx2.create_ssl_context)
"""What every client trusts. Read once: reading takes tens of milliseconds of the event loop, and a megabyte to keep."""


class GuardedTransport(httpx2.AsyncHTTPTransport):
    """HTTP over guarded connections, with a limit on what an answer may hold."""

    def __init__(self, guard: AddressGuard, most_bytes: int, connections: int = 10) -> None:
        super().__init__(verify=trusted_authorities(), trust_env=False)
        self._most_bytes = most_bytes
        self._pool = httpcore2.AsyncConnectionPool(
            ssl_context=trusted_authorities(),
            max_connections=connections,
            network_backend=GuardedBackend(guard),
        )

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send a request; the answer's body ends with TooMuchData above the limit, and must not be compressed."""
        response = await super().handle_async_request(request)
        # A compressed body would count little against the limit and hold far more once it is unpacked.
        if response.headers.get("content-encoding", "identity").lower() != "identity":
            await response.aclose()
            raise httpx2.RemoteProtocolError("the answer is compressed, which was not asked for")
        if isinstance(response.stream, httpx2.AsyncByteStream):
            response.stream = Bounded(response.stream, self._most_bytes)
        return response


class Bounded(httpx2.AsyncByteStream):
    """A body that ends with TooMuchData above a limit."""

    def __init__(self, inner: httpx2.AsyncByteStream, most: int) -> None:
        self._inner = inner
        self._left = most

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._inner:
            self._left -= len(part)
            if self._left < 0:
                raise TooMuchData("the answer is larger than the limit")
            yield part

    async def aclose(self) -> None:
        await self._inner.aclose()


def guarded_client(
    guard: AddressGuard,
    *,
    timeout: float,
    most_bytes: int,
    headers: Mapping[str, str] | None = None,
    read_timeout: float | None = None,
    connections: int = 10,
) -> httpx2.AsyncClient:
    """Return a client that follows no redirects, reads no environment and goes where the guard lets it."""
    return httpx2.AsyncClient(
        transport=GuardedTransport(guard, most_bytes, connections),
        headers={"accept-encoding": "identity", **(headers or {})},
        timeout=httpx2.Timeout(timeout, read=read_timeout or timeout),
        follow_redirects=False,
        trust_env=False,  # a proxy from the environment would connect on its own, past the guard
    )


def _forbidden(host: str) -> ForbiddenAddress:
    return ForbiddenAddress(f"{host} is not on the public internet and not allowed by this deployment", field="url")
