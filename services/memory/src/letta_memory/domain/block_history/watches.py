"""Streams of what happens to blocks. Each is read from the database, so that it tells writes of every replica."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import suppress

from letta.memory.v1.block_history_service_pb2 import (
    BlockGone,
    BlockPresent,
    BlocksPresent,
    WatchBlocksResponse,
    WatchHeartbeat,
)
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import BlockNotFound, BlockRevisionNotFound
from letta_common.values.paging import unknown_cursor
from letta_memory.domain.block_history.revisions import BlockHistoryStore, Look, Position

POLL_SECONDS = 0.5
MOST_PRESENT = 10_000
_SILENCE_NS = 20 * 10**9  # shorter than the minute after which common proxies close a silent connection
_PRESENCE_NS = 10 * 10**9  # between two looks at all blocks of an organization
_AT_ONCE = 500
_END = Position((1 << 64) - 1)
_POSITION = re.compile(r"(\d{1,20})/(\d{1,18})/([0-9A-Za-z-]{0,64})", re.ASCII)


class BlockWatches:
    """Makes streams of what happens to blocks."""

    def __init__(self, store: BlockHistoryStore, clock: Clock, poll_seconds: float = POLL_SECONDS) -> None:
        self._store = store
        self._clock = clock
        self._poll_seconds = poll_seconds

    async def watch(self, actor: Actor, agent_id: str, position: str) -> AsyncIterator[WatchBlocksResponse]:
        """Yield which blocks there are, of an agent or all, and then what happens to them, without an end.

        Raises:
            AgentNotFound: the organization has no such agent.
            CursorNotFound: the position is of no stream of this database.
        """
        asked = _read(position)
        look = await self._store.list_writes(actor, agent_id, asked or _END, 1)
        if asked is not None and asked.transaction > look.newest:
            raise unknown_cursor(position)
        watch = _BlockStream(self._store, self._clock, actor, agent_id, asked or Position(look.unsettled))
        yield await watch.begin(told=asked is None)
        while True:
            async for event in watch.look():
                yield event
            await asyncio.sleep(self._poll_seconds)


class _BlockStream:
    """One stream."""

    def __init__(self, store: BlockHistoryStore, clock: Clock, actor: Actor, agent_id: str, at: Position) -> None:
        self._store = store
        self._clock = clock
        self._actor = actor
        self._agent_id = agent_id
        self._at = at
        self._known: dict[str, int] = {}
        self._told: dict[str, int] = {}
        self._spoke = self._counted = clock.monotonic_ns()

    async def begin(self, *, told: bool) -> WatchBlocksResponse:
        """Return which blocks there are; what wrote them is told again unless it is `told` by that."""
        self._known = await self._present()
        self._told = dict(self._known) if told else {}
        blocks = [BlockPresent(block_id=block_id, version=self._known[block_id]) for block_id in sorted(self._known)]
        present = BlocksPresent(blocks=blocks[:MOST_PRESENT], truncated=len(blocks) > MOST_PRESENT)
        return WatchBlocksResponse(position=_written(self._at), present=present)

    async def look(self) -> AsyncIterator[WatchBlocksResponse]:
        """Yield what has happened since the last look."""
        while True:
            found = await self._store.list_writes(self._actor, self._agent_id, self._at, _AT_ONCE)
            for write in found.writes:
                self._at = write
                async for event in self._tell(write.block, write.version):
                    yield event
            if len(found.writes) < _AT_ONCE:
                break
        self._settle(found)
        now = self._clock.monotonic_ns()
        if self._agent_id or now - self._counted > _PRESENCE_NS:
            self._counted = now
            async for event in self._compare():
                yield event
        if now - self._spoke > _SILENCE_NS:
            yield self._event(heartbeat=WatchHeartbeat())

    def _settle(self, found: Look) -> None:
        """Begin the next look behind all that is over: nothing can be written there any more."""
        self._at = max(self._at, Position(found.unsettled))

    async def _compare(self) -> AsyncIterator[WatchBlocksResponse]:
        """Yield which blocks are gone, and which have come to the agent without being written."""
        present = await self._present()
        if len(present) > MOST_PRESENT:  # a block that is not among those may be one of the others
            return
        for block_id in sorted(self._known.keys() - present.keys()):
            self._told.pop(block_id, None)
            yield self._event(gone=BlockGone(block_id=block_id))
        if self._agent_id:
            for block_id in sorted(present.keys() - self._known.keys()):
                async for event in self._tell(block_id, present[block_id]):
                    yield event
        self._known = present

    async def _tell(self, block_id: str, version: int) -> AsyncIterator[WatchBlocksResponse]:
        """Yield a revision that was not told yet, if it is still there."""
        if self._told.get(block_id, 0) >= version:
            return
        if self._agent_id:  # the blocks of an organization may be too many to keep in mind
            self._told[block_id] = version
        with suppress(BlockNotFound, BlockRevisionNotFound):
            revision = await self._store.get_revision(self._actor, block_id, version)
            if len(self._known) <= MOST_PRESENT:  # what was told is missed when it is gone by the next look
                self._known[block_id] = version
            yield self._event(written=revision)

    async def _present(self) -> dict[str, int]:
        return await self._store.list_present(self._actor, self._agent_id, MOST_PRESENT + 1)

    def _event(self, **what: object) -> WatchBlocksResponse:
        self._spoke = self._clock.monotonic_ns()
        return WatchBlocksResponse(position=_written(self._at), **what)  # type: ignore[arg-type]


def _written(position: Position) -> str:
    return f"{position.transaction}/{position.version}/{position.block}"


def _read(position: str) -> Position | None:
    """Read a position of a caller, if there is one. Raises CursorNotFound."""
    if not position:
        return None
    found = _POSITION.fullmatch(position)
    if found is None or int(found[1]) > _END.transaction:
        raise unknown_cursor(position)
    return Position(int(found[1]), found[3], int(found[2]))
