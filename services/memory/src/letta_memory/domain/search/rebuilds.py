"""Indexing all texts anew, when an operator says so: those of former releases as those of this one."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

import structlog

from letta_common.errors import DatabaseUnavailable
from letta_memory.domain.search.index import REBUILT_AT_ONCE, SearchIndexStore, SearchKeeper
from letta_memory.domain.search.scopes import SearchScope

_log = structlog.get_logger("letta.memory.search")
_LISTED_AT_ONCE = 100
_SECONDS_BETWEEN_LINES = 2.0


class SearchRebuildStore(Protocol):
    """What indexing anew needs from storage, across organizations."""

    async def begin(self) -> tuple[bool, int]:
        """Note that every text is to be indexed anew, unless some still are: whether some were, and how many."""
        ...

    async def list_begun(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes whose texts are not all indexed anew, by number."""
        ...


class SearchRebuild:
    """Indexes all texts anew. Each transaction notes how far it came, so that a stop loses nothing."""

    def __init__(self, rebuilds: SearchRebuildStore, index: SearchIndexStore, keeper: SearchKeeper) -> None:
        self._rebuilds = rebuilds
        self._index = index
        self._keeper = keeper
        self._done = 0
        self._of = 0
        self._told_at = 0.0

    async def run(self, progress: Callable[[str], None]) -> int:
        """Index all texts anew; return in how many scopes that failed, whose reasons are in the log.

        Raises:
            DatabaseUnavailable: the database went away; what was done stays.
        """
        resumed, self._of = await self._rebuilds.begin()
        progress(f"{'going on: ' if resumed else ''}{self._of:,} texts are to be indexed anew ...")
        failed = 0
        after: SearchScope | None = None
        while found := await self._rebuilds.list_begun(after, _LISTED_AT_ONCE):
            for scope in found:
                failed += not await self._tried(scope, progress)
            after = found[-1]
        return failed

    async def _tried(self, scope: SearchScope, progress: Callable[[str], None]) -> bool:
        try:
            while done := await self._index.rebuild(scope, REBUILT_AT_ONCE):
                self._done += done
                if time.monotonic() >= self._told_at + _SECONDS_BETWEEN_LINES:
                    self._told_at = time.monotonic()
                    progress(f"{self._done:,} of {self._of:,} texts are indexed anew ...")
            await self._keeper.count(scope)
        except DatabaseUnavailable:
            raise
        except Exception:
            _log.exception("indexing anew failed", scope=scope.number)
            return False
        return True
