"""The audit log in SQL. The end of each chain stands in the organization's row, which orders its writers."""

from __future__ import annotations

from dataclasses import asdict

import sqlalchemy as sa

from letta_auth.domain.audit import AuditEntry, link
from letta_auth.store.tables import audit_log, organizations
from letta_postgres.connections import Connection


class SqlAuditStore:
    """Keeps entries in `auth.audit_log`."""

    def __init__(self, conn: Connection) -> None:
        self._conn = conn

    async def append(self, entry: AuditEntry) -> None:
        mine = organizations.c.id == entry.organization_id
        # Two writers that read the same end would both chain to it, so the row is locked first.
        head = sa.select(organizations.c.audit_seq, organizations.c.audit_hash).where(mine).with_for_update()
        seq, previous = (await self._conn.execute(head)).one()
        digest = link(bytes(previous), entry)
        await self._conn.execute(sa.insert(audit_log).values(**asdict(entry), seq=seq + 1, hash=digest))
        await self._conn.execute(sa.update(organizations).where(mine).values(audit_seq=seq + 1, audit_hash=digest))

    async def list_entries(self, organization_id: str) -> list[tuple[AuditEntry, bytes]]:
        log = audit_log.c
        rows = await self._conn.execute(
            sa.select(
                log.organization_id, log.at, log.actor_user_id, log.action, log.target_id, log.request_id, log.hash
            )
            .where(log.organization_id == organization_id)
            .order_by(log.seq)
        )
        return [(AuditEntry(*row[:-1]), bytes(row[-1])) for row in rows]
