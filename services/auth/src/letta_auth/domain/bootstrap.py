"""The first organization, user and key of a deployment."""

from __future__ import annotations

from letta.auth.v1.api_key_pb2 import APIKey
from letta.auth.v1.organization_pb2 import Organization
from letta.auth.v1.user_pb2 import User
from letta_auth.domain.api_keys import KeptKey, Pepper
from letta_auth.domain.audit import AuditEntry
from letta_auth.domain.database import AuthDatabase, Transaction
from letta_auth.domain.scopes import ALL
from letta_common.clock import Clock
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_rpc.verdicts import scopes_of

# The ids of V1's own defaults, which its clients may have written down.
DEFAULT_ORGANIZATION_ID = "org-00000000-0000-4000-8000-000000000000"
DEFAULT_USER_ID = "user-00000000-0000-4000-8000-000000000000"


class Bootstrap:
    """Makes what nobody can make yet. Repeating it, also at the same time, changes nothing."""

    def __init__(self, db: AuthDatabase, pepper: Pepper, clock: Clock) -> None:
        self._db = db
        self._pepper = pepper
        self._clock = clock

    async def ensure_defaults(self) -> None:
        """Make the default organization and its user, or bring them back."""
        async with self._db.begin() as tx:
            await self._ensure_defaults(tx)

    async def admin_key(self) -> str | None:
        """Make the first key of an administrator and return its secret, or None when there is one already."""
        now, id_ = self._clock.now(), new_id("api_key")
        secret = self._pepper.new_secret(id_)
        async with self._db.begin() as tx:
            await self._ensure_defaults(tx)  # which makes whoever else is here wait
            if await tx.api_keys.has_admin():
                return None
            await tx.api_keys.create(
                KeptKey(
                    APIKey(
                        id=id_,
                        organization_id=DEFAULT_ORGANIZATION_ID,
                        user_id=DEFAULT_USER_ID,
                        name="first administrator",
                        scopes=scopes_of(ALL),
                        created_at=stamp_of(now),
                        created_by_id=DEFAULT_USER_ID,
                    ),
                    self._pepper.hash(secret),
                )
            )
            await tx.audit.append(
                AuditEntry(DEFAULT_ORGANIZATION_ID, now, DEFAULT_USER_ID, "api_key.bootstrap", id_, "")
            )
        return secret

    async def _ensure_defaults(self, tx: Transaction) -> None:
        now = stamp_of(self._clock.now())
        await tx.organizations.ensure(
            Organization(id=DEFAULT_ORGANIZATION_ID, name="default_org", created_at=now, updated_at=now)
        )
        await tx.users.ensure(
            User(
                id=DEFAULT_USER_ID,
                organization_id=DEFAULT_ORGANIZATION_ID,
                name="default_user",
                created_at=now,
                updated_at=now,
            )
        )
