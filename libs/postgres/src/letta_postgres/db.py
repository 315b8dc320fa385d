"""Access to PostgreSQL: SQLAlchemy Core for most statements, psycopg for the hot ones, one pool for both.

All SQL is schema-qualified and keeps no session state, so that any pooler in transaction mode may stand in between.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, NoReturn, TypeVar

import psycopg
import sqlalchemy as sa
import structlog
from pgvector.psycopg.halfvec import register_halfvec_info
from psycopg import sql
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types import TypeInfo

from letta_common.errors import AppError, DatabaseUnavailable, DeadlineExceeded, InvalidArgument
from letta_postgres.addresses import plain_dsn
from letta_postgres.connections import Connection, Engine
from letta_postgres.notices import Notices
from letta_postgres.pool import Pool, PooledConnection, PoolTimeout
from letta_postgres.pulse import Pulse
from letta_postgres.statements import Params, Row, execute, vector_encoders

T = TypeVar("T")
_log = structlog.get_logger("letta.db")

# Serialization failure, deadlock, three ways in which a server stops, and a server that became a replica.
RETRYABLE_STATES = frozenset({"40001", "40P01", "57P01", "57P02", "57P03", "25006", "connection"})
"""SQLSTATEs (and class 08) after which an idempotent unit may simply be run again."""


class ConstraintViolation(Exception):
    """A write broke a constraint. Stores turn it into the error that tells the caller."""

    def __init__(self, message: str, constraint: str, table: str) -> None:
        super().__init__(message)
        self.constraint = constraint
        self.table = table


class UniqueViolation(ConstraintViolation):
    """A row with this key exists."""


class ForeignKeyViolation(ConstraintViolation):
    """A row that this one needs does not exist, or one that needs this one still does."""


@dataclass(frozen=True, slots=True)
class DatabaseOptions:
    """How a service uses its database."""

    pool_size: int = 10
    """Most connections at once, hot statements and transactions together."""
    application_name: str = "letta"
    """Shown in `pg_stat_activity`."""
    connect_timeout_s: int = 5
    pool_timeout_s: float = 10.0
    """Longest wait for a free connection."""
    statement_timeout_ms: int = 30_000
    idle_in_transaction_timeout_ms: int = 60_000
    prepared: bool = True
    """Off for pgbouncer before 1.21, which breaks prepared statements."""
    startup_options: bool = True
    """Off for poolers that refuse the startup parameter `options`; the timeouts are then the server's."""
    extra: Mapping[str, str] = field(default_factory=dict)
    """More server parameters for each connection, sent as startup options."""


class Database:
    """One service's database."""

    def __init__(self, dsn: str, schema: str, options: DatabaseOptions) -> None:
        self.schema = schema
        self.dsn = plain_dsn(dsn)
        self._options = options
        self._conninfo = _conninfo(self.dsn, options)
        self._halfvec: TypeInfo | None = None
        self._pool = Pool(self._connect, size=options.pool_size, timeout_s=options.pool_timeout_s)
        self._engine = Engine(self._lend)
        self._pulse = Pulse(self._conninfo)

    @classmethod
    async def open(cls, dsn: str, *, schema: str, options: DatabaseOptions | None = None) -> Database:
        """Connect. Raises DatabaseUnavailable when the database cannot be reached."""
        database = cls(dsn, schema, options or DatabaseOptions())
        await database.ping()
        return database

    async def close(self) -> None:
        """Close every connection."""
        await self._pulse.close()
        await self._pool.close()

    async def ping(self) -> None:
        """Ask the database for a sign of life. Raises DatabaseUnavailable."""
        await self.hot("select 1")

    async def alive(self) -> None:
        """Ask for a sign of life, however busy the pool is. Raises DatabaseUnavailable."""
        await self._pulse.beat()

    def notices(self, channel: str) -> Notices:
        """Return what wakes those who wait for notices of a channel; it connects when first somebody waits."""
        return Notices(self._conninfo, channel)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Connection]:
        """Run a block as one transaction, committed at its end and rolled back when it raises."""
        with driver_errors():
            async with self._engine.begin() as conn:
                yield conn

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Connection]:
        """Run a block in autocommit, each statement for itself: for single reads."""
        with driver_errors():
            async with self._engine.connect() as conn:
                yield conn

    async def hot(self, statement: str, params: Params | None = None) -> list[Row]:
        """Run one prepared statement in autocommit, one round trip, and return its rows in binary form."""
        try:
            conn = await self._pool.take()
            try:
                if self._options.prepared:
                    return await execute(conn, statement, params)
                cursor = await conn.cursor(binary=True).execute(statement.encode(), params)
                return await cursor.fetchall() if cursor.description else []
            finally:
                await self._pool.give_back(conn)
        except psycopg.Error as error:
            _raise_translated(error)

    @asynccontextmanager
    async def raw(self) -> AsyncIterator[PooledConnection]:
        """Lend the pool's psycopg connection in autocommit, for COPY and pipelines."""
        with driver_errors():
            async with self._pool.connection() as conn:
                yield conn

    async def _connect(self) -> PooledConnection:
        conn = await PooledConnection.connect(
            self._conninfo, autocommit=True, prepare_threshold=5 if self._options.prepared else None
        )
        if self._halfvec is None:
            try:
                self._halfvec = await TypeInfo.fetch(conn, "extensions.halfvec")
            except BaseException:
                await conn.close()  # nobody else knows of it, also when who asked for it goes away meanwhile
                raise
        if self._halfvec is not None:
            # Its number differs from database to database, as it comes with an extension; it is asked for once.
            register_halfvec_info(conn, self._halfvec)
        conn.statements, conn.numbers, conn.loader = {}, itertools.count(), Transformer(conn)
        vector = self._halfvec
        conn.encoders = vector_encoders(vector.oid, vector.array_oid) if vector else {}
        return conn

    async def _lend(self) -> PooledConnection:
        conn = await self._pool.take()
        try:
            await conn.set_autocommit(False)
        except BaseException:
            await conn.close()
            raise
        return conn


async def retry(unit: Callable[[], Awaitable[T]], *, attempts: int = 3) -> T:
    """Run an idempotent unit, again when the database lost it to a conflict, a restart or a fail-over."""
    for attempt in range(1, attempts):
        try:
            return await unit()
        except DatabaseUnavailable as error:
            if not is_retryable(error):
                raise
            await asyncio.sleep(random.uniform(0.02, 0.1) * attempt**2)  # noqa: S311 jitter
    return await unit()


def is_retryable(error: DatabaseUnavailable) -> bool:
    """Say whether running the unit again may help now."""
    state = error.metadata.get("sqlstate", "")
    return state in RETRYABLE_STATES or state.startswith("08")


@contextmanager
def driver_errors() -> Iterator[None]:
    """Turn what the drivers raise into DatabaseUnavailable, DeadlineExceeded or a ConstraintViolation."""
    try:
        yield
    except sa.exc.DBAPIError as error:
        if not isinstance(error.orig, psycopg.Error):
            raise
        _raise_translated(error.orig)
    except psycopg.Error as error:
        _raise_translated(error)


def _raise_translated(error: psycopg.Error) -> NoReturn:
    new = translated(error)
    raise new from (None if new is error else error)


def translated(error: psycopg.Error) -> Exception:
    """Return the error that the driver's stands for, or itself when it is a fault of the program."""
    state = error.sqlstate or ("22021" if "cannot contain NUL" in str(error) else "")  # which psycopg finds itself
    if isinstance(error, psycopg.IntegrityError):
        kind = _VIOLATIONS.get(state, ConstraintViolation)
        return kind(str(error), error.diag.constraint_name or "", error.diag.table_name or "")
    if state in _REFUSED:
        refusal, text = _REFUSED[state]
        return refusal(text)
    if isinstance(error, PoolTimeout):
        return DatabaseUnavailable(f"the database is busy: {error}", sqlstate="pool")
    if state[:2] in {"08", "53", "58"} or state in RETRYABLE_STATES:
        return _away(error, _STATES.get(state, f"the database cannot do this now ({state}); retry"), state)
    # libpq's own errors have no state: there was no server to give one.
    if not state and isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return _away(error, "the database does not answer; try again", "connection")
    return error


def _away(error: psycopg.Error, what: str, state: str) -> DatabaseUnavailable:
    """Return the error for callers. The driver's own words name hosts, ports and sockets: they go to the log alone."""
    _log.warning("the database is away", sqlstate=state, cause=_first_line(error))
    return DatabaseUnavailable(what, sqlstate=state)


_UNKEEPABLE = InvalidArgument, "a text holds a character that cannot be kept, such as NUL"
_REFUSED: dict[str, tuple[type[AppError], str]] = {
    "22021": _UNKEEPABLE,  # in a text
    "22P05": _UNKEEPABLE,  # escaped in jsonb
    "54000": (InvalidArgument, "a text is too long or has too many different words for its index; split it"),
    "57014": (DeadlineExceeded, "the database did not finish the statement in time"),
}
_STATES = {
    "53100": "the disk of the database is full",
    "53300": "the database accepts no more connections",
}
_VIOLATIONS: dict[str, type[ConstraintViolation]] = {"23505": UniqueViolation, "23503": ForeignKeyViolation}


def quoted(*names: str) -> str:
    """Return a qualified identifier, quoted."""
    return sql.Identifier(*names).as_string(None)


class HalfVec(sa.types.UserDefinedType[Any]):
    """Column type of a half-precision vector that travels in binary; values are `pgvector.HalfVector`."""

    cache_ok = True

    def __init__(self, dimensions: int | None = None) -> None:
        self.dimensions = dimensions

    def get_col_spec(self, **_: Any) -> str:
        return "extensions.halfvec" if self.dimensions is None else f"extensions.halfvec({self.dimensions})"


def _conninfo(dsn: str, options: DatabaseOptions) -> str:
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailable("the database address cannot be read: see LETTA_DATABASE_URL") from error
    settings: dict[str, Any] = {
        "application_name": options.application_name,
        "connect_timeout": options.connect_timeout_s,
        # The encoders of hot statements write UTF-8, whatever the database was made with.
        "client_encoding": "UTF8",
    }
    if options.startup_options:
        parameters = {
            "statement_timeout": str(options.statement_timeout_ms),
            "idle_in_transaction_session_timeout": str(options.idle_in_transaction_timeout_ms),
            **options.extra,
        }
        words = [str(given.get("options") or ""), *(f"-c {name}={value}" for name, value in parameters.items())]
        settings["options"] = " ".join(filter(None, words))
    return make_conninfo(**{**given, **settings})


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
