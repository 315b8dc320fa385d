"""Stores in memory, for tests and for a gateway without a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime

from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta.llm.v1.usage_pb2 import UsageGroup
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_llm_gateway.domain.accounting.budgets import Budget, BudgetStanding, Period, Spent
from letta_llm_gateway.domain.accounting.budgets import missing as no_budget
from letta_llm_gateway.domain.accounting.traces import Trace
from letta_llm_gateway.domain.accounting.usage import GROUP_KEYS, CallFilter, GroupBy, UsageRecord
from letta_llm_gateway.domain.catalogue.accounts import Filter, OwnProvider, missing, taken


class FakeProviderStore:
    """Keeps providers in memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], OwnProvider] = {}
        self._defaults: dict[str, ModelDefaults] = {}

    async def create(self, actor: Actor, provider: OwnProvider) -> None:
        """Store a new provider."""
        if any(row.name == provider.name for row in await self.list_all(actor)):
            raise taken(provider.name)
        self._rows[actor.organization_id, provider.id] = provider

    async def get(self, actor: Actor, provider_id: str) -> OwnProvider:
        """Return one provider."""
        try:
            return self._rows[actor.organization_id, provider_id]
        except KeyError:
            raise missing(provider_id) from None

    async def list_all(self, actor: Actor) -> Sequence[OwnProvider]:
        """Return every provider of the organization."""
        return [row for (organization_id, _), row in self._rows.items() if organization_id == actor.organization_id]

    async def list_providers(self, actor: Actor, page: Page, wanted: Filter) -> list[OwnProvider]:
        """Return one page."""
        rows = [
            row
            for row in await self.list_all(actor)
            if wanted.name in {"", row.name} and wanted.provider_type in {"", row.provider_type}
        ]
        return page.slice(rows, key=lambda row: (row.created_at, row.id))

    async def update(self, actor: Actor, provider: OwnProvider) -> None:
        """Write a provider that exists."""
        await self.get(actor, provider.id)
        self._rows[actor.organization_id, provider.id] = provider

    async def delete(self, actor: Actor, provider_id: str) -> None:
        """Delete a provider."""
        await self.get(actor, provider_id)
        del self._rows[actor.organization_id, provider_id]

    async def get_defaults(self, actor: Actor) -> ModelDefaults:
        """Return the handles that the organization chose."""
        return self._defaults.get(actor.organization_id, ModelDefaults())

    async def put_defaults(self, actor: Actor, chosen: ModelDefaults, at: datetime) -> None:
        """Store the handles that the organization chose."""
        self._defaults[actor.organization_id] = chosen


class FakeUsageStore:
    """Keeps the books in memory."""

    def __init__(self) -> None:
        self.records: dict[str, UsageRecord] = {}
        self.traces: dict[str, Trace] = {}

    async def create(self, records: Sequence[UsageRecord], traces: Sequence[Trace]) -> None:
        """Write records, each once."""
        for record in records:
            self.records.setdefault(record.id, record)
        for trace in traces:
            self.traces.setdefault(trace.id, trace)

    async def list_calls(self, actor: Actor, page: Page, wanted: CallFilter) -> list[UsageRecord]:
        """Return one page of calls."""
        return page.slice(self._mine(actor, wanted), key=lambda record: (record.created_at, record.id))

    async def list_sums(
        self, actor: Actor, wanted: CallFilter, groups: Sequence[GroupBy], most: int
    ) -> list[UsageGroup]:
        """Return sums, the costliest groups first; days in their order when they are the first group."""
        found: dict[tuple[str, ...], list[UsageRecord]] = {} if groups else {(): []}
        for record in self._mine(actor, wanted):
            found.setdefault(tuple(_KEYS[group](record) for group in groups), []).append(record)
        names = [GROUP_KEYS[group] for group in groups]
        sums = [_sum(dict(zip(names, keys, strict=True)), records) for keys, records in sorted(found.items())]
        if groups and groups[0] is not GroupBy.DAY:
            sums.sort(
                key=lambda group: group.cost_microdollars if group.HasField("cost_microdollars") else -1, reverse=True
            )
        return sums[:most]

    async def find_trace(self, actor: Actor, step_id: str) -> Trace | None:
        """Return the newest trace of a step."""
        found = [
            trace
            for trace in self.traces.values()
            if trace.step_id == step_id and trace.organization_id == actor.organization_id
        ]
        return max(found, key=lambda trace: (trace.created_at, trace.id), default=None)

    async def forget_traces(self, before: datetime, most: int) -> int:
        """Delete traces that are older, at most so many."""
        old = [key for key, trace in self.traces.items() if trace.created_at < before][:most]
        for key in old:
            del self.traces[key]
        return len(old)

    def _mine(self, actor: Actor, wanted: CallFilter) -> list[UsageRecord]:
        return [
            record
            for record in self.records.values()
            if record.organization_id == actor.organization_id and wanted.takes(record)
        ]


_KEYS: dict[GroupBy, Callable[[UsageRecord], str]] = {
    GroupBy.MODEL: lambda record: record.model,
    GroupBy.AGENT: lambda record: record.attribution.agent_id,
    GroupBy.USER: lambda record: record.user_id,
    GroupBy.RUN: lambda record: record.attribution.run_id,
    GroupBy.DAY: lambda record: record.created_at.astimezone(UTC).date().isoformat(),
}


def _sum(keys: dict[str, str], records: Sequence[UsageRecord]) -> UsageGroup:
    priced = [record.cost_microdollars for record in records if record.cost_microdollars is not None]
    return UsageGroup(
        **keys,  # type: ignore[arg-type]
        calls=len(records),
        failed_calls=sum(record.outcome != "ok" for record in records),
        prompt_tokens=sum(record.prompt_tokens for record in records),
        completion_tokens=sum(record.completion_tokens for record in records),
        cached_input_tokens=sum(record.cached_input_tokens for record in records),
        cache_write_tokens=sum(record.cache_write_tokens for record in records),
        reasoning_tokens=sum(record.reasoning_tokens for record in records),
        cost_microdollars=sum(priced) if priced else None,
        unpriced_calls=len(records) - len(priced),
    )


class FakeBudgetStore:
    """Keeps budgets in memory, over books in memory."""

    def __init__(self, books: FakeUsageStore) -> None:
        self._books = books
        self._rows: dict[str, Budget] = {}

    async def put(self, actor: Actor, budget: Budget) -> Budget:
        """Store a budget; one of the same scope, subject and period is changed and keeps its id."""
        subject = (actor.organization_id, budget.scope, budget.subject_id, budget.period)
        for row in self._rows.values():
            if subject == (row.organization_id, row.scope, row.subject_id, row.period):
                budget = replace(budget, id=row.id, created_at=row.created_at)
        self._rows[budget.id] = budget
        return budget

    async def list_budgets(self, actor: Actor, page: Page) -> list[Budget]:
        """Return one page of budgets."""
        return page.slice(self._mine(actor.organization_id), key=lambda row: (row.created_at, row.id))

    async def delete(self, actor: Actor, budget_id: str) -> None:
        """Delete a budget."""
        if budget_id not in {row.id for row in self._mine(actor.organization_id)}:
            raise no_budget(budget_id)
        del self._rows[budget_id]

    async def spent(self, organization_ids: Sequence[str], today: date) -> dict[str, Spent]:
        """Return what organizations have spent."""
        return {organization_id: self._spent(organization_id, today) for organization_id in organization_ids}

    def _mine(self, organization_id: str) -> list[Budget]:
        return [row for row in self._rows.values() if row.organization_id == organization_id]

    def _spent(self, organization_id: str, today: date) -> Spent:
        booked = [row for row in self._books.records.values() if row.organization_id == organization_id]

        def total(since: date, covers: Callable[[str, str], bool]) -> int:
            return sum(
                row.cost_microdollars or 0
                for row in booked
                if row.created_at.astimezone(UTC).date() >= since and covers(row.user_id, row.attribution.agent_id)
            )

        standings = [
            BudgetStanding(budget, total(budget.period.start(today), budget.covers))
            for budget in self._mine(organization_id)
        ]
        return Spent(total(Period.MONTH.start(today), lambda *_: True), standings)
