"""Authorizations of MCP servers in PostgreSQL."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta_common.actor import Actor
from letta_postgres.db import Database
from letta_tools.domain.mcp.oauth import PENDING, OAuthSession

_metadata = sa.MetaData(schema="tools")
_sessions = sa.Table(
    "mcp_oauth_sessions",
    _metadata,
    sa.Column("id", sa.Text),
    sa.Column("mcp_server_id", sa.Text),
    sa.Column("state_hash", sa.LargeBinary),
    sa.Column("status", sa.Text),
    sa.Column("answer", sa.LargeBinary),
    sa.Column("created_by_id", sa.Text),
    sa.Column("created_at", sa.DateTime(timezone=True)),
    sa.Column("expires_at", sa.DateTime(timezone=True)),
    sa.Column("organization_id", sa.Text),
)
_grants = sa.Table(
    "mcp_oauth_grants",
    _metadata,
    sa.Column("organization_id", sa.Text),
    sa.Column("mcp_server_id", sa.Text),
    sa.Column("grant_sealed", sa.LargeBinary),
    sa.Column("updated_at", sa.DateTime(timezone=True)),
)
_COLUMNS = list(_sessions.c)[:-1]


class SqlOAuthStore:
    """Attempts and grants of an organization."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def begin(self, actor: Actor, session: OAuthSession) -> None:
        """Add an attempt; those of the server that came before are gone."""
        earlier = sa.delete(_sessions).where(_mine(actor), _sessions.c.mcp_server_id == session.mcp_server_id)
        async with self._db.begin() as conn:
            await conn.execute(earlier)
            await conn.execute(sa.insert(_sessions).values(**asdict(session), organization_id=actor.organization_id))

    async def find(self, actor: Actor, session_id: str) -> OAuthSession | None:
        """Return an attempt."""
        async with self._db.connect() as conn:
            query = sa.select(*_COLUMNS).where(_mine(actor), _sessions.c.id == session_id)
            row = (await conn.execute(query)).first()
        return OAuthSession(*row) if row else None

    async def settle(self, actor: Actor, session_id: str, status: str, answer: bytes, now: datetime) -> bool:
        """Answer a pending attempt that has not expired; say whether there was one."""
        # Asked in the statement itself, so that of two answers one alone counts.
        waiting = (_sessions.c.id == session_id, _sessions.c.status == PENDING, _sessions.c.expires_at > now)
        statement = sa.update(_sessions).where(_mine(actor), *waiting).values(status=status, answer=answer)
        async with self._db.connect() as conn:
            return (await conn.execute(statement)).rowcount == 1

    async def find_grant(self, actor: Actor, server_id: str) -> bytes | None:
        """Return the sealed grant of a server."""
        owned = (_grants.c.organization_id == actor.organization_id, _grants.c.mcp_server_id == server_id)
        async with self._db.connect() as conn:
            row = (await conn.execute(sa.select(_grants.c.grant_sealed).where(*owned))).first()
        return bytes(row[0]) if row else None

    async def put_grant(self, actor: Actor, server_id: str, grant: bytes, now: datetime) -> None:
        """Write the sealed grant of a server."""
        values = {"grant_sealed": grant, "updated_at": now}
        place = {"organization_id": actor.organization_id, "mcp_server_id": server_id}
        statement = insert(_grants).values(**place, **values)
        async with self._db.connect() as conn:
            await conn.execute(statement.on_conflict_do_update(index_elements=list(place), set_=values))


def _mine(actor: Actor) -> sa.ColumnElement[bool]:
    return _sessions.c.organization_id == actor.organization_id
