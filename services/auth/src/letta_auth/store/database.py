"""Auth's database in SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from letta_auth.store.api_keys import SqlAPIKeyStore
from letta_auth.store.audit import SqlAuditStore
from letta_auth.store.organizations import SqlOrganizationStore
from letta_auth.store.signing_keys import SqlSigningKeyStore
from letta_auth.store.users import SqlUserStore
from letta_postgres.connections import Connection
from letta_postgres.db import Database


class SqlTransaction:
    """The SQL stores on one connection."""

    def __init__(self, conn: Connection) -> None:
        self.organizations = SqlOrganizationStore(conn)
        self.users = SqlUserStore(conn)
        self.api_keys = SqlAPIKeyStore(conn)
        self.signing_keys = SqlSigningKeyStore(conn)
        self.audit = SqlAuditStore(conn)


class SqlAuthDatabase:
    """Everything that auth keeps, in Postgres."""

    def __init__(self, db: Database) -> None:
        self._db = db

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[SqlTransaction]:
        """Run a block as one transaction."""
        async with self._db.begin() as conn:
            yield SqlTransaction(conn)

    @asynccontextmanager
    async def read(self) -> AsyncIterator[SqlTransaction]:
        """Run a block of single reads."""
        async with self._db.connect() as conn:
            yield SqlTransaction(conn)
