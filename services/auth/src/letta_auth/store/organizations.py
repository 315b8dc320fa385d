"""Organizations in SQL."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta.auth.v1.organization_pb2 import Organization
from letta_auth.domain.organizations import missing
from letta_auth.store.tables import organizations
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_postgres.connections import Connection
from letta_postgres.keyset import Keyset, fetch_page

_NAMES = ("id", "name", "privileged_tools", "created_at", "updated_at")
_COLUMNS = [organizations.c[name] for name in _NAMES]
_LIVE = organizations.c.is_deleted.is_(False)
_KEYSET = Keyset(at=organizations.c.created_at, id=organizations.c.id, scope=_LIVE)


class SqlOrganizationStore:
    """Keeps organizations in `auth.organizations`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, organization: Organization) -> None:
        await self._conn.execute(sa.insert(organizations).values(**_values(organization)))

    async def ensure(self, organization: Organization) -> None:
        row = insert(organizations).values(**_values(organization))
        # An update takes the lock of a row that is there, so that others wait; doing nothing would not.
        await self._conn.execute(row.on_conflict_do_update(index_elements=["id"], set_={"is_deleted": False}))

    async def get(self, organization_id: str) -> Organization:
        return await self._one(organization_id, sa.select(*_COLUMNS))

    async def hold(self, organization_id: str) -> Organization:
        return await self._one(organization_id, sa.select(*_COLUMNS).with_for_update())

    async def _one(self, organization_id: str, query: sa.Select[Any]) -> Organization:
        row = (await self._conn.execute(query.where(organizations.c.id == organization_id, _LIVE))).one_or_none()
        if row is None:
            raise missing(organization_id)
        return _organization(row)

    async def list_organizations(self, page: Page) -> Sequence[Organization]:
        query = sa.select(*_COLUMNS).where(_LIVE)
        return [_organization(row) for row in await fetch_page(self._conn, query, page, _KEYSET)]

    async def update(self, organization: Organization) -> None:
        await self._change(organization.id, _values(organization))

    async def delete(self, organization_id: str, at: datetime) -> None:
        await self._change(organization_id, {"is_deleted": True, "updated_at": at})

    async def _change(self, organization_id: str, values: Mapping[str, Any]) -> None:
        change = sa.update(organizations).where(organizations.c.id == organization_id, _LIVE).values(**values)
        if (await self._conn.execute(change)).rowcount != 1:
            raise missing(organization_id)


def _organization(row: Sequence[Any]) -> Organization:
    return Organization(**dict(zip(_NAMES, row, strict=True)))


def _values(organization: Organization) -> dict[str, Any]:
    return {
        "id": organization.id,
        "name": organization.name,
        "privileged_tools": organization.privileged_tools,
        "created_at": time_of(organization.created_at),
        "updated_at": time_of(organization.updated_at),
    }
