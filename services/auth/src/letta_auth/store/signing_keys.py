"""Signing keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

import sqlalchemy as sa

from letta_auth.domain.signing_keys import SigningKey
from letta_auth.store.tables import signing_keys
from letta_postgres.connections import Connection

_QUERY = sa.select(
    signing_keys.c.id, signing_keys.c.public_key, signing_keys.c.sealed_private_key, signing_keys.c.created_at
).order_by(signing_keys.c.created_at.desc(), signing_keys.c.id.desc())
_ACTIVE = signing_keys.c.retired_at.is_(None)


class SqlSigningKeyStore:
    """Keeps keys in `auth.signing_keys`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, key: SigningKey) -> None:
        await self._conn.execute(sa.insert(signing_keys).values(**asdict(key)))

    async def retire(self, older_than: datetime, at: datetime) -> None:
        old = sa.and_(_ACTIVE, signing_keys.c.created_at <= older_than)
        await self._conn.execute(sa.update(signing_keys).where(old).values(retired_at=at))

    async def list_active(self) -> Sequence[SigningKey]:
        return await self._fetch(_ACTIVE)

    async def list_since(self, retired_since: datetime) -> Sequence[SigningKey]:
        return await self._fetch(sa.or_(_ACTIVE, signing_keys.c.retired_at > retired_since))

    async def _fetch(self, which: sa.ColumnElement[bool]) -> Sequence[SigningKey]:
        rows = await self._conn.execute(_QUERY.where(which))
        return [SigningKey(id_, bytes(public), bytes(sealed), at) for id_, public, sealed, at in rows]
