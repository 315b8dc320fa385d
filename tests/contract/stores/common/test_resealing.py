"""Rotation of the encryption key in each service that seals: everything is sealed anew, and nothing else changes."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest

from letta_agent.wiring import SEALED as OF_AGENT
from letta_auth.wiring import SEALED as OF_AUTH
from letta_common.errors import InternalError
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_llm_gateway.wiring import SEALED as OF_MODELS
from letta_postgres.db import Database
from letta_postgres.resealing import Resealer, SealedColumn
from letta_tools.wiring import SEALED as OF_TOOLS

NOW = datetime(2026, 11, 22, tzinfo=UTC)
# What stands in the columns that a row cannot be without, beside those that name it and the sealed one.
FILL = {"text": "", "bytea": b"", "timestamp with time zone": NOW, "bigint": 1, "integer": 1, "smallint": 1}
COLUMNS = [*OF_AGENT, *OF_AUTH, *OF_MODELS, *OF_TOOLS]


@pytest.fixture
async def db(database_url, column):
    database = await Database.open(database_url, schema=column.name.partition(".")[0])
    yield database
    table, _, name = column.name.rpartition(".")
    await database.hot(f"delete from {table} where substr({name}, 1, 1) = %s", (b"\x03",))
    await database.close()


async def put(db: Database, column: SealedColumn, place: SealedAt, sealed: bytes) -> None:
    """Store one secret in a row that has nothing else, whatever other tables want of it."""
    table, _, name = column.name.rpartition(".")
    values = {name: sealed, **dict(zip(column.row, place.row.split("/"), strict=True))}
    if column.organization:
        values[column.organization] = place.organization_id
    needed = (
        "select column_name, data_type from information_schema.columns where is_nullable = 'NO' "
        "and column_default is null and table_schema || '.' || table_name = %s"
    )
    values = {each: FILL[kind] for each, kind in await db.hot(needed, (table,))} | values
    marks = ", ".join(["%s"] * len(values))
    async with db.raw() as connection:
        await connection.execute("set session_replication_role = replica")
        await connection.execute(f"insert into {table} ({', '.join(values)}) values ({marks})", list(values.values()))
        await connection.execute("set session_replication_role = origin")


async def read(db: Database, column: SealedColumn, place: SealedAt) -> bytes:
    table, _, name = column.name.rpartition(".")
    where = " and ".join(f"{each} = %s" for each in column.key)
    keys = ([place.organization_id] if column.organization else []) + place.row.split("/")
    [(sealed,)] = await db.hot(f"select {name} from {table} where {where}", tuple(keys))
    return bytes(sealed)


@pytest.mark.parametrize("column", COLUMNS, ids=lambda column: column.name)
async def test_the_encryption_key_is_renewed(db, column):
    def place() -> SealedAt:
        organization_id = new_id("org") if column.organization else ""
        return SealedAt(column.name, organization_id, "/".join(new_id("thing") for _ in column.row))

    old, both, new = Sealer([b"old"]), Sealer([b"new", b"old"]), Sealer([b"new"])
    places = [place() for _ in range(3)]
    lost, current = place(), place()
    for each in places:
        await put(db, column, each, old.seal(each, each.row.encode()))
    await put(db, column, lost, Sealer([b"lost"]).seal(lost, b"lost"))
    was = both.seal(current, b"current")
    await put(db, column, current, was)

    resealer = Resealer(db, both, [column])
    assert await resealer.reseal() == 3
    assert await resealer.reseal() == 0

    for each in places:
        sealed = await read(db, column, each)
        assert new.open(each, sealed) == each.row.encode()
        with pytest.raises(InternalError):
            old.open(each, sealed)
    for one, other in pairwise(places):
        with pytest.raises(InternalError):
            new.open(one, await read(db, column, other))
    assert await read(db, column, current) == was
    assert await read(db, column, lost)
