"""Organizations, the tenants of the deployment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from letta_auth.domain.changes import change
from letta_auth.domain.scopes import ADMIN
from letta_common.actor import Actor, require_scope
from letta_common.clock import Clock
from letta_common.errors import OrganizationNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page

if TYPE_CHECKING:
    from letta_auth.domain.database import AuthDatabase


@dataclass(frozen=True, slots=True)
class Organization:
    """A tenant."""

    id: str
    name: str
    privileged_tools: bool
    created_at: datetime
    updated_at: datetime
    is_deleted: bool = False


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

    async def list_organizations(self, page: Page) -> Sequence[Organization]:
        """Return a page of organizations by time. Raises CursorNotFound."""
        ...

    async def update(self, organization: Organization) -> None:
        """Write an organization that exists. Raises OrganizationNotFound."""
        ...


class Organizations:
    """Operations on organizations, for administrators of the deployment."""

    def __init__(self, db: AuthDatabase, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, actor: Actor, name: str = "", *, privileged_tools: bool = False) -> Organization:
        """Make an organization. Raises PermissionDenied."""
        require_scope(actor, ADMIN)
        now, id_ = self._clock.now(), new_id("org")
        made = Organization(id_, name or f"organization {id_[-6:]}", privileged_tools, now, now)
        async with self._db.begin() as tx:
            await tx.organizations.create(made)
            await tx.audit.append(change(actor, made.id, now, "organization.create", made.id))
        return made

    async def get(self, actor: Actor, organization_id: str) -> Organization:
        """Return one organization. Raises PermissionDenied, OrganizationNotFound."""
        require_scope(actor, ADMIN)
        async with self._db.read() as tx:
            return await tx.organizations.get(organization_id)

    async def list(self, actor: Actor, page: Page) -> Sequence[Organization]:
        """Return a page of organizations. Raises PermissionDenied, CursorNotFound."""
        require_scope(actor, ADMIN)
        async with self._db.read() as tx:
            return await tx.organizations.list_organizations(page)

    async def update(
        self, actor: Actor, organization_id: str, *, name: str | None = None, privileged_tools: bool | None = None
    ) -> Organization:
        """Change what is given. Raises PermissionDenied, OrganizationNotFound."""
        require_scope(actor, ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            old = await tx.organizations.get(organization_id)
            new = replace(
                old,
                name=old.name if name is None else name,
                privileged_tools=old.privileged_tools if privileged_tools is None else privileged_tools,
                updated_at=now,
            )
            await tx.organizations.update(new)
            await tx.audit.append(change(actor, new.id, now, "organization.update", new.id))
        return new

    async def delete(self, actor: Actor, organization_id: str) -> Organization:
        """Remove an organization; its users and keys are refused from then on.

        Raises:
            PermissionDenied: the actor is no administrator.
            OrganizationNotFound: there is no such organization.
        """
        require_scope(actor, ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            old = await tx.organizations.get(organization_id)
            await tx.audit.append(change(actor, old.id, now, "organization.delete", old.id))
            await tx.organizations.update(replace(old, is_deleted=True, updated_at=now))
        return old


def missing(organization_id: str) -> OrganizationNotFound:
    """Return the error for an organization that does not exist."""
    return OrganizationNotFound(f"no organization {organization_id}", organization_id=organization_id)
