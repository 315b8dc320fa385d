"""Booking what generations used: records are written in batches, off the path of the call."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError

_SWEEP_NS = 3_600_000_000_000
_log = logging.getLogger("letta.llm.usage")


@dataclass(frozen=True, slots=True)
class Attribution:
    """Whom a generation is booked on."""

    agent_id: str = ""
    run_id: str = ""
    step_id: str = ""
    purpose: str = ""


@dataclass(frozen=True, slots=True)
class UsageRecord:
    """One generation, for the books."""

    id: str
    organization_id: str
    user_id: str
    created_at: datetime
    attribution: Attribution
    model: str
    provider_type: str
    prompt_tokens: int
    completion_tokens: int
    cached_input_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    source: int
    cost_microdollars: int
    duration_ms: int
    outcome: str
    """`ok`, `cancelled`, or the reason of the error."""


@dataclass(frozen=True, slots=True)
class Trace:
    """What went to a vendor and what came back, keys and images removed."""

    id: str
    organization_id: str
    user_id: str
    created_at: datetime
    attribution: Attribution
    model: str
    provider_type: str
    request_json: str
    response_json: str


class UsageStore(Protocol):
    """Where the books are kept."""

    async def add(self, records: Sequence[UsageRecord], traces: Sequence[Trace]) -> None:
        """Write records, each once: an id that is there is left alone."""
        ...

    async def spent(self, actor: Actor, since: datetime) -> int:
        """Return what the organization's generations have cost, in millionths of a dollar."""
        ...

    async def trace_of_step(self, actor: Actor, step_id: str) -> Trace | None:
        """Return the newest trace of a step."""
        ...

    async def forget_traces(self, before: datetime) -> int:
        """Delete traces that are older, a bounded number at once, and say how many."""
        ...


class UsageWriter:
    """Collects records and writes them in batches; a database that is away costs records only beyond `most`."""

    def __init__(
        self,
        store: UsageStore,
        clock: Clock,
        *,
        pause: float = 0.5,
        batch: int = 500,
        most: int = 20_000,
        trace_days: int = 0,
    ) -> None:
        self._store, self._clock, self._pause, self._batch = store, clock, pause, batch
        self._trace_days = trace_days
        self._records: deque[UsageRecord] = deque(maxlen=most)
        self._traces: deque[Trace] = deque(maxlen=max(1, most // 10))
        self._task: asyncio.Task[None] | None = None

    def put(self, record: UsageRecord, trace: Trace | None = None) -> None:
        """Take a record without waiting."""
        if len(self._records) == self._records.maxlen:
            _log.warning("usage records are lost: the database does not take them")
        self._records.append(record)
        if trace is not None:
            self._traces.append(trace)

    async def start(self) -> None:
        """Begin to write."""
        self._task = asyncio.create_task(self._loop())

    async def close(self) -> None:
        """Write what is left."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task
        await self.flush()

    async def flush(self) -> None:
        """Write what has come so far; keep it when the database is away."""
        while self._records or self._traces:
            records = [self._records.popleft() for _ in range(min(self._batch, len(self._records)))]
            traces = [self._traces.popleft() for _ in range(min(self._batch, len(self._traces)))]
            try:
                await self._store.add(records, traces)
            except AppError as error:
                self._records.extendleft(reversed(records))
                self._traces.extendleft(reversed(traces))
                _log.warning("usage is not written yet: %s", error.message)
                return
            except Exception:  # one batch that cannot be written must not hold up all that follow
                _log.exception("%d usage records and %d traces are lost", len(records), len(traces))

    async def _loop(self) -> None:
        due = 0
        while True:
            await asyncio.sleep(self._pause)
            if self._records or self._traces:
                await self.flush()
            if self._trace_days and self._clock.monotonic_ns() >= due:
                due = self._clock.monotonic_ns() + _SWEEP_NS
                await self._sweep()

    async def _sweep(self) -> None:
        """Forget traces that are older than they shall be kept."""
        before = self._clock.now() - timedelta(days=self._trace_days)
        try:
            forgotten = 1
            while forgotten:
                forgotten = await self._store.forget_traces(before)
        except AppError as error:
            _log.warning("old traces are not deleted yet: %s", error.message)
