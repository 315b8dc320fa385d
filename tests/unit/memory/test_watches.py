"""Streams of what happens to blocks, where time and numbers are what a database shows too slowly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import nullcontext
from datetime import datetime
from typing import Any

import pytest

from letta.memory.v1.block_history_service_pb2 import WatchBlocksResponse
from letta.memory.v1.block_revision_pb2 import BlockRevision
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import BlockRevisionNotFound
from letta_memory.domain.block_history.revisions import Look, Position
from letta_memory.domain.block_history.watches import MOST_PRESENT, BlockWatches

ANN = Actor("org-ann", "user-ann")
LOOK_SECONDS = 11


class HandClock(SystemClock):
    """A clock that goes on when it is told to."""

    seconds = 0

    def monotonic_ns(self) -> int:
        return self.seconds * 10**9


class Kept:
    """Blocks of one organization, and their writes; each look at these takes a while."""

    def __init__(self, clock: HandClock, present: dict[str, int]) -> None:
        self.present = present
        self.writes: list[Position] = []
        self.looks, self.seconds = 0, LOOK_SECONDS
        self.hidden = 0
        """Looks for which transactions under way hide what is written."""
        self._clock = clock

    async def list_writes(self, _actor: Actor, _agent_id: str, after: Position, limit: int) -> Look:
        self._clock.seconds += self.seconds
        self.looks += 1
        self.hidden -= 1
        newest = 1 + max((write.transaction for write in self.writes), default=0)
        if self.hidden >= 0:
            return Look([], 0, newest)
        return Look([write for write in self.writes if write > after][:limit], newest, newest)

    async def renew_watch(self, _actor: Actor, _until: datetime) -> None:
        pass

    async def list_present(self, _actor: Actor, _agent_id: str, limit: int) -> dict[str, int]:
        return dict(sorted(self.present.items())[:limit])

    async def get_revision(self, _actor: Actor, block_id: str, version: int) -> BlockRevision:
        if Position(version, block_id, version) not in self.writes:
            raise BlockRevisionNotFound("no such revision")
        return BlockRevision(block_id=block_id, version=version)

    def write(self, block_id: str, version: int) -> None:
        self.writes.append(Position(version, block_id, version))


class Bell:
    """Wakes who listens when it is rung."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    def listen(self, _key: str, woken: asyncio.Event) -> nullcontext[None]:
        self.woken = woken
        return nullcontext()


def watch(
    kept: Any, clock: HandClock, agent_id: str, *, seconds: float = 0, bell: Bell | None = None
) -> AsyncIterator[WatchBlocksResponse]:
    return BlockWatches(kept, bell or Bell(), clock, look_seconds=seconds).watch(ANN, agent_id, "")


async def next_of(stream: AsyncIterator[WatchBlocksResponse], kind: str) -> Any:
    event = await anext(stream)
    assert event.WhichOneof("event") == kind, event
    return getattr(event, kind)


@pytest.mark.parametrize("agent_id", ["", "agent-1"])
async def test_a_block_that_came_and_went_between_two_looks_is_gone(agent_id: str) -> None:
    kept = Kept(clock := HandClock(), {})
    stream = watch(kept, clock, agent_id)
    assert not (await next_of(stream, "present")).blocks
    kept.write("block-a", 1)

    assert (await next_of(stream, "written")).block_id == "block-a"
    assert (await next_of(stream, "gone")).block_id == "block-a"
    await next_of(stream, "heartbeat")


async def test_of_more_blocks_than_are_told_none_is_taken_for_gone() -> None:
    blocks = {f"block-{number:05}": 1 for number in range(2, MOST_PRESENT + 2)}
    kept = Kept(clock := HandClock(), blocks)
    stream = watch(kept, clock, "")
    present = await next_of(stream, "present")
    assert (len(present.blocks), present.truncated) == (MOST_PRESENT, False)
    kept.present = blocks | {"block-00000": 1, "block-00001": 1}
    await next_of(stream, "heartbeat")

    kept.present = {block_id: 1 for block_id in blocks if block_id != "block-00007"}
    assert (await next_of(stream, "gone")).block_id == "block-00007"


async def turns() -> None:
    """Let everything go on that can."""
    for _ in range(100):
        await asyncio.sleep(0)


@pytest.mark.parametrize("agent_id", ["", "agent-1"])
async def test_a_stream_looks_once_for_each_wake_and_never_by_itself(agent_id: str) -> None:
    kept, bell = Kept(clock := HandClock(), {}), Bell()
    stream, kept.seconds = watch(kept, clock, agent_id, seconds=3_600, bell=bell), 0
    await next_of(stream, "present")
    waiting = asyncio.ensure_future(anext(stream))
    await turns()
    assert kept.looks == 2, "one to begin, and one for what was written meanwhile"
    for looks in (3, 4):
        bell.woken.set()
        await turns()
        assert kept.looks == looks
    assert not waiting.done()
    waiting.cancel()


async def test_a_hidden_write_is_looked_for_until_nothing_can_hide_it() -> None:
    kept, bell = Kept(clock := HandClock(), {}), Bell()
    stream, kept.seconds = watch(kept, clock, "agent-1", seconds=3_600, bell=bell), 0
    await next_of(stream, "present")
    kept.write("block-a", 1)
    kept.hidden = 3

    assert (await next_of(stream, "written")).block_id == "block-a"
    assert kept.looks == 5
