"""Stores in memory, for tests and for a gateway without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from letta_common.actor import Actor
from letta_common.paging import Page
from letta_llm_gateway.domain.accounts import Filter, OwnProvider, missing, taken
from letta_llm_gateway.domain.usage import Trace, UsageRecord


class FakeProviderStore:
    """Keeps providers in memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], OwnProvider] = {}

    async def add(self, actor: Actor, provider: OwnProvider) -> None:
        """Store a new provider."""
        if any(row.name == provider.name for row in await self.all(actor)):
            raise taken(provider.name)
        self._rows[actor.organization_id, provider.id] = provider

    async def get(self, actor: Actor, provider_id: str) -> OwnProvider:
        """Return one provider."""
        try:
            return self._rows[actor.organization_id, provider_id]
        except KeyError:
            raise missing(provider_id) from None

    async def all(self, actor: Actor) -> Sequence[OwnProvider]:
        """Return every provider of the organization."""
        return [row for (organization_id, _), row in self._rows.items() if organization_id == actor.organization_id]

    async def page(self, actor: Actor, page: Page, wanted: Filter) -> list[OwnProvider]:
        """Return one page."""
        rows = [
            row
            for row in await self.all(actor)
            if wanted.name in {"", row.name} and wanted.provider_type in {"", row.provider_type}
        ]
        return page.slice(rows, key=lambda row: (row.created_at, row.id))

    async def replace(self, actor: Actor, provider: OwnProvider) -> None:
        """Write a provider that exists."""
        await self.get(actor, provider.id)
        self._rows[actor.organization_id, provider.id] = provider

    async def delete(self, actor: Actor, provider_id: str) -> None:
        """Delete a provider."""
        await self.get(actor, provider_id)
        del self._rows[actor.organization_id, provider_id]


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

    async def spent(self, actor: Actor, since: datetime) -> int:
        """Return what the organization's generations have cost."""
        mine = [record for record in self.records.values() if record.organization_id == actor.organization_id]
        return sum(record.cost_microdollars for record in mine if record.created_at >= since)

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
