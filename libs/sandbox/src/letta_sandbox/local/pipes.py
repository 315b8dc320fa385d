"""The host's ends of a call's pipes: bounded readers and a writer that never block the event loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable

MESSAGE_LIMIT = 65536
"""Most bytes of one message of a control socket."""


class ByteBudget:
    """Bytes that several readers may take together."""

    def __init__(self, size: int, exceeded: Callable[[], None]) -> None:
        self.left = size
        self.exceeded = False
        self._on_exceeded = exceeded

    def take(self, size: int) -> int:
        """Say how many of `size` bytes may be kept; report once when it is not all."""
        kept = min(size, self.left)
        self.left -= kept
        if kept < size and not self.exceeded:
            self.exceeded = True
            self._on_exceeded()
        return kept


class Reader:
    """Reads a pipe to its end and keeps what its budget allows."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        fd: int,
        budget: ByteBudget,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._fd = fd
        self._budget = budget
        self._parts: list[bytes] = []
        os.set_blocking(fd, False)
        loop.add_reader(fd, self._read)

    def data(self) -> bytes:
        """Return what was kept."""
        return b"".join(self._parts)

    def _read(self) -> bool:
        """Read once; say whether there may be more at once."""
        try:
            part = os.read(self._fd, 1 << 16)
        except BlockingIOError:
            return False
        if not part or self._budget.exceeded:
            self.close()
            if self._ended is not None:
                self._ended()
            return False
        kept = self._budget.take(len(part))
        self._parts.append(part[:kept])
        return True

    def drain(self) -> None:
        """Read what is there, as far as the budget goes, and close."""
        while self._fd >= 0 and not self._budget.exceeded and self._read():
            pass
        self.close()

    def close(self) -> None:
        """Stop reading."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


class Writer:
    """Writes bytes into a pipe and closes it. A reader that went away is no error."""

    def __init__(self, loop: asyncio.AbstractEventLoop, fd: int, data: bytes) -> None:
        self._loop = loop
        self._fd = fd
        self._rest = memoryview(data)
        os.set_blocking(fd, False)
        self._write()
        if self._fd >= 0:
            loop.add_writer(fd, self._write)

    def _write(self) -> None:
        try:
            while self._rest:
                self._rest = self._rest[os.write(self._fd, self._rest) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            pass
        self.close()

    def close(self) -> None:
        """Stop writing."""
        if self._fd >= 0:
            self._loop.remove_writer(self._fd)
            os.close(self._fd)
            self._fd = -1


async def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Receive one message and the descriptors that come with it."""
    loop = asyncio.get_running_loop()
    # asyncio has no call that receives descriptors, so it waits for the message and the socket takes both.
    there: asyncio.Future[None] = loop.create_future()

    def arrived() -> None:
        loop.remove_reader(control)
        there.set_result(None)

    loop.add_reader(control, arrived)
    try:
        await there
    finally:
        loop.remove_reader(control)
    message, fds, _, _ = socket.recv_fds(control, MESSAGE_LIMIT, 1)
    return message, fds
