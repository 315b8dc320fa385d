"""Removing all passages of one origin, or that a filter finds, however many they are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from letta.memory.v1.passage_service_pb2 import PassageFilter, PurgePassagesRequest, PurgePassagesResponse
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.ids import derived_id, new_id
from letta_memory.domain.archives import ArchiveStore

PURGED_AT_ONCE = 1_000
"""Passages a statement, so that none holds its locks for long."""
_SAMPLE = 100


@dataclass(frozen=True, slots=True)
class Purge:
    """Which passages go: those that were written up to `until`."""

    id: str
    archive_id: str
    filter: PassageFilter
    until: datetime


class PurgeStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def count(self, actor: Actor, purge: Purge, sample: int) -> tuple[int, Sequence[str]]:
        """Return how many passages a purge would remove, and some of their ids."""
        ...

    async def begin(self, actor: Actor, purge: Purge, request_hash: bytes) -> None:
        """Note a purge, once for its id, so that it is brought to its end whatever happens.

        Raises:
            IdempotencyConflict: another request had its id.
        """
        ...

    async def go_on(self, actor: Actor, purge_id: str, limit: int) -> tuple[int, bool]:
        """Remove some of its passages; return how many went in all, and whether none is left."""
        ...


class Purges:
    """Operations that remove many passages."""

    def __init__(self, store: PurgeStore, archives: ArchiveStore, clock: Clock) -> None:
        self._store = store
        self._archives = archives
        self._clock = clock

    async def purge(self, actor: Actor, request: PurgePassagesRequest, request_hash: bytes) -> PurgePassagesResponse:
        """Remove what the request names, or count it.

        Raises:
            ArchiveNotFound: the organization has no such archive.
            InvalidArgument: neither an archive nor an origin is said.
            IdempotencyConflict: another request had its key.
        """
        purge = await self._purge(actor, request)
        if not request.force:
            number, sample = await self._store.count(actor, purge, _SAMPLE)
            return PurgePassagesResponse(purge_count=number, purge_sample=sample)
        await self._store.begin(actor, purge, request_hash)
        removed, ended = 0, False
        while not ended:
            removed, ended = await self._store.go_on(actor, purge.id, PURGED_AT_ONCE)
        return PurgePassagesResponse(purge_count=removed)

    async def _purge(self, actor: Actor, request: PurgePassagesRequest) -> Purge:
        said = {field.name for field, _ in request.filter.origin.ListFields()}
        if not request.archive_id and not said - {"tool_name"}:
            # Nothing else bounds how much is read, and a slip would cost an organization everything.
            raise InvalidArgument(
                "say an archive, or where the passages came from: an agent, conversation, run, message, call or file",
                field="archive_id",
            )
        if request.archive_id:
            await self._archives.get(actor, request.archive_id)
        key = request.request_id
        return Purge(
            id=derived_id("purge", actor.organization_id, key) if key else new_id("purge"),
            archive_id=request.archive_id,
            filter=request.filter,
            until=self._clock.now(),
        )
