"""Removing old records. These are system statements: they span organizations."""

from __future__ import annotations

from datetime import datetime

from letta_postgres.db import Database, retry
from letta_postgres.statements import call

# By row address, because DELETE knows no LIMIT.
_STEPS = (
    "delete from memory.committed_steps where ctid = any(array("
    "select ctid from memory.committed_steps where created_at < %b limit %b)) returning 1"
)
_OPENINGS = (
    "delete from memory.file_openings where ctid = any(array("
    "select ctid from memory.file_openings where created_at < %b limit %b)) returning 1"
)
_PLACES = (
    "delete from memory.tombstones where ctid = any(array("
    "select ctid from memory.tombstones where deleted_at < %b limit %b)) returning 1"
)
# Those that were dismissed stay: they are not to be made again.
_SUGGESTIONS = (
    "delete from memory.suggestions where ctid = any(array(select ctid from memory.suggestions "
    "where state in (2, 4) and decided_at < %b limit %b)) returning 1"
)
_PURGES = (
    "delete from memory.passage_purges where ctid = any(array("
    "select ctid from memory.passage_purges where ended_at < %b limit %b)) returning 1"
)
_IMPORTS = (
    "delete from memory.passage_imports where ctid = any(array("
    "select ctid from memory.passage_imports where updated_at < %b limit %b)) returning 1"
)
_WATCHES = (
    "delete from memory.block_watches where ctid = any(array("
    "select ctid from memory.block_watches where until < %b limit %b)) and until < now() returning 1"
)
_ARCHIVE = f"select {call('memory.prune_archive', 'now', 'most')}"
_UPLOADS = (
    "update memory.files f set deleted_at = now() where f.ctid = any(array("
    "select c.ctid from memory.files c where c.status = 0 and c.deleted_at is null and c.updated_at < %b limit %b)) "
    "and f.status = 0 returning 1"
)


class SqlPruneStore:
    """Old records in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def prune_steps(self, before: datetime, limit: int) -> int:
        """Remove some records of steps committed before a time; return how many."""
        return len(await self._db.hot(_STEPS, (before, limit)))

    async def prune_openings(self, before: datetime, limit: int) -> int:
        """Remove some records of calls that opened files before a time; return how many."""
        return len(await self._db.hot(_OPENINGS, (before, limit)))

    async def prune_places(self, before: datetime, limit: int) -> int:
        """Remove some places of rows deleted before a time; return how many."""
        return len(await self._db.hot(_PLACES, (before, limit)))

    async def prune_suggestions(self, before: datetime, limit: int) -> int:
        """Remove some suggestions that were accepted or outdated before a time; return how many."""
        return len(await self._db.hot(_SUGGESTIONS, (before, limit)))

    async def prune_archive(self, now: datetime, limit: int) -> int | None:
        """Remove some passages that an archive keeps no more; return how many, None when no archive is left."""
        [(removed,)] = await retry(lambda: self._db.hot(_ARCHIVE, {"now": now, "most": limit}))
        return None if removed is None else int(removed)

    async def prune_purges(self, before: datetime, limit: int) -> int:
        """Remove some records of purges of passages that ended before a time; return how many."""
        return len(await self._db.hot(_PURGES, (before, limit)))

    async def prune_imports(self, before: datetime, limit: int) -> int:
        """Remove some records of imports that nobody went on with since a time; return how many."""
        return len(await self._db.hot(_IMPORTS, (before, limit)))

    async def prune_watches(self, before: datetime, limit: int) -> int:
        """Remove some records of watches that ended before a time; return how many."""
        return len(await self._db.hot(_WATCHES, (before, limit)))

    async def expire_uploads(self, before: datetime, limit: int) -> int:
        """Delete some uploads that nobody went on with since a time; return how many."""
        return len(await self._db.hot(_UPLOADS, (before, limit)))

    async def purge_some(self) -> bool:
        """Remove some rows of deleted folders and files, or of a purge; say whether there may be more."""
        return bool((await self._db.hot("select memory.purge_some()"))[0][0])
