"""The one way out of a sandbox: a proxy on the host that opens tunnels to listed destinations, and does nothing else.

What is confined reaches it through a listener in its own network namespace, or through an exchange that hands it
streams. Each of them belongs to one organization, so that nothing a client says decides whose list holds.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

from letta_common.errors import InvalidArgument
from letta_sandbox.cage.tunnels import PROXY_ADDRESS
from letta_sandbox.destinations import Destinations, canonical

PROXY_URL = f"http://{PROXY_ADDRESS[0]}:{PROXY_ADDRESS[1]}"
ASK, REFUSE = b"+", b"-"

_HEAD_LIMIT = 8192
_PIECE = 1 << 16
_HEAD_SECONDS = 10.0
_CONNECT_SECONDS = 10.0
_CLOSING_SECONDS = 30.0
_PACE_SECONDS = 0.005
# All attempts share `_CONNECT_SECONDS`; more addresses of one host would hardly get their turn.
_ADDRESSES = 4
_REQUEST = re.compile(r"CONNECT (\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253}):([0-9]{1,5}) HTTP/1\.[01]")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\t\x20-\x7e]*")
_BODY_HEADERS = ("content-length", "transfer-encoding")
# SO_LINGER with no time to linger: closing sends RST instead of an orderly end.
_RESET = struct.pack("ii", 1, 0)

LIST_HINT = "setting tools_egress_hosts, or egress_hosts of the organization's sandbox configuration"
INSIDE_HINT = "setting tools_egress_allowed_hosts"


class Resolver(Protocol):
    """Knows the addresses of hosts."""

    async def resolve(self, host: str, port: int) -> list[str]:
        """Return the addresses of a host, all of them checked. Raises InvalidArgument, OSError."""
        ...


@dataclass(frozen=True, slots=True)
class EgressLimits:
    """What tunnels may use: seconds and bytes of each, how many are open at once, how many one call may ask for."""

    seconds: float = 180.0
    bytes: int = 64 << 20
    tunnels: int = 32
    asked: int = 500


@dataclass(frozen=True, slots=True)
class Egress:
    """The operator's part: who resolves what the operator listed, who what organizations listed, and the limits."""

    operator: Resolver
    organization: Resolver
    limits: EgressLimits = field(default_factory=EgressLimits)


class EgressProxy:
    """Serves what is confined for one organization."""

    def __init__(self, egress: Egress, destinations: Destinations) -> None:
        self._egress = egress
        self._destinations = destinations
        self._places = asyncio.Semaphore(egress.limits.tunnels)
        self._tasks: set[asyncio.Task[None]] = set()

    def listen(self, listener: socket.socket) -> None:
        """Serve those who connect to a listening socket, which is closed in the end."""
        listener.setblocking(False)
        self._start(self._accept(listener))

    def exchange(self) -> socket.socket:
        """Return a socket that hands a stream to the proxy to whoever sends `ASK`; it holds for one call."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._start(self._hand_out(ours))
        return theirs

    async def close(self) -> None:
        """End every tunnel."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with listener, contextlib.suppress(OSError):
            while True:
                await self._places.acquire()
                try:
                    client, _ = await loop.sock_accept(listener)
                except BaseException:
                    self._places.release()
                    raise
                self._start(self._serve(client))
                await asyncio.sleep(_PACE_SECONDS)  # a client that does nothing but connect must not keep the host busy

    async def _hand_out(self, ours: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        with ours, contextlib.suppress(OSError):
            # Bounds the whole call, since each stream that is asked for costs the host something even if it is refused.
            for _ in range(self._egress.limits.asked):
                if await loop.sock_recv(ours, 16) != ASK:
                    return
                if self._places.locked():
                    await loop.sock_sendall(ours, REFUSE)
                    await asyncio.sleep(_PACE_SECONDS)
                    continue
                await self._places.acquire()
                client, stream = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                client.setblocking(False)
                self._start(self._serve(client))
                with stream:
                    socket.send_fds(ours, [ASK], [stream.fileno()])

    async def _serve(self, client: socket.socket) -> None:
        """Answer one request for a tunnel and carry what goes through it."""
        try:
            with client, contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._egress.limits.seconds):
                    await self._tunnel(client)
        finally:
            self._places.release()

    async def _tunnel(self, client: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        try:
            host, port = _read_request(await _head(client))
            remote = await self._connect(host, port)
        except _Refused as refusal:
            await loop.sock_sendall(client, refusal.answer())
            # Closed at once, the socket would take with it an answer that the client has not read yet.
            client.shutdown(socket.SHUT_WR)
            return
        with remote:
            await loop.sock_sendall(client, b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _carry(client, remote, self._egress.limits.bytes)

    async def _connect(self, host: str, port: int) -> socket.socket:
        """Connect to a destination that is listed, at an address that was checked. Raises _Refused."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                return await _connected(await self._resolver(host, port).resolve(host, port), port)
        except InvalidArgument as error:
            raise _Refused(403, f"{host} leads to an address that is not public ({INSIDE_HINT})") from error
        except (OSError, UnicodeError) as error:
            raise _Refused(502, f"{host}:{port} cannot be reached") from error

    def _resolver(self, host: str, port: int) -> Resolver:
        if any(each.matches(host, port) for each in self._destinations.operator):
            return self._egress.operator
        if any(each.matches(host, port) for each in self._destinations.organization):
            return self._egress.organization
        raise _Refused(403, f"{host}:{port} is not among the hosts that tools may reach ({LIST_HINT})")


class _Refused(Exception):
    """No tunnel; the message says why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self._status = status

    def answer(self) -> bytes:
        """Return it as an answer. The reason is in the first line, where clients look for it."""
        why = str(self)
        return (
            f"HTTP/1.1 {self._status} {why}\r\nContent-Type: text/plain\r\nContent-Length: {len(why)}\r\n"
            f"Connection: close\r\n\r\n{why}"
        ).encode("ascii", "replace")


async def _head(client: socket.socket) -> bytes:
    """Read up to the empty line; nothing may follow it, as a client waits for the answer. Raises _Refused."""
    loop = asyncio.get_running_loop()
    read = b""
    async with asyncio.timeout(_HEAD_SECONDS):
        while b"\r\n\r\n" not in read:
            part = await loop.sock_recv(client, _HEAD_LIMIT)
            read += part
            if not part or len(read) > _HEAD_LIMIT:
                raise _Refused(400, "no request that ends was sent")
    if not read.endswith(b"\r\n\r\n") or read.index(b"\r\n\r\n") != len(read) - 4:
        raise _Refused(400, "something was sent before the tunnel was open")
    return read


def _read_request(head: bytes) -> tuple[str, int]:
    """Return host and port. Headers say nothing here, but must be headers. Raises _Refused."""
    request, *headers = head[:-4].decode("latin-1").split("\r\n")
    if request.split(" ", 1)[0] in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}:
        raise _Refused(405, "only tunnels (CONNECT) are served, as for https:// addresses")
    found = _REQUEST.fullmatch(request)
    host, port = (canonical(found[1]), int(found[2])) if found else ("", 0)
    if not host or not 0 < port < 65536 or not all(_HEADER.fullmatch(line) for line in headers):
        raise _Refused(400, "this is no CONNECT request")
    if any(line.partition(":")[0].lower() in _BODY_HEADERS for line in headers):
        raise _Refused(400, "a CONNECT request has no body")
    return host, port


async def _connected(addresses: list[str], port: int) -> socket.socket:
    """Connect to the first address that answers. Raises OSError."""
    loop = asyncio.get_running_loop()
    fault = OSError("no address")
    # Addresses and not the name: what was checked is what is connected to, whatever DNS says by now.
    for address in addresses[:_ADDRESSES]:
        remote = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
        remote.setblocking(False)
        try:
            await loop.sock_connect(remote, (address, port))
        except OSError as error:
            fault = error
            remote.close()
        except BaseException:
            remote.close()
            raise
        else:
            return remote
    raise fault


async def _carry(client: socket.socket, remote: socket.socket, most: int) -> None:
    """Carry bytes both ways until both have ended, or there were too many."""
    budget = _Budget(most)
    try:
        async with asyncio.TaskGroup() as group:
            up = group.create_task(_pump(client, remote, budget))
            down = group.create_task(_pump(remote, client, budget))
            await asyncio.wait((up, down), return_when=asyncio.FIRST_COMPLETED)
            await asyncio.wait((up, down), timeout=_CLOSING_SECONDS)
            up.cancel()
            down.cancel()
    except* (OSError, _Exhausted):
        for each in (client, remote):
            with contextlib.suppress(OSError):  # a reset says that the stream was cut off, an end would not
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


class _Exhausted(Exception):
    """A tunnel has carried all that it may."""


class _Budget:
    def __init__(self, most: int) -> None:
        self._left = most

    def take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _Exhausted


async def _pump(source: socket.socket, sink: socket.socket, budget: _Budget) -> None:
    loop = asyncio.get_running_loop()
    while part := await loop.sock_recv(source, _PIECE):
        budget.take(len(part))
        await loop.sock_sendall(sink, part)
    sink.shutdown(socket.SHUT_WR)
