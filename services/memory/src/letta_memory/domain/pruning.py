"""Forgetting what nobody can ask for any more: old steps, places of rows deleted long ago, what is left of files."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from letta_common.clock import Clock
from letta_common.process.periodic import Next
from letta_memory.domain.purges import PURGED_AT_ONCE


class PruneStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def prune_steps(self, before: datetime, limit: int) -> int:
        """Remove some records of steps committed before a time; return how many."""
        ...

    async def prune_openings(self, before: datetime, limit: int) -> int:
        """Remove some records of calls that opened files before a time; return how many."""
        ...

    async def prune_places(self, before: datetime, limit: int) -> int:
        """Remove some places of rows deleted before a time; return how many."""
        ...

    async def prune_suggestions(self, before: datetime, limit: int) -> int:
        """Remove some suggestions that were accepted or outdated before a time; return how many."""
        ...

    async def prune_imports(self, before: datetime, limit: int) -> int:
        """Remove some records of imports that nobody went on with since a time; return how many."""
        ...

    async def prune_watches(self, before: datetime, limit: int) -> int:
        """Remove some records of watches that ended before a time; return how many."""
        ...

    async def expire_uploads(self, before: datetime, limit: int) -> int:
        """Delete some uploads that nobody went on with since a time; return how many."""
        ...

    async def prune_archive(self, now: datetime, limit: int) -> int | None:
        """Remove some passages that an archive keeps no more; return how many, None when no archive is left."""
        ...

    async def prune_purges(self, before: datetime, limit: int) -> int:
        """Remove some records of purges of passages that ended before a time; return how many."""
        ...

    async def purge_some(self) -> bool:
        """Remove some rows of deleted folders and files, or of a purge; say whether there may be more."""
        ...


@dataclass(frozen=True, slots=True)
class PruneOptions:
    """How old what is forgotten is, and how fast it goes."""

    step_age: timedelta = timedelta(days=7)
    place_age: timedelta = timedelta(days=30)
    upload_age: timedelta = timedelta(days=1)
    suggestion_age: timedelta = timedelta(days=90)
    batch: int = 5_000  # rows a statement, so that none holds its locks for long


class Pruner:
    """Removes old records in the background, a batch at a time, so that nobody waits for it."""

    def __init__(self, store: PruneStore, clock: Clock, options: PruneOptions) -> None:
        self._store = store
        self._clock = clock
        self._options = options

    async def prune(self) -> int:
        """Remove all that is old enough; return how much it was."""
        options, now = self._options, self._clock.now()
        total = 0
        for remove, age in (
            (self._store.prune_steps, options.step_age),
            (self._store.prune_openings, options.step_age),
            (self._store.prune_places, options.place_age),
            (self._store.prune_suggestions, options.suggestion_age),
            (self._store.prune_purges, options.place_age),
            (self._store.prune_imports, options.upload_age),
            (self._store.prune_watches, options.upload_age),
            (self._store.expire_uploads, options.upload_age),
        ):
            gone = options.batch
            while gone >= options.batch:
                gone = await remove(now - age, options.batch)
                total += gone
                await asyncio.sleep(0)  # lets the calls of others in between two batches
        while (removed := await self._store.prune_archive(now, PURGED_AT_ONCE)) is not None:
            total += removed
        return total

    async def purge(self) -> Next:
        """Remove some of what is left of deleted folders and files, and of purged passages; there may be more then."""
        return Next.AT_ONCE if await self._store.purge_some() else Next.AFTER_A_PAUSE
