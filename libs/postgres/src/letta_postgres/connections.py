"""SQLAlchemy Core on psycopg's asynchronous connections.

Core's statements and results, without `sqlalchemy.ext.asyncio`: that imports the ORM, a third of a second and 8 MB that
nothing here uses.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar, TypeVarTuple, overload

import sqlalchemy as sa
from sqlalchemy.pool import NullPool
from sqlalchemy.sql.selectable import TypedReturnsRows
from sqlalchemy.util import greenlet_spawn

from letta_postgres.pool import PooledConnection

T = TypeVar("T")
Columns = TypeVarTuple("Columns")


class Connection:
    """A database connection, in a transaction or in autocommit. `sync_connection` is for listeners to its events."""

    def __init__(self, conn: sa.Connection) -> None:
        self.sync_connection = conn

    @overload
    async def execute(
        self, statement: TypedReturnsRows[*Columns], parameters: Any = None
    ) -> sa.CursorResult[*Columns]: ...

    @overload
    async def execute(self, statement: sa.Executable, parameters: Any = None) -> sa.CursorResult[*tuple[Any, ...]]: ...

    async def execute(self, statement: Any, parameters: Any = None) -> Any:
        """Run a statement and return its whole result."""
        return await greenlet_spawn(self.sync_connection.execute, statement, parameters)


class Engine:
    """Runs Core's statements on connections that it borrows."""

    def __init__(self, lend: Callable[[], Awaitable[PooledConnection]]) -> None:
        def creator() -> Any:
            dbapi: Any = self._engine.dialect.dbapi
            return dbapi.connect(async_creator_fn=lend)

        # SQLAlchemy's own pool would keep connections from the hot statements, so it borrows one for each block.
        self._engine = sa.create_engine("postgresql+psycopg_async://", poolclass=NullPool, creator=creator)
        self._single = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """Run a block as one transaction, committed at its end and rolled back when it raises."""
        async with _borrowed(self._engine) as conn:
            transaction = await greenlet_spawn(conn.begin)
            try:
                yield Connection(conn)
            except BaseException:
                await _to_the_end(greenlet_spawn(transaction.rollback))
                raise
            await greenlet_spawn(transaction.commit)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Run a block in autocommit, each statement for itself."""
        async with _borrowed(self._single) as conn:
            yield Connection(conn)


@asynccontextmanager
async def _borrowed(engine: sa.Engine) -> AsyncIterator[sa.Connection]:
    conn = await greenlet_spawn(engine.connect)
    try:
        yield conn
    finally:
        await _to_the_end(greenlet_spawn(conn.close))


async def _to_the_end(work: Awaitable[T]) -> T:
    """Await what must finish even when the caller is cancelled meanwhile."""
    return await asyncio.shield(asyncio.ensure_future(work))
