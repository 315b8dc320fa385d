"""Writing the events of runs, for listeners of other replicas and for those that come back."""

from __future__ import annotations

from letta_agent.domain.journal.records import QueueStore, StoredEvent
from letta_common.process.batches import BatchOptions, BatchWriter

WINDOW_SECONDS = 0.015
MOST = 2_000
"""Events of one statement."""
_CAPACITY = 100_000
EventWriter = BatchWriter[StoredEvent]


def event_writer(queue: QueueStore, *, window: float = WINDOW_SECONDS) -> EventWriter:
    """Return what collects events for some milliseconds and stores them by one statement."""
    return EventWriter("events", queue.append_events, BatchOptions(window, MOST, _CAPACITY))
