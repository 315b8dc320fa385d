"""Providers of organizations in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from letta.llm.v1.model_pb2 import PROVIDER_CATEGORY_BYOK
from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta.llm.v1.provider_pb2 import Provider
from letta.llm.v1.provider_service_pb2 import ListProvidersRequest
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_common.values.times import optional_time, stamp_of, time_of
from letta_llm_gateway.domain.catalogue.accounts import ADDRESSES, SECRETS, OwnProvider, missing, taken
from letta_llm_gateway.store.tables import defaults, providers
from letta_postgres.db import Database, UniqueViolation
from letta_postgres.keyset import Keyset, fetch_page


class SqlProviderStore:
    """Keeps providers in `llm.providers`."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def create(self, actor: Actor, provider: OwnProvider) -> None:
        """Store a new provider."""
        try:
            async with self._db.begin() as conn:
                values = _values(provider)
                key = {"id": provider.shown.id, "organization_id": actor.organization_id}
                await conn.execute(sa.insert(providers).values(**key, **values, created_at=values["updated_at"]))
        except UniqueViolation as error:
            raise taken(provider.shown.name) from error

    async def get(self, actor: Actor, provider_id: str) -> OwnProvider:
        """Return one provider."""
        async with self._db.connect() as conn:
            found = await conn.execute(sa.select(providers).where(self._mine(actor), providers.c.id == provider_id))
            row = found.first()
        if row is None:
            raise missing(provider_id)
        return _provider(row)

    async def list_all(self, actor: Actor) -> Sequence[OwnProvider]:
        """Return every provider of the organization."""
        async with self._db.connect() as conn:
            rows = await conn.execute(sa.select(providers).where(self._mine(actor)).order_by(providers.c.id))
            return [_provider(row) for row in rows]

    async def list_providers(self, actor: Actor, page: Page, wanted: ListProvidersRequest) -> list[OwnProvider]:
        """Return one page. Raises CursorNotFound."""
        query = sa.select(providers).where(self._mine(actor))
        if wanted.name:
            query = query.where(providers.c.name == wanted.name)
        if wanted.provider_type:
            query = query.where(providers.c.provider_type == wanted.provider_type)
        keyset = Keyset(at=providers.c.created_at, id=providers.c.id, scope=self._mine(actor))
        async with self._db.connect() as conn:
            return [_provider(row) for row in await fetch_page(conn, query, page, keyset)]

    async def update(self, actor: Actor, provider: OwnProvider) -> None:
        """Write a provider that exists."""
        mine = self._mine(actor), providers.c.id == provider.shown.id
        async with self._db.begin() as conn:
            done = await conn.execute(sa.update(providers).where(*mine).values(_values(provider)))
            if done.rowcount != 1:
                raise missing(provider.shown.id)

    async def delete(self, actor: Actor, provider_id: str) -> None:
        """Delete a provider."""
        async with self._db.begin() as conn:
            done = await conn.execute(sa.delete(providers).where(self._mine(actor), providers.c.id == provider_id))
            if done.rowcount != 1:
                raise missing(provider_id)

    async def get_defaults(self, actor: Actor) -> ModelDefaults:
        """Return the handles that the organization chose."""
        columns = defaults.c
        query = sa.select(columns.handle, columns.embedding_handle).where(
            columns.organization_id == actor.organization_id
        )
        async with self._db.connect() as conn:
            row = (await conn.execute(query)).first()
        if row is None:
            return ModelDefaults()
        return ModelDefaults(handle=row.handle, embedding_handle=row.embedding_handle)

    async def put_defaults(self, actor: Actor, chosen: ModelDefaults, at: datetime) -> None:
        """Store the handles that the organization chose."""
        values = {"handle": chosen.handle, "embedding_handle": chosen.embedding_handle, "updated_at": at}
        statement = postgresql.insert(defaults).values(organization_id=actor.organization_id, **values)
        async with self._db.begin() as conn:
            await conn.execute(statement.on_conflict_do_update(index_elements=["organization_id"], set_=values))

    @staticmethod
    def _mine(actor: Actor) -> sa.ColumnElement[bool]:
        return providers.c.organization_id == actor.organization_id


def _values(provider: OwnProvider) -> dict[str, Any]:
    """Return what changes in the row of a provider."""
    shown = provider.shown
    return {
        "name": shown.name,
        "provider_type": shown.provider_type,
        **{name: getattr(shown, name) or None for name in ADDRESSES},
        **{name: provider.keys.get(name) for name in SECRETS},
        "updated_at": time_of(shown.updated_at),
        "last_synced": optional_time(shown, "last_synced"),
    }


def _provider(row: sa.Row[Any]) -> OwnProvider:
    shown = Provider(
        id=row.id,
        name=row.name,
        provider_type=row.provider_type,
        provider_category=PROVIDER_CATEGORY_BYOK,
        base_url=row.base_url,
        region=row.region,
        api_version=row.api_version,
        organization_id=row.organization_id,
        updated_at=stamp_of(row.updated_at),
        last_synced=stamp_of(row.last_synced),
    )
    sealed = {"api_key": row.api_key, "access_key": row.access_key}
    return OwnProvider(shown, {name: key for name, key in sealed.items() if key})
