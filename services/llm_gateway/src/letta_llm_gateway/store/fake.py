"""Stores in memory, for tests and for a gateway without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from letta_common.actor import Actor
from letta_llm_gateway.domain.usage import Trace, UsageRecord


class FakeUsageStore:
    """Keeps the books in memory."""

    def __init__(self) -> None:
        self.records: dict[str, UsageRecord] = {}
        self.traces: dict[str, Trace] = {}

    async def add(self, records: Sequence[UsageRecord], traces: Sequence[Trace]) -> None:
        """Write records, each once."""
        for record in records:
            self.records.setdefault(record.id, record)
        for trace in traces:
            self.traces.setdefault(trace.id, trace)

    async def trace_of_step(self, actor: Actor, step_id: str) -> Trace | None:
        """Return the newest trace of a step."""
        found = [
            trace
            for trace in self.traces.values()
            if trace.attribution.step_id == step_id and trace.organization_id == actor.organization_id
        ]
        return max(found, key=lambda trace: (trace.created_at, trace.id), default=None)

    async def forget_traces(self, before: datetime) -> int:
        """Delete traces that are older."""
        old = [key for key, trace in self.traces.items() if trace.created_at < before]
        for key in old:
            del self.traces[key]
        return len(old)
