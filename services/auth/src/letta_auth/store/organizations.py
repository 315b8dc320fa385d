"""Organizations in SQL."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from letta_auth.domain.organizations import Organization, missing
from letta_auth.store.tables import organizations
from letta_common.values.paging import Page
from letta_postgres.connections import Connection
from letta_postgres.keyset import Keyset, fetch_page

_COLUMNS = (
    organizations.c.id,
    organizations.c.name,
    organizations.c.privileged_tools,
    organizations.c.created_at,
    organizations.c.updated_at,
    organizations.c.is_deleted,
)
_LIVE = organizations.c.is_deleted.is_(False)
_KEYSET = Keyset(at=organizations.c.created_at, id=organizations.c.id, scope=_LIVE)


class SqlOrganizationStore:
    """Keeps organizations in `auth.organizations`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def create(self, organization: Organization) -> None:
        await self._conn.execute(sa.insert(organizations).values(**asdict(organization)))

    async def ensure(self, organization: Organization) -> None:
        row = insert(organizations).values(**asdict(organization))
        await self._conn.execute(row.on_conflict_do_update(index_elements=["id"], set_={"is_deleted": False}))

    async def get(self, organization_id: str) -> Organization:
        query = sa.select(*_COLUMNS).where(organizations.c.id == organization_id, _LIVE)
        row = (await self._conn.execute(query)).one_or_none()
        if row is None:
            raise missing(organization_id)
        return _organization(row)

    async def list_organizations(self, page: Page) -> Sequence[Organization]:
        query = sa.select(*_COLUMNS).where(_LIVE)
        return [_organization(row) for row in await fetch_page(self._conn, query, page, _KEYSET)]

    async def update(self, organization: Organization) -> None:
        done = await self._conn.execute(
            sa.update(organizations)
            .where(organizations.c.id == organization.id, _LIVE)
            .values(
                name=organization.name,
                privileged_tools=organization.privileged_tools,
                updated_at=organization.updated_at,
                is_deleted=organization.is_deleted,
            )
        )
        if done.rowcount != 1:
            raise missing(organization.id)


def _organization(row: Sequence[Any]) -> Organization:
    return Organization(*row)
