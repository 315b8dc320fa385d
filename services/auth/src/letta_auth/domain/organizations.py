"""Organizations, the tenants of the deployment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from letta.auth.v1.organization_pb2 import Organization
from letta_auth.domain.changes import change
from letta_auth.domain.scopes import ADMIN
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import OrganizationNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of

if TYPE_CHECKING:
    from letta_auth.domain.database import AuthDatabase


class OrganizationStore(Protocol):
    """Where organizations are kept. Removed ones are found by `ensure` alone."""

    async def create(self, organization: Organization) -> None:
        """Add a new organization."""
        ...

    async def ensure(self, organization: Organization) -> None:
        """Add an organization, or bring back the one of this id; others wait until the transaction ends."""
        ...

    async def get(self, organization_id: str) -> Organization:
        """Return one organization. Raises OrganizationNotFound."""
        ...

    async def hold(self, organization_id: str) -> Organization:
        """Return one organization; others wait to change it until the transaction ends. Raises OrganizationNotFound."""
        ...

    async def list_organizations(self, page: Page) -> Sequence[Organization]:
        """Return a page of organizations by time. Raises CursorNotFound."""
        ...

    async def update(self, organization: Organization) -> None:
        """Write an organization that exists. Raises OrganizationNotFound."""
        ...

    async def delete(self, organization_id: str, at: datetime) -> None:
        """Remove an organization. Raises OrganizationNotFound."""
        ...


class Organizations:
    """Operations on organizations, for administrators of the deployment."""

    def __init__(self, db: AuthDatabase, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, actor: Actor, name: str = "", *, privileged_tools: bool = False) -> Organization:
        """Make an organization. Raises PermissionDenied."""
        actor.require(ADMIN)
        now, id_ = self._clock.now(), new_id("org")
        made = Organization(
            id=id_,
            name=name or f"organization {id_[-6:]}",
            privileged_tools=privileged_tools,
            created_at=stamp_of(now),
            updated_at=stamp_of(now),
        )
        async with self._db.begin() as tx:
            await tx.organizations.create(made)
            await tx.audit.append(change(actor, made.id, now, "organization.create", made.id))
        return made

    async def get(self, actor: Actor, organization_id: str) -> Organization:
        """Return one organization. Raises PermissionDenied, OrganizationNotFound."""
        actor.require(ADMIN)
        async with self._db.read() as tx:
            return await tx.organizations.get(organization_id)

    async def list(self, actor: Actor, page: Page) -> Sequence[Organization]:
        """Return a page of organizations. Raises PermissionDenied, CursorNotFound."""
        actor.require(ADMIN)
        async with self._db.read() as tx:
            return await tx.organizations.list_organizations(page)

    async def update(self, actor: Actor, organization_id: str, changes: Mapping[str, Any]) -> Organization:
        """Give fields new values; None leaves one. Raises PermissionDenied, OrganizationNotFound."""
        actor.require(ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            changed = await tx.organizations.hold(organization_id)
            for name, value in changes.items():
                if value is not None:
                    setattr(changed, name, value)
            changed.updated_at.FromDatetime(now)
            await tx.organizations.update(changed)
            await tx.audit.append(change(actor, changed.id, now, "organization.update", changed.id))
        return changed

    async def delete(self, actor: Actor, organization_id: str) -> Organization:
        """Remove an organization; its users and keys are refused from then on.

        Raises:
            PermissionDenied: the actor is no administrator.
            OrganizationNotFound: there is no such organization.
        """
        actor.require(ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            old = await tx.organizations.get(organization_id)
            await tx.audit.append(change(actor, old.id, now, "organization.delete", old.id))
            await tx.organizations.delete(old.id, now)
        return old


def missing(organization_id: str) -> OrganizationNotFound:
    """Return the error for an organization that does not exist."""
    return OrganizationNotFound(f"no organization {organization_id}", organization_id=organization_id)
