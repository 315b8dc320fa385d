"""Hot statements, run on libpq: prepared once a connection, with the types of parameters that the server says.

A psycopg cursor looks up anew, at each execution, how to adapt each parameter and what each column is. That was a third
of the processor time of a message; here an execution is encode, send, wait, load, a quarter of it.
"""

from __future__ import annotations

import asyncio
import re
import struct
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg
from pgvector import HalfVector
from psycopg import generators
from psycopg.adapt import PyFormat, Transformer
from psycopg.errors import error_from_result
from psycopg.pq import ExecStatus, Format

from letta_postgres.pool import PooledConnection

Params = Sequence[Any] | Mapping[str, Any]
Row = tuple[Any, ...]
Encode = Callable[[Any], bytes]

MOST = 200
"""Most statements kept prepared on a connection; more are not the constants of a program."""
_PLACEHOLDER = re.compile(r"%(?:([sbt])|(%)|\((\w+)\)[sbt])")
_CANCEL_SECONDS = 5.0
# From where Postgres counts microseconds in its binary form.
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_NULL = b"\xff\xff\xff\xff"
_BOOLEANS = {True: b"\x01", False: b"\x00"}
_length = struct.Struct(">i").pack
# Binary arrays: dimensions, whether one item is null, type, and for each dimension its length and first index.
_array_head = struct.Struct(">iiIii").pack
_no_items = struct.Struct(">iiI").pack
_one_item = struct.Struct(">iiIiii").pack


class Prepared:
    """A statement on one connection."""

    __slots__ = ("_encoders", "_formats", "_oids", "name", "names")

    def __init__(self, name: bytes, names: Sequence[str], oids: Sequence[int], more: Mapping[int, Encode]) -> None:
        self.name = name
        self.names = names
        self._oids = oids
        self._encoders = [_ENCODERS.get(oid) or more.get(oid, _unknown) for oid in oids]
        self._formats = [Format.BINARY] * len(oids)

    def send(self, conn: PooledConnection, params: Params) -> None:
        """Send the statement with its parameters."""
        if isinstance(params, Mapping):
            params = [params[name] for name in self.names]
        if len(params) != len(self._encoders):
            raise psycopg.ProgrammingError(f"the statement takes {len(self._encoders)} parameters, not {len(params)}")
        formats = self._formats
        try:
            values = [
                None if value is None else encode(value) for encode, value in zip(self._encoders, params, strict=True)
            ]
        # Whatever an encoder does not take, psycopg may: an enum, a subclass, a number where a text is meant.
        except (TypeError, AttributeError, ValueError, LookupError, OverflowError, struct.error):
            values, formats = self._adapt(conn, params)
        conn.pgconn.send_query_prepared(self.name, values, formats, Format.BINARY)

    def _adapt(self, conn: PooledConnection, params: Sequence[Any]) -> tuple[list[Any], list[Format]]:
        """Let psycopg encode the parameters: those of types that are unknown here, in text where it means another."""
        values, formats = [], []
        for oid, value in zip(self._oids, params, strict=True):
            tx = Transformer(conn)
            [data] = tx.dump_sequence([value], [PyFormat.AUTO])
            if tx.types is None or tx.types[0] != oid:
                [data] = tx.dump_sequence([value], [PyFormat.TEXT])
            values.append(data)
            formats.append(tx.formats[0] if tx.formats else Format.TEXT)
        return values, formats


def call(function: str, *names: str) -> str:
    """Return a call of a function of the database, each parameter by its name, which begins with `p_`."""
    return f"{function}({', '.join(f'p_{name} => %({name})s' for name in names)})"


async def execute(conn: PooledConnection, statement: str, params: Params | None) -> list[Row]:
    """Run a statement in one round trip and return its rows. Raises psycopg.Error."""
    prepared = conn.statements.get(statement)
    if prepared is None:
        prepared = await _prepare(conn, statement, params is not None)
    prepared.send(conn, params or ())
    try:
        result = await _result(conn)
    except psycopg.errors.InvalidSqlStatementName:  # psycopg deallocates everything after a rollback of its own
        conn.statements.clear()
        prepared = await _prepare(conn, statement, params is not None)
        prepared.send(conn, params or ())
        result = await _result(conn)
    loader = conn.loader
    loader.set_pgresult(result)
    return loader.load_rows(0, result.ntuples, tuple) if result.ntuples else []


async def _prepare(conn: PooledConnection, statement: str, has_params: bool) -> Prepared:
    if len(conn.statements) >= MOST:
        # Dictionaries keep their order, so the first is the one that was prepared longest ago.
        oldest = conn.statements.pop(next(iter(conn.statements)))
        conn.pgconn.send_close_prepared(oldest.name)
        await _result(conn)
    names: list[str] = []
    text = _numbered(statement, names) if has_params else statement
    name = f"letta_{next(conn.numbers)}".encode()
    conn.pgconn.send_prepare(name, text.encode())
    await _result(conn)
    conn.pgconn.send_describe_prepared(name)
    described = await _result(conn)
    oids = [described.param_type(index) for index in range(described.nparams)]
    prepared = conn.statements[statement] = Prepared(name, names, oids, conn.encoders)
    return prepared


def _numbered(statement: str, names: list[str]) -> str:
    """Return a statement with `$1` for `%s` and `%(name)s`, and `%` for `%%`; collect the names in order."""
    count = 0

    def placeholder(found: re.Match[str]) -> str:
        nonlocal count
        if found[2]:
            return "%"
        if found[3] is None:
            count += 1
            return f"${count}"
        if found[3] not in names:
            names.append(found[3])
        return f"${names.index(found[3]) + 1}"

    return _PLACEHOLDER.sub(placeholder, statement)


async def _result(conn: PooledConnection) -> Any:
    """Wait for the result of what was sent. Raises psycopg.Error."""
    try:
        result = await _first_result(conn)
    except asyncio.CancelledError:
        await _abandon(conn)
        raise
    if result.status == ExecStatus.FATAL_ERROR:
        error = error_from_result(result)
        raise error if error.sqlstate else psycopg.OperationalError(str(error))
    if result.status in _COPIES:
        raise psycopg.ProgrammingError("COPY is for Database.raw()")
    return result


async def _first_result(conn: PooledConnection) -> Any:
    pgconn = conn.pgconn
    if pgconn.flush():  # more than the socket takes at once
        await conn.wait(generators.send(pgconn))
    first = None
    while True:
        try:
            while pgconn.is_busy():
                await conn.arrival()
            following = pgconn.get_result()
        except psycopg.Error:
            if first is None:
                raise
            return first  # the server said why, before it hung up
        if following is None:
            return first
        first = first or following
        if following.status in _COPIES:  # there would be no end of them
            return following


async def _abandon(conn: PooledConnection) -> None:
    """End what the server works on, so that the connection can be used again; else close it."""
    conn.stop_reading()
    try:
        await conn.cancel_safe(timeout=_CANCEL_SECONDS)
        await conn.wait(generators.fetch_many(conn.pgconn), timeout=_CANCEL_SECONDS)
    except Exception:  # whatever it was: the connection is in an unknown state
        conn.pgconn.finish()
    except BaseException:
        conn.pgconn.finish()
        raise


def _unknown(value: Any) -> bytes:
    raise TypeError(f"no encoder for {type(value)}")


def _octets(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    raise TypeError("not bytes")


def _moment(value: datetime) -> bytes:
    since = value - _EPOCH
    return _int8(since.microseconds + 1_000_000 * (86_400 * since.days + since.seconds))


def _array(oid: int, encode: Encode) -> Encode:
    """Return the encoder of a list of values of a type."""

    def dump(values: list[Any]) -> bytes:
        if not isinstance(values, (list, tuple)):
            raise TypeError("not a list")
        if not values:
            return _no_items(0, 0, oid)
        if len(values) == 1 and values[0] is not None:  # a run of one step closes with eighteen of them
            data = encode(values[0])
            return _one_item(1, 0, oid, 1, 1, len(data)) + data
        parts = [b""]
        for value in values:
            if value is None:
                parts.append(_NULL)
            else:
                data = encode(value)
                parts += (_length(len(data)), data)
        parts[0] = _array_head(1, None in values, oid, len(values), 1)
        return b"".join(parts)

    return dump


_text: Encode = str.encode
_int2, _int4, _int8 = struct.Struct(">h").pack, struct.Struct(">i").pack, struct.Struct(">q").pack
_SCALARS: Mapping[int, tuple[int, Encode]] = {
    16: (1000, _BOOLEANS.__getitem__),
    17: (1001, _octets),
    20: (1016, _int8),
    21: (1005, _int2),
    23: (1007, _int4),
    25: (1009, _text),
    701: (1022, struct.Struct(">d").pack),
    1043: (1015, _text),
    1184: (1185, _moment),
}
"""Types by their number in the catalog, which never changes: the type of arrays of it, and its encoder."""
_ENCODERS: Mapping[int, Encode] = {
    **{oid: encode for oid, (_, encode) in _SCALARS.items()},
    **{array: _array(oid, encode) for oid, (array, encode) in _SCALARS.items()},
}


def vector_encoders(oid: int, array_oid: int) -> Mapping[int, Encode]:
    """Return the encoders of half-precision vectors, whose type has another number in each database."""
    encode: Encode = HalfVector.to_binary
    return {oid: encode, array_oid: _array(oid, encode)}


_COPIES = frozenset({ExecStatus.COPY_IN, ExecStatus.COPY_OUT, ExecStatus.COPY_BOTH})
