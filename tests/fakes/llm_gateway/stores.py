"""Stores in memory, for tests and for a gateway without a database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date, datetime

from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta.llm.v1.provider_service_pb2 import ListProvidersRequest
from letta.llm.v1.trace_service_pb2 import ProviderTrace
from letta.llm.v1.usage_pb2 import ModelCall, UsageGroup
from letta.llm.v1.usage_service_pb2 import ModelCallFilter, UsageGroupBy
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_common.values.times import optional_time, time_of
from letta_llm_gateway.domain.accounting.budgets import Budget, BudgetStanding, Period, Spent
from letta_llm_gateway.domain.accounting.budgets import missing as no_budget
from letta_llm_gateway.domain.accounting.usage import GROUP_KEYS, BookedCall
from letta_llm_gateway.domain.catalogue.accounts import OwnProvider, missing, taken


class FakeProviderStore:
    """Keeps providers in memory."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], OwnProvider] = {}
        self._created: dict[str, datetime] = {}
        self._defaults: dict[str, ModelDefaults] = {}

    async def create(self, actor: Actor, provider: OwnProvider) -> None:
        """Store a new provider."""
        shown = provider.shown
        if any(row.shown.name == shown.name for row in await self.list_all(actor)):
            raise taken(shown.name)
        self._rows[actor.organization_id, shown.id] = provider
        self._created[shown.id] = time_of(shown.updated_at)

    async def get(self, actor: Actor, provider_id: str) -> OwnProvider:
        """Return one provider."""
        try:
            return self._rows[actor.organization_id, provider_id]
        except KeyError:
            raise missing(provider_id) from None

    async def list_all(self, actor: Actor) -> Sequence[OwnProvider]:
        """Return every provider of the organization."""
        return [row for (organization_id, _), row in self._rows.items() if organization_id == actor.organization_id]

    async def list_providers(self, actor: Actor, page: Page, wanted: ListProvidersRequest) -> list[OwnProvider]:
        """Return one page."""
        rows = [
            row
            for row in await self.list_all(actor)
            if wanted.name in {"", row.shown.name} and wanted.provider_type in {"", row.shown.provider_type}
        ]
        return page.slice(rows, key=lambda row: (self._created[row.shown.id], row.shown.id))

    async def update(self, actor: Actor, provider: OwnProvider) -> None:
        """Write a provider that exists."""
        await self.get(actor, provider.shown.id)
        self._rows[actor.organization_id, provider.shown.id] = provider

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
        self.records: dict[str, BookedCall] = {}
        self.traces: dict[str, ProviderTrace] = {}

    async def create(self, records: Sequence[BookedCall], traces: Sequence[ProviderTrace]) -> None:
        """Write records, each once."""
        for record in records:
            self.records.setdefault(record.call.id, record)
        for trace in traces:
            self.traces.setdefault(trace.id, trace)

    async def list_calls(self, actor: Actor, page: Page, wanted: ModelCallFilter) -> list[ModelCall]:
        """Return one page of calls."""
        return page.slice(self._mine(actor, wanted), key=lambda call: (time_of(call.created_at), call.id))

    async def list_sums(
        self, actor: Actor, wanted: ModelCallFilter, groups: Sequence[UsageGroupBy.ValueType], most: int
    ) -> list[UsageGroup]:
        """Return sums, the costliest groups first; days in their order when they are the first group."""
        found: dict[tuple[str, ...], list[ModelCall]] = {} if groups else {(): []}
        for call in self._mine(actor, wanted):
            found.setdefault(tuple(_KEYS[GROUP_KEYS[group]](call) for group in groups), []).append(call)
        names = [GROUP_KEYS[group] for group in groups]
        sums = [_sum(dict(zip(names, keys, strict=True)), calls) for keys, calls in sorted(found.items())]
        if groups and groups[0] != UsageGroupBy.USAGE_GROUP_BY_DAY:
            sums.sort(
                key=lambda group: group.cost_microdollars if group.HasField("cost_microdollars") else -1, reverse=True
            )
        return sums[:most]

    async def find_trace(self, actor: Actor, step_id: str) -> ProviderTrace | None:
        """Return the newest trace of a step."""
        found = [
            trace
            for trace in self.traces.values()
            if trace.step_id == step_id and trace.org_id == actor.organization_id
        ]
        return max(found, key=lambda trace: (time_of(trace.created_at), trace.id), default=None)

    async def forget_traces(self, before: datetime, most: int) -> int:
        """Delete traces that are older, at most so many."""
        old = [key for key, trace in self.traces.items() if time_of(trace.created_at) < before][:most]
        for key in old:
            del self.traces[key]
        return len(old)

    def _mine(self, actor: Actor, wanted: ModelCallFilter) -> list[ModelCall]:
        mine = [booked.call for booked in self.records.values() if booked.organization_id == actor.organization_id]
        return [call for call in mine if _takes(wanted, call)]


def _takes(wanted: ModelCallFilter, call: ModelCall) -> bool:
    """Say whether a call is meant."""
    named = ("agent_id", "run_id", "step_id", "user_id", "model")
    start, end, at = optional_time(wanted, "start_at"), optional_time(wanted, "end_at"), time_of(call.created_at)
    within = (start is None or at >= start) and (end is None or at < end)
    return within and all(getattr(wanted, name) in {"", getattr(call, name)} for name in named)


_KEYS: dict[str, Callable[[ModelCall], str]] = {
    "model": lambda call: call.model,
    "agent_id": lambda call: call.agent_id,
    "user_id": lambda call: call.user_id,
    "run_id": lambda call: call.run_id,
    "day": lambda call: time_of(call.created_at).date().isoformat(),
}


def _sum(keys: dict[str, str], calls: Sequence[ModelCall]) -> UsageGroup:
    priced = [call.cost_microdollars for call in calls if call.HasField("cost_microdollars")]
    return UsageGroup(
        **keys,  # type: ignore[arg-type]
        calls=len(calls),
        failed_calls=sum(call.outcome != "ok" for call in calls),
        prompt_tokens=sum(call.usage.prompt_tokens for call in calls),
        completion_tokens=sum(call.usage.completion_tokens for call in calls),
        cached_input_tokens=sum(call.usage.cached_input_tokens for call in calls),
        cache_write_tokens=sum(call.usage.cache_write_tokens for call in calls),
        reasoning_tokens=sum(call.usage.reasoning_tokens for call in calls),
        cost_microdollars=sum(priced) if priced else None,
        unpriced_calls=len(calls) - len(priced),
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
        rows = self._books.records.values()
        booked = [row.call for row in rows if row.organization_id == organization_id]

        def total(since: date, covers: Callable[[str, str], bool]) -> int:
            return sum(
                call.cost_microdollars
                for call in booked
                if time_of(call.created_at).date() >= since and covers(call.user_id, call.agent_id)
            )

        standings = [
            BudgetStanding(budget, total(budget.period.start(today), budget.covers))
            for budget in self._mine(organization_id)
        ]
        return Spent(total(Period.MONTH.start(today), lambda *_: True), standings)
