"""Writing the events of runs: collected for some milliseconds, then stored by one statement."""

from __future__ import annotations

import asyncio

import structlog

from letta_agent.domain.journal.records import QueueStore, StoredEvent
from letta_common.errors import AppError

WINDOW_SECONDS = 0.015
MOST = 2_000
"""Events of one statement."""
_CAPACITY = 100_000
_log = structlog.get_logger("letta.agent.events")


class EventWriter:
    """Stores events in groups, for listeners of other replicas and for those that come back."""

    def __init__(self, queue: QueueStore, *, window: float = WINDOW_SECONDS) -> None:
        self._queue = queue
        self._window = window
        self._waiting: list[StoredEvent] = []
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, event: StoredEvent) -> None:
        """Have an event stored soon."""
        if len(self._waiting) < _CAPACITY:
            self._waiting.append(event)
        self._news.set()

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._write_on())

    async def close(self) -> None:
        """Write what is left and stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def flush(self) -> None:
        """Write what is there."""
        while self._waiting:
            group, self._waiting = self._waiting[:MOST], self._waiting[MOST:]
            try:
                await self._queue.append_events(group)
            except AppError as error:
                self._waiting = [*group, *self._waiting]
                _log.warning("events wait for the database", events=len(self._waiting), reason=error.reason)
                return

    async def _write_on(self) -> None:
        while True:
            await self._news.wait()
            await asyncio.sleep(self._window)
            self._news.clear()
            await self.flush()
            if self._waiting:
                await asyncio.sleep(1.0)
                self._news.set()
