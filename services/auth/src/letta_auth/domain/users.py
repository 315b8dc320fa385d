"""Users: who acts for an organization."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from letta.auth.v1.user_pb2 import User
from letta_auth.domain.changes import change
from letta_auth.domain.scopes import ADMIN
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument, UserNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of

if TYPE_CHECKING:
    from letta_auth.domain.database import AuthDatabase


class UserStore(Protocol):
    """Where users are kept. Removed ones, and those of removed organizations, are found by `ensure` alone."""

    async def create(self, user: User) -> None:
        """Add a new user."""
        ...

    async def ensure(self, user: User) -> None:
        """Add a user, or bring back the one of this id."""
        ...

    async def get(self, user_id: str) -> User:
        """Return one user. Raises UserNotFound."""
        ...

    async def list_users(self, page: Page, organization_id: str = "") -> Sequence[User]:
        """Return a page of users by time, of one organization or of all. Raises CursorNotFound."""
        ...

    async def update(self, user: User) -> None:
        """Write a user that exists. Raises UserNotFound."""
        ...


class Users:
    """Operations on users, for administrators of the deployment."""

    def __init__(self, db: AuthDatabase, clock: Clock) -> None:
        self._db = db
        self._clock = clock

    async def create(self, actor: Actor, name: str, organization_id: str) -> User:
        """Make a user. Raises PermissionDenied, OrganizationNotFound."""
        actor.require(ADMIN)
        now = self._clock.now()
        made_at = stamp_of(now)
        user = User(
            id=new_id("user"), organization_id=organization_id, name=name, created_at=made_at, updated_at=made_at
        )
        async with self._db.begin() as tx:
            # The foreign key alone would let a removed organization have users.
            await tx.organizations.get(organization_id)
            await tx.users.create(user)
            await tx.audit.append(change(actor, organization_id, now, "user.create", user.id))
        return user

    async def get(self, actor: Actor, user_id: str) -> User:
        """Return one user. Raises PermissionDenied, UserNotFound."""
        actor.require(ADMIN)
        async with self._db.read() as tx:
            return await tx.users.get(user_id)

    async def list(self, actor: Actor, page: Page, organization_id: str = "") -> Sequence[User]:
        """Return a page of users. Raises PermissionDenied, CursorNotFound."""
        actor.require(ADMIN)
        async with self._db.read() as tx:
            return await tx.users.list_users(page, organization_id)

    async def update(self, actor: Actor, user_id: str, changes: Mapping[str, Any]) -> User:
        """Give fields new values; None leaves one.

        Raises:
            PermissionDenied: the actor is no administrator.
            UserNotFound: there is no such user.
            InvalidArgument: the organization is another one; what a user made stays behind, so it cannot move.
        """
        actor.require(ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            user = await tx.users.get(user_id)
            if changes.get("organization_id") not in {None, "", user.organization_id}:
                raise InvalidArgument(
                    "a user cannot move to another organization; make a new user there", field="organization_id"
                )
            if changes.get("name") is not None:
                user.name = changes["name"]
            user.updated_at.FromDatetime(now)
            await tx.users.update(user)
            await tx.audit.append(change(actor, user.organization_id, now, "user.update", user.id))
        return user

    async def delete(self, actor: Actor, user_id: str) -> User:
        """Remove a user; its keys are refused from then on. Raises PermissionDenied, UserNotFound."""
        actor.require(ADMIN)
        now = self._clock.now()
        async with self._db.begin() as tx:
            gone = await tx.users.get(user_id)
            # The row stays, since keys and the audit log name it.
            gone.is_deleted = True
            gone.updated_at.FromDatetime(now)
            await tx.users.update(gone)
            await tx.audit.append(change(actor, gone.organization_id, now, "user.delete", gone.id))
        return gone


def missing(user_id: str) -> UserNotFound:
    """Return the error for a user that does not exist."""
    return UserNotFound(f"no user {user_id}", user_id=user_id)
