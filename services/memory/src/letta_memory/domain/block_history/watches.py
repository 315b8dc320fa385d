"""Streams of what happens to blocks. Each is read from the database, so that it tells writes of every replica."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager, suppress
from datetime import timedelta
from typing import Protocol

from letta.memory.v1.block_history_service_pb2 import (
    BlockGone,
    BlockPresent,
    BlocksPresent,
    WatchBlocksResponse,
    WatchHeartbeat,
)
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import BlockNotFound, BlockRevisionNotFound, ServiceUnavailable
from letta_common.values.paging import unknown_cursor
from letta_memory.domain.block_history.revisions import BlockHistoryStore, Look, Position

LOOK_SECONDS = 10.0  # between two looks when nobody is told of a write, as behind poolers that pass no notices on
_SOONEST, _LATEST = 0.02, 2.0  # seconds between two looks for a write that is hidden by transactions under way
_LEASE, _RENEW_NS = timedelta(minutes=2), 60 * 10**9
MOST_PRESENT = 10_000
_SILENCE_NS = 20 * 10**9  # shorter than the minute after which common proxies close a silent connection
_PRESENCE_NS = 10 * 10**9  # between two looks at all blocks of an organization
_AT_ONCE = 500
_END = Position((1 << 64) - 1)
_POSITION = re.compile(r"(\d{1,20})/(\d{1,18})/([0-9A-Za-z-]{0,64})", re.ASCII)


class Wakes(Protocol):
    """Tells when somebody wrote, whichever replica it was; now and then it may not."""

    def listen(self, key: str, woken: asyncio.Event) -> AbstractContextManager[None]:
        """Set the event whenever a block of this organization was written, or went."""
        ...


class BlockWatches:
    """Makes streams of what happens to blocks."""

    def __init__(
        self, store: BlockHistoryStore, wakes: Wakes, clock: Clock, look_seconds: float = LOOK_SECONDS
    ) -> None:
        self._store = store
        self._wakes = wakes
        self._clock = clock
        self._look_seconds = look_seconds
        self._waiting: set[asyncio.Event] = set()
        self._draining = False

    def drain(self) -> None:
        """End every stream, now and from now on, so that it goes on at another replica."""
        self._draining = True
        for woken in self._waiting:
            woken.set()

    async def watch(self, actor: Actor, agent_id: str, position: str) -> AsyncIterator[WatchBlocksResponse]:
        """Yield which blocks there are, of an agent or all, and then what happens to them, without an end.

        Raises:
            AgentNotFound: the organization has no such agent.
            CursorNotFound: the position is of no stream of this database.
            ServiceUnavailable: this replica stops; another one goes on at the last position.
        """
        asked, woken = _read(position), asyncio.Event()
        with self._wakes.listen(actor.organization_id, woken):
            renewed = await self._renew(actor)
            look = await self._store.list_writes(actor, agent_id, asked or _END, 1)
            if asked is not None and asked.transaction > look.newest:
                raise unknown_cursor(position)
            watch = _BlockStream(self._store, self._clock, actor, agent_id, asked or Position(look.unsettled))
            yield await watch.begin(told=asked is None)
            while True:
                async for event in watch.look():
                    yield event
                if await self._pause(woken, watch.pause(self._look_seconds)):
                    watch.expect()
                if self._clock.monotonic_ns() - renewed > _RENEW_NS:
                    renewed = await self._renew(actor)

    async def _renew(self, actor: Actor) -> int:
        """Have writes of the organization told for a while; return when that was."""
        await self._store.renew_watch(actor, self._clock.now() + _LEASE)
        return self._clock.monotonic_ns()

    async def _pause(self, woken: asyncio.Event, seconds: float) -> bool:
        """Wait for a write, but not for long; say whether there was one. Raises ServiceUnavailable."""
        self._waiting.add(woken)
        try:
            # A notice that came before this may be of a write that was told already, or of one that is hidden yet.
            if not self._draining:
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await woken.wait()
        finally:
            self._waiting.discard(woken)
        if self._draining:
            raise ServiceUnavailable("this replica stops; watch on at the last position, which another one serves")
        was = woken.is_set()
        woken.clear()
        return was


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
        self._until = 0
        """The transaction up to which something was written that may be hidden yet; 0 while that is not known."""
        self._hidden = True
        self._soon = _SOONEST

    async def begin(self, *, told: bool) -> WatchBlocksResponse:
        """Return which blocks there are; what wrote them is told again unless it is `told` by that."""
        self._known = await self._present()
        self._told = dict(self._known) if told else {}
        blocks = [BlockPresent(block_id=block_id, version=self._known[block_id]) for block_id in sorted(self._known)]
        present = BlocksPresent(blocks=blocks[:MOST_PRESENT], truncated=len(blocks) > MOST_PRESENT)
        return WatchBlocksResponse(position=_written(self._at), present=present)

    def expect(self) -> None:
        """Somebody wrote: look again until all that was begun by then is over."""
        self._until, self._hidden, self._soon = 0, True, _SOONEST

    def pause(self, longest: float) -> float:
        """Return how many seconds may pass before the next look: few while a write may be hidden."""
        if not self._hidden:
            return longest
        soon, self._soon = self._soon, min(2 * self._soon, _LATEST)
        return soon

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
        self._until = self._until or found.newest
        self._hidden = found.unsettled < self._until

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
