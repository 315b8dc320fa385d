"""Sockets of a call on tier L, which may not connect: streams to the egress proxy that the host hands over."""

from __future__ import annotations

import errno
import os
import socket
import threading
from typing import Any

PROXY_ADDRESS = ("127.0.0.1", 3128)
_ASK = b"+"
_PRIVATE_ENDS: dict[str, socket.socket] = {}
_LOCK = threading.Lock()
_Address = Any


class TunnelSocket(socket.socket):
    """A stream socket that connects to the proxy and to nothing else. Others are as the system has them, or refuses."""

    def __init__(self, family: int = -1, type: int = -1, proto: int = -1, fileno: int | None = None) -> None:
        wanted = socket.AF_INET if family == -1 else family
        kind = socket.SOCK_STREAM if type == -1 else type & 0xF
        if fileno is not None or wanted != socket.AF_INET or kind != socket.SOCK_STREAM:
            super().__init__(family, type, proto, fileno)
            return
        # The filter refuses `socket`, but a descriptor must be there before `connect`: half of a pair holds the place.
        placeholder, other = socket.socketpair()
        other.close()
        super().__init__(wanted, socket.SOCK_STREAM, socket.IPPROTO_TCP, placeholder.detach())

    def connect(self, address: _Address) -> None:
        """Connect to the proxy. Raises PermissionError for every other address."""
        if self.family != socket.AF_INET:
            super().connect(address)
            return
        if tuple(address[:2]) != PROXY_ADDRESS:
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        stream = _ask()
        os.dup2(stream, self.fileno(), inheritable=False)
        os.close(stream)
        # Whether a socket blocks is a property of the stream, which is another one now.
        self.settimeout(self.gettimeout())

    def connect_ex(self, address: _Address) -> int:
        """Connect; return the number of the error."""
        try:
            self.connect(address)
        except OSError as error:
            return error.errno or errno.EIO
        return 0

    def setsockopt(self, *options: Any) -> None:
        """Set an option; those of TCP say nothing here."""
        if options[0] != socket.IPPROTO_TCP:
            super().setsockopt(*options)

    def getpeername(self) -> _Address:
        """Return the address of the proxy."""
        return PROXY_ADDRESS if self.family == socket.AF_INET else super().getpeername()


def _ask() -> int:
    exchange = _PRIVATE_ENDS.get("exchange")
    if exchange is None:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    with _LOCK:  # so that no thread takes the stream that another one has asked for
        exchange.send(_ASK)
        _, streams, _, _ = socket.recv_fds(exchange, 16, 1)
    if not streams:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "too many connections")
    return streams[0]


def plug(exchange: int) -> None:
    """Have every socket of this process go through an exchange."""
    _PRIVATE_ENDS["exchange"] = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, fileno=exchange)
    socket.socket = socket.SocketType = TunnelSocket  # type: ignore[misc,assignment]
