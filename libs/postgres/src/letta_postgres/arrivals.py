"""Tells when a database server has answered."""

from __future__ import annotations

import asyncio
import os

import psycopg
from psycopg.pq.abc import PGconn


class Arrivals:
    """Reads what a server sends on one connection, for as long as it is open.

    To begin and to end listening with each statement, as psycopg does, takes nine system calls of uvloop.
    The descriptor is one of our own, since libpq closes its own when the connection breaks.
    """

    def __init__(self, pgconn: PGconn) -> None:
        self._pgconn = pgconn
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._descriptor = os.dup(pgconn.socket)
        self._loop.add_reader(self._descriptor, self._arrived)

    def next(self) -> asyncio.Future[None]:
        """Return what is done when the answer to what was sent is complete; it fails with psycopg.Error."""
        if self._descriptor < 0:
            raise psycopg.OperationalError("the connection is lost")
        self._waiter = self._loop.create_future()
        return self._waiter

    def close(self) -> None:
        """Stop reading: the connection is closed, or psycopg reads it from here on."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _arrived(self) -> None:
        waiter = None if self._waiter is None or self._waiter.done() else self._waiter
        try:
            self._pgconn.consume_input()
            done = not self._pgconn.is_busy()
        except psycopg.Error as error:
            self.close()
            if waiter is not None:
                waiter.set_exception(error)
            return
        if done and waiter is not None:
            waiter.set_result(None)
