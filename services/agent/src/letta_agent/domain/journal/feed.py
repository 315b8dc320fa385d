"""What happens in a run, told to whoever listens on this replica and kept for whoever asks later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Protocol

from letta.agent.v1 import run_pb2, run_service_pb2
from letta.common.v1 import letta_message_pb2, usage_pb2
from letta_agent.domain.journal.records import RunKey, StoredEvent
from letta_common.errors import AppError
from letta_common.values.ids import new_id
from letta_messages.rendering import type_of

Event = run_service_pb2.StreamMessageResponse
LettaMessage = letta_message_pb2.LettaMessage

CLAIM_RANGE = 1_000_000  # far more than a run of many steps tells, token by token
"""Stream positions that each owner of a run may use; the next owner begins above them."""


class Record(Protocol):
    """Keeps events for listeners of other replicas."""

    def __call__(self, event: StoredEvent, *, followed: bool) -> None:
        """Keep an event; somebody waits for it there when the run is followed."""
        ...


class Feed:
    """The events of one run on this replica, from its first one."""

    def __init__(
        self, held: RunKey, *, claims: int = 0, kinds: Iterable[str] = (), record: Record | None = None
    ) -> None:
        self.held = held
        self._kinds = frozenset(kinds)
        self.error: AppError | None = None
        self._base = claims * CLAIM_RANGE
        self._events: list[Event] = []
        self._record = record
        self.followed = False
        """Somebody waits for the events on another replica."""
        self._ended = False
        self._news = asyncio.Event()
        if claims:
            self._add(Event(run_resumed=run_service_pb2.RunResumed(restart_seq=self._base + 1)))

    @property
    def position(self) -> int:
        """Return the position of the newest event."""
        return self._base + len(self._events)

    @property
    def recorded(self) -> bool:
        """Say whether events are kept for listeners of other replicas."""
        return self._record is not None

    @property
    def ended(self) -> bool:
        """Say whether there will be no more events."""
        return self._ended

    def say(self, messages: Iterable[LettaMessage]) -> None:
        """Tell messages, those of the wanted kinds."""
        for message in messages:
            if self._kinds and type_of(message) not in self._kinds | {"ping"}:
                continue
            event = Event(message=message)
            event.message.run_id = self.held.run_id
            event.message.seq_id = self.position + 1
            self._add(event)

    def stop(self, reason: usage_pb2.StopReason.ValueType) -> None:
        """Tell why the run stopped."""
        self._add(Event(stop_reason=run_pb2.StopReasonMessage(stop_reason=reason)))

    def usage(self, usage: run_pb2.UsageStatistics) -> None:
        """Tell what the run used."""
        self._add(Event(usage_statistics=usage))

    def end(self, error: AppError | None = None) -> None:
        """Say that there will be no more events, and what went wrong."""
        if not self._ended:
            self.error = error
            self._ended = True
            self._wake()

    def messages(self) -> list[LettaMessage]:
        """Return the messages told so far, pings excepted."""
        told = (event.message for event in self._events if event.HasField("message"))
        return [message for message in told if type_of(message) != "ping"]

    async def follow(self, after: int = 0) -> AsyncIterator[Event]:
        """Yield the events after a position, as they come, to the end. Raises what the run failed with."""
        # A position of a former owner lies below this range: the listener gets all of it.
        index = max(0, after - self._base)
        while True:
            while index < len(self._events):
                yield self._events[index]
                index += 1
            if self._ended:
                if self.error is not None:
                    raise self.error
                return
            await self._news.wait()

    def _add(self, event: Event) -> None:
        event.seq_id = self.position + 1
        self._events.append(event)
        if self._record is not None:
            held = self.held
            kept = StoredEvent(held.organization_id, held.run_id, event.seq_id, event.SerializeToString())
            self._record(kept, followed=self.followed)
        self._wake()

    def _wake(self) -> None:
        # A new event each time, so that each listener is woken once and none has to clear it.
        news, self._news = self._news, asyncio.Event()
        news.set()


def ping(run_id: str, now: datetime, seq_id: int = 0) -> LettaMessage:
    """Return a ping; it names the run, so that the listener can resume its stream."""
    message = LettaMessage(id=new_id("ping"), ping=letta_message_pb2.PingMessage(), run_id=run_id)
    message.date.FromDatetime(now.replace(microsecond=0))
    if seq_id:
        message.seq_id = seq_id
    return message
