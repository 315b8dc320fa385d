"""Pages read from Postgres are those that `Page.slice` cuts in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa

from letta_common.errors import CursorNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_postgres.db import Database
from letta_postgres.keyset import Keyset, fetch_page

items = sa.Table(
    "items",
    sa.MetaData(schema="public"),
    sa.Column("organization_id", sa.Text, primary_key=True),
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("name", sa.Text),
)
MINE = items.c.organization_id == "org-a"
BY_TIME = Keyset(items.c.created_at, items.c.id, MINE)
SIZED = Keyset(items.c.created_at, items.c.id, MINE, large=(items.c.name,))
BY_NAME = Keyset(items.c.name, items.c.id, MINE)
NOW = datetime.now(UTC)
UUID4 = "item-00000000-0000-4000-8000-000000000009"


def row(number: int, organization: str = "org-a") -> dict[str, Any]:
    made = NOW - timedelta(seconds=100 - number // 3)
    return {"organization_id": organization, "id": new_id("item"), "created_at": made, "name": f"n{number % 5}"}


ROWS = [row(number) for number in range(20)]
FOREIGN = row(5, "org-b")


@pytest.fixture(scope="module")
async def db(databases: Any) -> AsyncIterator[Database]:
    dsn = databases.empty()
    database = await Database.open(dsn, schema="public")
    async with database.begin() as conn:
        await conn.execute(sa.schema.CreateTable(items))
        await conn.execute(sa.insert(items), [*ROWS, FOREIGN])
    yield database
    await database.close()
    databases.drop(dsn)


async def read(db: Database, page: Page, keyset: Keyset = BY_TIME) -> list[Any]:
    async with db.connect() as conn:
        rows = await fetch_page(conn, sa.select(items.c.id).where(MINE), page, keyset)
    return [found.id for found in rows]


def expected(page: Page, column: str = "created_at") -> list[str]:
    return [found["id"] for found in page.slice(ROWS, lambda found: (found[column], found["id"]))]


CURSORS = ["", ROWS[0]["id"], ROWS[7]["id"], ROWS[19]["id"]]


@pytest.mark.parametrize("column", ["created_at", "name"])
async def test_pages_are_those_of_the_twin_in_memory(db: Database, column: str) -> None:
    keyset = BY_TIME if column == "created_at" else BY_NAME
    for ascending, before, after, limit in product((True, False), CURSORS, CURSORS, (1, 4, 50)):
        page = Page(limit, ascending, before, after)

        assert await read(db, page, keyset) == expected(page, column), page


async def test_cursor_of_a_row_that_is_gone_keeps_its_place(db: Database) -> None:
    gone = new_id("item")

    assert await read(db, Page(50, False, after=gone)) == expected(Page(50, False, after=gone))
    assert await read(db, Page(50, True, after=gone)) == []
    with pytest.raises(CursorNotFound):
        await read(db, Page(50, True, after=gone), BY_NAME)


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("cursor", [UUID4, "nonsense"])
async def test_cursor_that_never_was_is_refused(db: Database, cursor: str, ascending: bool) -> None:
    for page in (Page(50, ascending, after=cursor), Page(50, ascending, before=cursor)):
        with pytest.raises(CursorNotFound):
            await read(db, page)


@pytest.mark.parametrize("ascending", [True, False])
async def test_cursor_of_another_kind_is_refused(db: Database, ascending: bool) -> None:
    other = new_id("other")
    for page in (Page(50, ascending, after=other), Page(50, ascending, before=other)):
        with pytest.raises(CursorNotFound):
            await read(db, page)


async def test_cursor_of_another_tenant_finds_nothing(db: Database) -> None:
    with pytest.raises(CursorNotFound):
        await read(db, Page(50, after=FOREIGN["id"]), BY_NAME)


async def test_page_is_one_statement(db: Database) -> None:
    statements: list[str] = []
    async with db.connect() as conn:
        sa.event.listen(conn.sync_connection, "before_cursor_execute", lambda *args: statements.append(args[2]))
        await fetch_page(conn, sa.select(items.c.id).where(MINE), Page(3, after=ROWS[5]["id"]), BY_TIME)

    assert len(statements) == 1


@pytest.mark.parametrize("ascending", [True, False])
@pytest.mark.parametrize("most", [1, 6, 7, 1000])
async def test_a_page_ends_where_its_rows_are_large(
    db: Database, monkeypatch: pytest.MonkeyPatch, ascending: bool, most: int
) -> None:
    """Names have two bytes each: a page ends with the row that reaches the limit, and the pages make the whole list."""
    monkeypatch.setattr("letta_postgres.keyset._MAX_ROW_BYTES", most)
    ids = [id for _, id in sorted((row["created_at"], row["id"]) for row in ROWS)]
    expected = ids if ascending else ids[::-1]
    forwards: list[str] = []
    while page := await read(db, Page(5, ascending, after=forwards[-1] if forwards else ""), SIZED):
        assert len(page) <= min(5, (most + 1) // 2)
        forwards += page
    backwards = expected[-1:]
    while page := await read(db, Page(5, ascending, before=backwards[0]), SIZED):
        backwards = page + backwards

    assert forwards == backwards == expected
