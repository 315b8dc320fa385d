"""Streams of a run's events, kept awake by pings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from enum import Enum

from letta_agent.domain.journal.feed import Event, ping
from letta_common.clock import Clock

SILENCE_SECONDS = 20.0  # shorter than the minute after which common proxies close a silent connection
_AHEAD = 16
"""Events that are read before the listener takes them."""


class _Sign(Enum):
    """What a listener hears beside events."""

    SILENCE = "silence"
    END = "end"


Heard = asyncio.Queue[Event | _Sign | BaseException]


async def with_pings(
    events: AsyncIterator[Event], run_id: str, clock: Clock, *, at_once: bool, silence: float = SILENCE_SECONDS
) -> AsyncIterator[Event]:
    """Yield events, a ping first when it is wanted, and one whenever nothing happens for a while."""
    position = 0
    if at_once:
        yield Event(message=ping(run_id, clock.now()))
    heard: Heard = asyncio.Queue(_AHEAD)
    reader, quiet = asyncio.create_task(_read(events, heard)), _Quiet(heard, silence)
    try:
        while (event := await heard.get()) is not _Sign.END:
            if isinstance(event, BaseException):
                raise event
            if isinstance(event, Event):
                position = event.seq_id
                yield event
            else:
                yield Event(message=ping(run_id, clock.now(), position), seq_id=position)
            quiet.begin()
    finally:
        quiet.end()
        reader.cancel()
        with suppress(BaseException):
            await reader


async def _read(events: AsyncIterator[Event], heard: Heard) -> None:
    """Pass events on, and how they end."""
    end: _Sign | BaseException = _Sign.END
    try:
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                await heard.put(event)
    except BaseException as error:
        # Only a cancel of this task means that nobody listens; any other error is passed on.
        task = asyncio.current_task()
        if task is None or task.cancelling():  # nobody listens any more
            raise
        end = error
    await heard.put(end)


class _Quiet:
    """Notices silence by a timer that is set when it fires, not for each event."""

    def __init__(self, heard: Heard, seconds: float) -> None:
        self._heard, self._seconds = heard, seconds
        self._loop = asyncio.get_running_loop()
        self._since = self._loop.time()
        self._timer = self._loop.call_later(seconds, self._look)

    def begin(self) -> None:
        """Take now for the begin of a silence."""
        self._since = self._loop.time()

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _look(self) -> None:
        left = self._since + self._seconds - self._loop.time()
        # A full queue is no silence: the listener is slow.
        if left <= 0 and self._heard.empty():
            self._heard.put_nowait(_Sign.SILENCE)
        self._timer = self._loop.call_later(left if left > 0 else self._seconds, self._look)
