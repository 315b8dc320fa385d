"""API keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from letta.auth.v1.api_key_pb2 import APIKey
from letta_auth.domain.api_keys import KeptKey, missing
from letta_auth.domain.scopes import ADMIN
from letta_auth.store.tables import api_keys, users
from letta_auth.store.users import LIVE as LIVE_USER
from letta_common.values.paging import Page
from letta_common.values.times import optional_time, time_of
from letta_postgres.connections import Connection
from letta_postgres.keyset import Keyset, fetch_page
from letta_rpc.verdicts import scopes_of, words_of

_NAMES = (
    "id",
    "organization_id",
    "user_id",
    "name",
    "scopes",
    "created_at",
    "created_by_id",
    "expires_at",
    "last_used_at",
)
_COLUMNS = [api_keys.c[name] for name in _NAMES]
_LIVE = api_keys.c.revoked_at.is_(None)


class SqlAPIKeyStore:
    """Keeps keys in `auth.api_keys`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, kept: KeptKey) -> None:
        key = kept.key
        values = {
            **{name: getattr(key, name) for name in _NAMES},
            "scopes": sorted(words_of(key.scopes)),
            "created_at": time_of(key.created_at),
            "expires_at": optional_time(key, "expires_at"),
            "last_used_at": optional_time(key, "last_used_at"),
            "secret_hash": kept.secret_hash,
            "development": kept.development,
        }
        await self._conn.execute(sa.insert(api_keys).values(**values))

    async def get(self, key_id: str, organization_id: str = "") -> APIKey:
        query = sa.select(*_COLUMNS).where(api_keys.c.id == key_id, _within(organization_id))
        row = (await self._conn.execute(query)).one_or_none()
        if row is None:
            raise missing(key_id)
        return _key(row)

    async def find_usable(self, key_id: str) -> KeptKey | None:
        # The key of a removed user stays in the table, and must open nothing.
        owned = sa.exists().where(users.c.id == api_keys.c.user_id, LIVE_USER)
        columns = (*_COLUMNS, api_keys.c.secret_hash, api_keys.c.development)
        row = (await self._conn.execute(sa.select(*columns).where(api_keys.c.id == key_id, _LIVE, owned))).one_or_none()
        if row is None:
            return None
        *key, secret_hash, development = row
        return KeptKey(_key(key), bytes(secret_hash), development)

    async def list_keys(self, page: Page, organization_id: str = "", user_id: str = "") -> Sequence[APIKey]:
        mine = _within(organization_id)
        if user_id:
            mine = sa.and_(mine, api_keys.c.user_id == user_id)
        keyset = Keyset(at=api_keys.c.created_at, id=api_keys.c.id, scope=mine)
        return [_key(row) for row in await fetch_page(self._conn, sa.select(*_COLUMNS).where(mine), page, keyset)]

    async def revoke(self, key_id: str, at: datetime) -> None:
        await self._conn.execute(sa.update(api_keys).where(api_keys.c.id == key_id, _LIVE).values(revoked_at=at))

    async def touch(self, key_id: str, at: datetime) -> None:
        await self._conn.execute(sa.update(api_keys).where(api_keys.c.id == key_id, _LIVE).values(last_used_at=at))

    async def has_admin(self) -> bool:
        query = sa.select(sa.exists().where(_LIVE, ~api_keys.c.development, api_keys.c.scopes.contains([ADMIN])))
        return bool((await self._conn.execute(query)).scalar_one())


def _within(organization_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(_LIVE, api_keys.c.organization_id == organization_id) if organization_id else _LIVE


def _key(row: Sequence[Any]) -> APIKey:
    values = dict(zip(_NAMES, row, strict=True))
    return APIKey(**values | {"scopes": scopes_of(values["scopes"])})
