"""A pool of psycopg connections that fails fast and recovers at once.

A request that finds no idle connection opens one itself, so a lost database is reported when it is noticed and used
again with the first request after its return: there is no reconnection schedule to wait for. A dead idle connection is
found by looking at its socket, without a round trip.
"""

from __future__ import annotations

import asyncio
import select
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.pq import ConnStatus, TransactionStatus

from letta_postgres.arrivals import Arrivals

if TYPE_CHECKING:
    from psycopg.abc import Transformer

    from letta_postgres.statements import Encode, Prepared

_IN_TRANSACTION = frozenset({TransactionStatus.INTRANS, TransactionStatus.INERROR})


class PoolTimeout(psycopg.OperationalError):
    """All connections were busy for too long."""


class PoolClosed(psycopg.InterfaceError):
    """The pool was closed."""


class PooledConnection(psycopg.AsyncConnection[Any]):
    """A connection whose `close` gives it back to its pool, so that SQLAlchemy can borrow it."""

    pool: Pool | None = None
    encoders: Mapping[int, Encode]
    """How values of types that extensions bring are encoded, by the numbers of these."""
    statements: dict[str, Prepared]
    """What is prepared on this connection."""
    numbers: Iterator[int]
    """Of the names of what is prepared."""
    loader: Transformer
    """Turns results into values."""
    _arrivals: Arrivals | None = None

    def arrival(self) -> asyncio.Future[None]:
        """Return what is done when the answer to what was sent on libpq itself is complete."""
        if self._arrivals is None:
            self._arrivals = Arrivals(self.pgconn)
        return self._arrivals.next()

    def stop_reading(self) -> None:
        """End our own reading of the socket, so that psycopg or the next borrower can read from it."""
        if self._arrivals is not None:
            self._arrivals.close()
            self._arrivals = None

    async def wait(self, gen: Any, *args: Any, **options: Any) -> Any:
        """Run what psycopg does on the connection; it reads by itself."""
        self.stop_reading()
        return await super().wait(gen, *args, **options)

    async def close(self) -> None:
        """Give the connection back, or close it when it belongs to no pool."""
        if self.pool is None:
            await super().close()
        else:
            await self.pool.give_back(self)

    async def close_for_good(self) -> None:
        """Close the connection itself."""
        self.pool = None
        self.stop_reading()
        await super().close()

    def add_notice_handler(self, callback: Callable[..., None]) -> None:
        """Add a handler once: each borrower adds its own again."""
        if callback not in self._notice_handlers:
            super().add_notice_handler(callback)


class Pool:
    """At most `size` connections, shared by everything that talks to one database."""

    def __init__(self, connect: Callable[[], Awaitable[PooledConnection]], *, size: int, timeout_s: float) -> None:
        self._connect = connect
        self._timeout_s = timeout_s
        self._idle: deque[PooledConnection] = deque()
        self._slots = asyncio.Semaphore(size)
        self._closed = False

    async def take(self) -> PooledConnection:
        """Return a live connection in autocommit mode. Raises psycopg.Error."""
        # A timeout costs a timer; most takes find a free slot and need none.
        if self._slots.locked():
            await self._wait()
        else:
            await self._slots.acquire()
        try:
            return await self._live()
        except BaseException:
            self._slots.release()
            raise

    async def give_back(self, conn: PooledConnection) -> None:
        """Take a connection back, ended of any transaction; a broken one is dropped."""
        conn.pool = None
        try:
            status = conn.pgconn.transaction_status
            if status in _IN_TRANSACTION:
                await conn.rollback()
                status = conn.pgconn.transaction_status
            if self._closed or status != TransactionStatus.IDLE:
                await conn.close_for_good()
                return
            if not conn.autocommit:
                await conn.set_autocommit(True)
            self._idle.append(conn)
        except psycopg.Error:
            await conn.close_for_good()
        except BaseException:
            conn.stop_reading()
            conn.pgconn.finish()
            raise
        finally:
            self._slots.release()

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[PooledConnection]:
        """Lend a connection for a block."""
        conn = await self.take()
        try:
            yield conn
        finally:
            await self.give_back(conn)

    async def close(self) -> None:
        """Close the idle connections now and the lent ones when they come back."""
        self._closed = True
        while self._idle:
            await self._idle.pop().close_for_good()

    async def _wait(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise PoolTimeout(f"all connections were busy for {self._timeout_s:.0f} s") from error

    async def _live(self) -> PooledConnection:
        if self._closed:
            raise PoolClosed("the pool is closed")
        while self._idle:
            conn = self._idle.pop()
            if _is_live(conn):
                break
            await conn.close_for_good()
        else:
            conn = await self._connect()
        conn.pool = self
        return conn


def _is_live(conn: PooledConnection) -> bool:
    """Read what the server sent while the connection lay idle: its farewell, if it went away."""
    pgconn = conn.pgconn
    try:
        poll = select.poll()
        poll.register(pgconn.socket, select.POLLIN)
        while poll.poll(0):
            pgconn.consume_input()
            if pgconn.status != ConnStatus.OK:
                return False
    except (psycopg.Error, OSError, ValueError):
        return False
    return pgconn.status == ConnStatus.OK
