"""The books: what each generation used and cost, written in batches off the path of the call."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import structlog
from prometheus_client import Counter

from letta.llm.v1.trace_service_pb2 import ProviderTrace
from letta.llm.v1.usage_pb2 import ModelCall, UsageGroup
from letta.llm.v1.usage_service_pb2 import ModelCallFilter, UsageGroupBy
from letta_common.actor import Actor
from letta_common.process.batches import BatchOptions, BatchWriter
from letta_common.values.paging import Page
from letta_llm_gateway.domain.accounting.traces import TraceDraft, request_of, response_of

_log = structlog.get_logger("letta.llm.usage")
_lost = Counter("letta_llm_usage_lost", "Usage records that the database did not take.")
_dropped = Counter("letta_llm_traces_dropped", "Traces that were not kept: too many at once, or not writable.")


class BookedCall(NamedTuple):
    """One call of a model, in the books of an organization."""

    organization_id: str
    call: ModelCall


GROUP_KEYS = {
    UsageGroupBy.USAGE_GROUP_BY_MODEL: "model",
    UsageGroupBy.USAGE_GROUP_BY_AGENT: "agent_id",
    UsageGroupBy.USAGE_GROUP_BY_USER: "user_id",
    UsageGroupBy.USAGE_GROUP_BY_RUN: "run_id",
    UsageGroupBy.USAGE_GROUP_BY_DAY: "day",
}
"""The field of a UsageGroup that names what a group has in common."""


class UsageStore(Protocol):
    """Where the books are kept."""

    async def create(self, records: Sequence[BookedCall], traces: Sequence[ProviderTrace]) -> None:
        """Write records, each once: an id that is there is left alone."""
        ...

    async def list_calls(self, actor: Actor, page: Page, wanted: ModelCallFilter) -> Sequence[ModelCall]:
        """Return one page of calls. Raises CursorNotFound."""
        ...

    async def list_sums(
        self, actor: Actor, wanted: ModelCallFilter, groups: Sequence[UsageGroupBy.ValueType], most: int
    ) -> Sequence[UsageGroup]:
        """Return sums, the costliest groups first; days in their order when they are the first group."""
        ...

    async def find_trace(self, actor: Actor, step_id: str) -> ProviderTrace | None:
        """Return the newest trace of a step."""
        ...

    async def forget_traces(self, before: datetime, most: int) -> int:
        """Delete traces of any organization that are older, at most so many, and say how many."""
        ...


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How the writer collects."""

    pause: float = 0.5
    batch: int = 500
    most: int = 20_000
    most_traces: int = 2_000
    most_trace_bytes: int = 64 << 20
    """Memory that traces may hold until they are written; more are dropped and counted."""
    trace_bytes: int = 262_144


_Row = tuple[BookedCall, TraceDraft | None]
_TRACE_WEIGHT = 10
"""A batch holds a tenth as many traces as records, which are large."""


class UsageWriter:
    """Collects records and writes them in batches; a database that is away costs records only beyond `most`."""

    def __init__(self, store: UsageStore, options: WriterOptions | None = None) -> None:
        self._store, self._options = store, options or WriterOptions()
        limits = BatchOptions(self._options.pause, self._options.batch, self._options.most)
        self._batches: BatchWriter[_Row] = BatchWriter("usage", self._write, limits, lost=self._lose, weight=_weight)
        self._drafts = self._held = 0

    def put(self, record: BookedCall, draft: TraceDraft | None = None) -> None:
        """Take a record without waiting."""
        options = self._options
        if draft is not None:
            if self._drafts >= options.most_traces or self._held + draft.size > options.most_trace_bytes:
                _dropped.inc()
                draft = None
            else:
                self._hold(draft, 1)
        self._batches.put((record, draft))

    def start(self) -> None:
        """Begin to write."""
        self._batches.start()

    async def close(self) -> None:
        """Write what is left."""
        await self._batches.close()

    async def flush(self) -> bool:
        """Write what has come so far; keep it and say no when the database is away."""
        return await self._batches.flush()

    async def _write(self, rows: list[_Row]) -> None:
        drafts = [(record, draft) for record, draft in rows if draft is not None]
        traces = await asyncio.to_thread(_rendered, drafts, self._options.trace_bytes) if drafts else []
        await self._store.create([record for record, _ in rows], traces)
        for _, draft in drafts:
            self._hold(draft, -1)

    def _lose(self, row: _Row) -> None:
        _lost.inc()
        if row[1] is not None:
            _dropped.inc()
            self._hold(row[1], -1)

    def _hold(self, draft: TraceDraft, count: int) -> None:
        self._drafts += count
        self._held += count * draft.size


def _weight(row: _Row) -> int:
    return 1 if row[1] is None else _TRACE_WEIGHT


def _rendered(drafts: Sequence[tuple[BookedCall, TraceDraft]], most: int) -> list[ProviderTrace]:
    """Write traces down; runs in a thread. What cannot be written down is dropped."""
    found = []
    for record, draft in drafts:
        try:
            found.append(_trace(record, request_of(draft, most), response_of(draft, most)))
        except Exception:
            _dropped.inc()
            _log.exception("a trace cannot be written down")
    return found


def _trace(record: BookedCall, request: str, response: str) -> ProviderTrace:
    call = record.call
    return ProviderTrace(
        id=call.id.replace("usage-", "provider_trace-"),
        created_at=call.created_at,
        request_json=request,
        response_json=response,
        step_id=call.step_id or None,
        agent_id=call.agent_id or None,
        run_id=call.run_id or None,
        call_type=call.purpose,
        model=call.model,
        org_id=record.organization_id,
        user_id=call.user_id,
        provider_type=call.provider_type,
    )
