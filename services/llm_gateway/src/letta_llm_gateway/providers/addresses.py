"""Which addresses an organization may make the gateway call."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

from letta_common.errors import InvalidArgument

_TUNNELS = (ip_network("64:ff9b::/96"), ip_network("2002::/16"), ip_network("::/96"))
"""Networks that lead to IPv4 addresses and that `is_global` lets pass."""
_SPECIAL = ip_network("192.0.0.0/24")


async def public(address: str) -> None:
    """Raise InvalidArgument unless every IP address of the host is on the public internet."""
    parts = urlsplit(address)
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise InvalidArgument(f"base_url {address!r} is no http address", field="base_url")
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(5):
            found = await loop.getaddrinfo(parts.hostname, parts.port or 443, type=socket.SOCK_STREAM)
    except (OSError, TimeoutError, UnicodeError) as error:
        raise InvalidArgument(f"base_url names an unknown host {parts.hostname!r}", field="base_url") from error
    for *_, (host, *_rest) in found:
        if not is_public(ip_address(str(host).partition("%")[0])):
            raise InvalidArgument(
                f"base_url leads to {parts.hostname!r}, which is not on the public internet", field="base_url"
            )


async def anywhere(address: str) -> None:
    """Allow any address, for a deployment that serves one organization."""


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Say whether an address is on the public internet."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(address.ipv4_mapped)
        if any(address in network for network in _TUNNELS):
            return False
    return address.is_global and not address.is_multicast and address not in _SPECIAL
