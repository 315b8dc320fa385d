"""Identities: whom agents and blocks belong to in the caller's own world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from letta.memory.v1.block_pb2 import Block
from letta.memory.v1.identity_pb2 import Identity, IdentityProperty
from letta.memory.v1.identity_service_pb2 import (
    CreateIdentityRequest,
    ListIdentitiesRequest,
    UpdateIdentityRequest,
    UpsertIdentityRequest,
)
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of

PropertyEdit = Callable[[Sequence[IdentityProperty]], list[IdentityProperty]]
"""Makes the properties that an identity then has of those that it has."""
_MOST_PROPERTIES, _MOST_BYTES = 100, 1_000_000


@dataclass(frozen=True, slots=True)
class Links:
    """What belongs to an identity."""

    agent_ids: Sequence[str] = ()
    block_ids: Sequence[str] = ()


class IdentityStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization.

    What is to belong to an identity and is not there raises AgentNotFound or BlockNotFound, and nothing is written.
    """

    async def create(self, actor: Actor, identity: Identity, links: Links, *, request_hash: bytes = b"") -> Identity:
        """Store a new identity; return the one that has the id already, if one has.

        Raises:
            AlreadyExists: another one has its key.
            IdempotencyConflict: another request made the one that has its id.
        """
        ...

    async def upsert(self, actor: Actor, identity: Identity, links: Links) -> Identity:
        """Store a new identity, or give the one that has its key what it has; empty lists leave what is there."""
        ...

    async def get(self, actor: Actor, identity_id: str) -> Identity:
        """Return one identity. Raises IdentityNotFound."""
        ...

    async def list_identities(self, actor: Actor, wanted: ListIdentitiesRequest, page: Page) -> list[Identity]:
        """Return a page of identities. Raises CursorNotFound."""
        ...

    async def count(self, actor: Actor) -> int:
        """Return how many identities there are."""
        ...

    async def update(
        self, actor: Actor, identity_id: str, changes: Mapping[str, Any], edit: PropertyEdit, links: Links
    ) -> Identity:
        """Change some columns, edit the properties under the lock of the row, and add what belongs to an identity.

        Raises:
            IdentityNotFound: the organization has no such identity.
            AlreadyExists: another one has the new key.
        """
        ...

    async def delete(self, actor: Actor, identity_id: str) -> None:
        """Remove an identity; what belongs to it stays. Raises IdentityNotFound."""
        ...

    async def list_blocks(self, actor: Actor, identity_id: str, page: Page) -> list[Block]:
        """Return a page of the blocks of an identity. Raises IdentityNotFound, CursorNotFound."""
        ...

    async def list_agent_ids(self, actor: Actor, identity_id: str, keys: Sequence[str]) -> list[str]:
        """Return the agents of an identity, of those with some keys, or of both. Raises IdentityNotFound."""
        ...

    async def attach(self, actor: Actor, identity_id: str, links: Links) -> None:
        """Say that something belongs to an identity. Raises IdentityNotFound."""
        ...

    async def detach(self, actor: Actor, identity_id: str, links: Links) -> None:
        """Say that something no longer belongs to an identity. Raises IdentityNotFound."""
        ...

    async def set_of_agent(self, actor: Actor, agent_id: str, identity_ids: Sequence[str]) -> None:
        """Set all the identities that an agent belongs to. Raises AgentNotFound, IdentityNotFound."""
        ...


class Identities:
    """Operations on identities."""

    def __init__(self, store: IdentityStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def create(self, actor: Actor, request: CreateIdentityRequest, request_hash: bytes) -> Identity:
        """Make an identity; a repeat of the request id returns the one made before.

        Raises:
            InvalidArgument: it has no key, name or type, or too many properties.
            AlreadyExists: another one of its project has the key.
            AgentNotFound, BlockNotFound: what is to belong to it is not there.
            IdempotencyConflict: another request had its key.
        """
        key = request.request_id
        identity_id = derived_id("identity", actor.organization_id, key) if key else new_id("identity")
        made = self._new(actor, identity_id, request.identity, request.properties)
        links = Links(request.agent_ids, request.block_ids)
        return await self._store.create(actor, made, links, request_hash=request_hash)

    async def upsert(self, actor: Actor, request: UpsertIdentityRequest) -> Identity:
        """Make an identity, or change the one of its project that has the key. Raises as `create` does."""
        made = self._new(actor, new_id("identity"), request.identity, request.properties)
        return await self._store.upsert(actor, made, Links(request.agent_ids, request.block_ids))

    async def update(self, actor: Actor, request: UpdateIdentityRequest, changes: Mapping[str, Any]) -> Identity:
        """Change some fields, set some properties, and add what belongs to an identity.

        Raises:
            IdentityNotFound, AgentNotFound, BlockNotFound: something is not there.
            AlreadyExists: another one of its project has the new key.
            InvalidArgument: it would have too many properties.
        """
        links = Links(request.agent_ids, request.block_ids)
        return await self._change(
            actor, request.identity_id, changes, lambda present: _merged(present, request.properties), links
        )

    async def set_properties(self, actor: Actor, identity_id: str, properties: Iterable[IdentityProperty]) -> Identity:
        """Set all the properties of an identity. Raises IdentityNotFound, InvalidArgument."""
        return await self._change(actor, identity_id, {}, lambda _: _merged((), properties), Links())

    async def _change(
        self, actor: Actor, identity_id: str, changes: Mapping[str, Any], edit: PropertyEdit, links: Links
    ) -> Identity:
        # An identity always has what can be changed: nothing in its place leaves it.
        given = {name: value for name, value in changes.items() if value}
        written = {**given, "last_updated_by_id": actor.user_id, "updated_at": self._clock.now()}
        return await self._store.update(actor, identity_id, written, edit, links)

    def _new(self, actor: Actor, identity_id: str, given: Identity, properties: Iterable[IdentityProperty]) -> Identity:
        for name in ("identifier_key", "name", "identity_type"):
            if not getattr(given, name):
                raise InvalidArgument(f"an identity needs a {name}", field=f"identity.{name}")
        now = stamp_of(self._clock.now())
        return Identity(
            id=identity_id,
            identifier_key=given.identifier_key,
            name=given.name,
            identity_type=given.identity_type,
            project_id=given.project_id or None,
            organization_id=actor.organization_id,
            properties=_merged((), properties),
            created_at=now,
            updated_at=now,
        )


def _merged(present: Sequence[IdentityProperty], given: Iterable[IdentityProperty]) -> list[IdentityProperty]:
    """Return properties by key, those given in the place of those present. Raises InvalidArgument for too many."""
    found = {each.key: each for each in (*present, *given)}
    size = sum(each.ByteSize() for each in found.values())
    if len(found) > _MOST_PROPERTIES or size > _MOST_BYTES:
        text = f"an identity has at most {_MOST_PROPERTIES} properties of {_MOST_BYTES} bytes together"
        raise InvalidArgument(text, field="properties")
    return list(found.values())
