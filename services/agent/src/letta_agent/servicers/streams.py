"""Streams of a run's events, kept awake by pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress

from letta_agent.domain.journal.feed import Event, ping
from letta_common.clock import Clock

SILENCE_SECONDS = 20.0


async def with_pings(
    events: AsyncIterator[Event], run_id: str, clock: Clock, *, at_once: bool, silence: float = SILENCE_SECONDS
) -> AsyncIterator[Event]:
    """Yield events, a ping first when it is wanted, and one whenever nothing happens for a while."""
    position = 0
    if at_once:
        yield Event(message=ping(run_id, clock.now()))
    async with aclosing(events) as source:  # type: ignore[type-var]
        waiting = asyncio.ensure_future(anext(source, None))
        try:
            while True:
                done, _ = await asyncio.wait([waiting], timeout=silence)
                if not done:
                    yield Event(message=ping(run_id, clock.now(), position), seq_id=position)
                    continue
                event = waiting.result()
                if event is None:
                    return
                position = event.seq_id
                waiting = asyncio.ensure_future(anext(source, None))
                yield event
        finally:
            waiting.cancel()
            with suppress(BaseException):
                await waiting
