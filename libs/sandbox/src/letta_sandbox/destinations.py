"""Where tools may go: destinations as the operator and an organization list them."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from letta_common.errors import InvalidArgument

HTTPS = 443
ANY_PORT = 0
_MOST_DESTINATIONS = 200
_NAME = re.compile(r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,62})(?:\.[a-z0-9_](?:[a-z0-9_-]{0,62}))*")


@dataclass(frozen=True, slots=True)
class Destination:
    """A host and a port: a name, an address, `*.name` for the names below one, or `*`. Port 0 is any."""

    host: str
    port: int = HTTPS

    def matches(self, host: str, port: int) -> bool:
        """Say whether a host, as `canonical` gives it, and a port are meant."""
        if self.port not in (ANY_PORT, port):
            return False
        if self.host in {"*", host}:
            return True
        return self.host.startswith("*.") and host.endswith(self.host[1:]) and not _is_address(host)

    def within(self, other: Destination) -> bool:
        """Say whether everything that is meant here is meant there too."""
        if other.port not in (ANY_PORT, self.port):
            return False
        if other.host in {"*", self.host}:
            return True
        return other.host.startswith("*.") and self.host.endswith(other.host[1:]) and not _is_address(self.host)

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port or '*'}"


@dataclass(frozen=True, slots=True)
class Destinations:
    """What one organization's tools may reach: what the operator opened for all, and what it opened for itself."""

    operator: tuple[Destination, ...] = ()
    organization: tuple[Destination, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.operator or self.organization)


def read_destinations(texts: Iterable[str]) -> tuple[Destination, ...]:
    """Read `host` and `host:port`. Raises InvalidArgument."""
    read = tuple(dict.fromkeys(read_destination(text) for text in texts))
    if len(read) > _MOST_DESTINATIONS:
        raise InvalidArgument(f"at most {_MOST_DESTINATIONS} hosts can be listed", field="egress_hosts")
    return read


def read_destination(text: str) -> Destination:
    """Read one destination; without a port it is that of HTTPS. Raises InvalidArgument."""
    host, _, port = text.rpartition(":") if re.fullmatch(r"(\[.*\]|[^:]*):(\d{1,5}|\*)", text) else (text, "", "")
    number = ANY_PORT if port == "*" else int(port or HTTPS)
    name = host if host == "*" else canonical(host.removeprefix("*."))
    if not name or number > 65535 or (port not in {"", "*"} and not number):
        raise InvalidArgument(f"`{text[:200]}` is no host such as `api.example.com:443`", field="egress_hosts")
    return Destination(f"*.{name}" if host.startswith("*.") else name, number)


def canonical(host: str) -> str:
    """Return the one way to write a name or an address; empty when it is neither."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        name = host.lower().removesuffix(".")
        return name if _NAME.fullmatch(name) else ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
