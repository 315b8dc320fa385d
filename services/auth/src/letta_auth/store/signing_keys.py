"""Signing keys in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import sqlalchemy as sa

from letta.auth.v1.credential_service_pb2 import SigningKey
from letta_auth.domain.signing_keys import KeyPair
from letta_auth.store.tables import signing_keys
from letta_common.values.times import stamp_of, time_of
from letta_postgres.connections import Connection

_QUERY = sa.select(
    signing_keys.c.id, signing_keys.c.public_key, signing_keys.c.sealed_private_key, signing_keys.c.created_at
).order_by(signing_keys.c.created_at.desc(), signing_keys.c.id.desc())
_ACTIVE = signing_keys.c.retired_at.is_(None)


class SqlSigningKeyStore:
    """Keeps keys in `auth.signing_keys`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, pair: KeyPair) -> None:
        values = {
            "id": pair.key.id,
            "public_key": pair.key.public_key,
            "sealed_private_key": pair.sealed_private_key,
            "created_at": time_of(pair.key.created_at),
        }
        await self._conn.execute(sa.insert(signing_keys).values(**values))

    async def retire(self, older_than: datetime, at: datetime) -> None:
        old = sa.and_(_ACTIVE, signing_keys.c.created_at <= older_than)
        await self._conn.execute(sa.update(signing_keys).where(old).values(retired_at=at))

    async def list_active(self) -> Sequence[KeyPair]:
        return await self._fetch(_ACTIVE)

    async def list_since(self, retired_since: datetime) -> Sequence[SigningKey]:
        pairs = await self._fetch(sa.or_(_ACTIVE, signing_keys.c.retired_at > retired_since))
        return [pair.key for pair in pairs]

    async def _fetch(self, which: sa.ColumnElement[bool]) -> list[KeyPair]:
        rows = await self._conn.execute(_QUERY.where(which))
        return [
            KeyPair(SigningKey(id=id_, public_key=bytes(public), created_at=stamp_of(at)), bytes(sealed))
            for id_, public, sealed, at in rows
        ]
