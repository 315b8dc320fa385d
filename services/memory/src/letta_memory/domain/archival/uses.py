"""Which passages are used: counted in memory, and written behind searches and lists, which wait for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from cachetools import TTLCache

from letta.memory.v1.passage_pb2 import Passage
from letta_common.clock import Clock

_AT_ONCE = 2_000  # of one statement
_MOST = 100_000  # that wait; beyond, what is used is not noted until some are written
_PLAIN_SECONDS = 60.0  # for which an archive counts as one that keeps what nobody uses


class PassageKey(NamedTuple):
    """A passage of an archive, whoever it belongs to."""

    organization_id: str
    archive_id: str
    passage_id: str


class UseStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def note_uses(self, uses: Mapping[PassageKey, datetime]) -> set[tuple[str, str]]:
        """Note when passages were used; return the organizations and archives that keep what nobody uses."""
        ...


class PassageUses:
    """Keeps in mind which passages were used. What is not written when a process dies is not known."""

    def __init__(self, store: UseStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._waiting: dict[PassageKey, datetime] = {}
        self._plain: TTLCache[tuple[str, str], bool] = TTLCache(10_000, _PLAIN_SECONDS, self._seconds)

    def note(self, passages: Iterable[Passage]) -> None:
        """Keep in mind that these were used now, but for archives that are known to keep what nobody uses."""
        now = self._clock.now()
        for passage in passages:
            if len(self._waiting) >= _MOST:
                return
            if passage.archive_id and (passage.organization_id, passage.archive_id) not in self._plain:
                self._waiting[PassageKey(passage.organization_id, passage.archive_id, passage.id)] = now

    async def flush(self) -> int:
        """Write what was used since the last time; return how much that was. What fails is tried again."""
        total = 0
        while self._waiting:
            batch = {key: self._waiting.pop(key) for key in list(self._waiting)[:_AT_ONCE]}
            try:
                plain = await self._store.note_uses(batch)
            except BaseException:
                self._waiting = batch | self._waiting
                raise
            self._plain.update(dict.fromkeys(plain, True))
            total += len(batch)
        return total

    def _seconds(self) -> float:
        return self._clock.monotonic_ns() / 1e9
