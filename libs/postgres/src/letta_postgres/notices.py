"""Wakes who waits for what others write: Postgres tells it by NOTIFY, on one connection for all of a process."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from letta_common.process.periodic import Periodic

_PAUSE_SECONDS = 1.0  # between two attempts to connect


class Notices:
    """One channel of NOTIFY, whose payload says whom a notice is for.

    A notice may be lost, as behind a pooler or when the connection breaks: who waits looks by himself now and then.
    """

    def __init__(self, conninfo: str, channel: str) -> None:
        self._conninfo = conninfo
        self._channel = channel
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)
        self._hearing = Periodic("hear notices", self._hear, _PAUSE_SECONDS, at_once=True)

    @contextmanager
    def listen(self, key: str, woken: asyncio.Event) -> Iterator[None]:
        """Set the event whenever there is a notice with this payload, or when one may have been lost."""
        self._waiting[key].add(woken)
        self._hearing.start()
        try:
            yield
        finally:
            self._waiting[key].discard(woken)
            if not self._waiting[key]:
                del self._waiting[key]

    async def close(self) -> None:
        """Stop listening."""
        await self._hearing.stop()

    async def _hear(self) -> None:
        """Wake who waits until the connection breaks, which the next turn makes again."""
        async with await psycopg.AsyncConnection.connect(self._conninfo, autocommit=True) as conn:
            await conn.execute(f'listen "{self._channel}"'.encode())
            for key in list(self._waiting):
                self._wake(key)
            async for notice in conn.notifies():
                self._wake(notice.payload)

    def _wake(self, key: str) -> None:
        for woken in self._waiting.get(key, ()):
            woken.set()
