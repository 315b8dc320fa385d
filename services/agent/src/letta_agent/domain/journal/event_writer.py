"""Writing the events of runs, for listeners of other replicas and for those that come back."""

from __future__ import annotations

from letta_agent.domain.journal.records import QueueStore, StoredEvent
from letta_common.process.batches import BatchOptions, BatchWriter

WINDOW_SECONDS = 0.25
"""Longest time until an event is written that only those may read who come back."""
FOLLOWED_SECONDS = 0.015
"""The same where somebody waits for it on another replica."""
MOST = 2_000
"""Events of one statement."""
_CAPACITY = 100_000  # events in memory while the database is away; more would cost the process its life


class EventWriter(BatchWriter[StoredEvent]):
    """Collects events for some milliseconds and stores them by one statement."""

    def __init__(self, queue: QueueStore, *, window: float = WINDOW_SECONDS) -> None:
        super().__init__("events", queue.append_events, BatchOptions(window, MOST, _CAPACITY))

    def record(self, event: StoredEvent, *, followed: bool) -> None:
        """Have an event written, soon when somebody waits for it."""
        self.put(event)
        if followed:
            self.hasten(FOLLOWED_SECONDS)
