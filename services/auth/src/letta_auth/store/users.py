"""Users in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta.auth.v1.user_pb2 import User
from letta_auth.domain.users import missing
from letta_auth.store.tables import organizations, users
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_postgres.connections import Connection
from letta_postgres.keyset import Keyset, fetch_page

_NAMES = ("id", "organization_id", "name", "created_at", "updated_at", "is_deleted")
_COLUMNS = [users.c[name] for name in _NAMES]
LIVE = sa.and_(
    users.c.is_deleted.is_(False),
    sa.exists().where(organizations.c.id == users.c.organization_id, organizations.c.is_deleted.is_(False)),
)
"""Users that were not removed, of organizations that were not removed."""


class SqlUserStore:
    """Keeps users in `auth.users`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, user: User) -> None:
        await self._conn.execute(sa.insert(users).values(**_values(user)))

    async def ensure(self, user: User) -> None:
        row = insert(users).values(**_values(user))
        await self._conn.execute(row.on_conflict_do_update(index_elements=["id"], set_={"is_deleted": False}))

    async def get(self, user_id: str) -> User:
        row = (await self._conn.execute(sa.select(*_COLUMNS).where(users.c.id == user_id, LIVE))).one_or_none()
        if row is None:
            raise missing(user_id)
        return _user(row)

    async def list_users(self, page: Page, organization_id: str = "") -> Sequence[User]:
        mine = sa.and_(LIVE, users.c.organization_id == organization_id) if organization_id else LIVE
        keyset = Keyset(at=users.c.created_at, id=users.c.id, scope=mine)
        return [_user(row) for row in await fetch_page(self._conn, sa.select(*_COLUMNS).where(mine), page, keyset)]

    async def update(self, user: User) -> None:
        done = await self._conn.execute(sa.update(users).where(users.c.id == user.id, LIVE).values(**_values(user)))
        if done.rowcount != 1:
            raise missing(user.id)


def _user(row: Sequence[Any]) -> User:
    return User(**dict(zip(_NAMES, row, strict=True)))


def _values(user: User) -> dict[str, Any]:
    return {
        "id": user.id,
        "organization_id": user.organization_id,
        "name": user.name,
        "created_at": time_of(user.created_at),
        "updated_at": time_of(user.updated_at),
        "is_deleted": user.is_deleted,
    }
