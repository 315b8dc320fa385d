"""MCP servers in PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page
from letta_tools.domain.mcp.servers import SealedMCPServer

_servers = sa.Table(
    "mcp_servers",
    sa.MetaData(schema="tools"),
    sa.Column("id", sa.Text),
    sa.Column("server_name", sa.Text),
    sa.Column("server_type", sa.Text),
    sa.Column("config", sa.Text),
    sa.Column("secrets", sa.LargeBinary),
    sa.Column("created_by_id", sa.Text),
    sa.Column("last_updated_by_id", sa.Text),
    sa.Column("version", sa.BigInteger),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
    sa.Column("organization_id", sa.Text),
)
_COLUMNS = list(_servers.c)[:-1]


class SqlMCPServerStore:
    """MCP servers of an organization."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def find(self, actor: Actor, server_id: str) -> SealedMCPServer | None:
        """Return one server."""
        query = sa.select(*_COLUMNS).where(_mine(actor), _servers.c.id == server_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _server(row) if row else None

    async def find_named(self, actor: Actor, name: str) -> SealedMCPServer | None:
        """Return one server by name."""
        query = sa.select(*_COLUMNS).where(_mine(actor), _servers.c.server_name == name)
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        return _server(row) if row else None

    async def list_servers(self, actor: Actor, page: Page) -> list[SealedMCPServer]:
        """Return a page of servers."""
        keyset = Keyset(at=_servers.c.created_at, id=_servers.c.id, scope=_mine(actor))
        async with self._db.connect() as conn:
            rows = await fetch_page(conn, sa.select(*_COLUMNS).where(_mine(actor)), page, keyset)
            return [_server(row) for row in rows]

    async def create(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Add a server; say whether its name was free."""
        values = {**asdict(server), "organization_id": actor.organization_id}
        return await self._write(sa.insert(_servers).values(**values))

    async def update(self, actor: Actor, server: SealedMCPServer) -> bool:
        """Write a server; say whether its name was free."""
        statement = sa.update(_servers).where(_mine(actor), _servers.c.id == server.id)
        return await self._write(statement.values(**asdict(server)))

    async def delete(self, actor: Actor, server_id: str) -> bool:
        """Remove a server and its tools; say whether there was one."""
        statement = sa.delete(_servers).where(_mine(actor), _servers.c.id == server_id)
        async with self._db.connect() as conn:
            return (await conn.execute(statement)).rowcount == 1

    async def _write(self, statement: sa.Insert | sa.Update) -> bool:
        try:
            async with self._db.connect() as conn:
                await conn.execute(statement)
        except UniqueViolation:
            return False
        return True


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return _servers.c.organization_id == actor.organization_id


def _server(row: Sequence[Any]) -> SealedMCPServer:
    return SealedMCPServer(*row)
