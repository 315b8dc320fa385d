"""The stores of providers and of the books, in memory and in SQL."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import CallPurpose
from letta.llm.v1.model_pb2 import PROVIDER_CATEGORY_BYOK
from letta.llm.v1.model_service_pb2 import ModelDefaults
from letta.llm.v1.provider_pb2 import Provider
from letta.llm.v1.provider_service_pb2 import ListProvidersRequest
from letta.llm.v1.trace_service_pb2 import ProviderTrace
from letta.llm.v1.usage_pb2 import ModelCall
from letta.llm.v1.usage_service_pb2 import ModelCallFilter, UsageGroupBy
from letta_common.actor import Actor
from letta_common.errors import BudgetNotFound, CursorNotFound, ProviderNameTaken, ProviderNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import duration_of, stamp_of
from letta_llm_gateway.domain.accounting.budgets import Action, Budget, BudgetScope, Period
from letta_llm_gateway.domain.accounting.usage import GROUP_KEYS, BookedCall
from letta_llm_gateway.domain.catalogue.accounts import OwnProvider
from letta_llm_gateway.store.accounts import SqlProviderStore
from letta_llm_gateway.store.budgets import SqlBudgetStore
from letta_llm_gateway.store.usage import SqlUsageStore
from letta_postgres.db import Database
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeProviderStore, FakeUsageStore

ANN, BEN = Actor("org-a", "user-a"), Actor("org-b", "user-b")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture
async def db(database_url):
    database = await Database.open(database_url, schema="llm")
    await database.hot(
        "truncate llm.providers, llm.usage, llm.provider_traces, llm.budgets, llm.spending, llm.defaults"
    )
    yield database
    await database.close()


@pytest.fixture(params=["fake", "sql"])
def providers(request):
    return FakeProviderStore() if request.param == "fake" else SqlProviderStore(request.getfixturevalue("db"))


@pytest.fixture(params=["fake", "sql"])
def books(request):
    return FakeUsageStore() if request.param == "fake" else SqlUsageStore(request.getfixturevalue("db"))


def made(name: str, actor: Actor = ANN, at: int = 0, keys: dict[str, bytes] | None = None, **rest) -> OwnProvider:
    shown = {
        "id": new_id("provider"),
        "organization_id": actor.organization_id,
        "name": name,
        "provider_type": "openai",
        "provider_category": PROVIDER_CATEGORY_BYOK,
        "base_url": "https://example.org",
        "updated_at": stamp_of(NOW + timedelta(seconds=at)),
    }
    return OwnProvider(Provider(**{**shown, **rest}), {"api_key": b"\x00sealed"} if keys is None else keys)


async def test_a_provider_comes_back_as_it_was_stored(providers):
    one = made("one")
    await providers.create(ANN, one)

    assert await providers.get(ANN, one.shown.id) == one
    assert list(await providers.list_all(ANN)) == [one]


async def test_names_are_unique_within_an_organization(providers):
    await providers.create(ANN, made("one"))

    with pytest.raises(ProviderNameTaken):
        await providers.create(ANN, made("one"))
    await providers.create(BEN, made("one", BEN))


async def test_another_organization_sees_nothing(providers):
    one = made("one")
    await providers.create(ANN, one)

    assert not await providers.list_all(BEN)
    for act in (providers.get(BEN, one.shown.id), providers.update(BEN, one), providers.delete(BEN, one.shown.id)):
        with pytest.raises(ProviderNotFound):
            await act
    assert await providers.get(ANN, one.shown.id) == one


async def test_a_provider_is_replaced_and_deleted(providers):
    one = made("one")
    await providers.create(ANN, one)
    later = made("one", at=9, keys={"access_key": b"k"}, id=one.shown.id, region="eu", last_synced=stamp_of(NOW))

    await providers.update(ANN, later)
    assert await providers.get(ANN, one.shown.id) == later
    await providers.delete(ANN, one.shown.id)
    with pytest.raises(ProviderNotFound):
        await providers.get(ANN, one.shown.id)


async def test_pages_are_by_time(providers):
    rows = [made(f"p{at}", at=at) for at in range(4)]
    for row in rows:
        await providers.create(ANN, row)

    async def page(**rest):
        wanted = ListProvidersRequest(**{key: rest.pop(key) for key in list(rest) if key in {"name", "provider_type"}})
        return [row.shown.name for row in await providers.list_providers(ANN, Page(**rest), wanted)]

    assert await page() == ["p3", "p2", "p1", "p0"]
    assert await page(limit=2, after=rows[2].shown.id) == ["p1", "p0"]
    assert await page(limit=1, before=rows[2].shown.id) == ["p3"]
    assert await page(limit=2, ascending=True) == ["p0", "p1"]
    assert await page(name="p1") == ["p1"]
    assert await page(provider_type="anthropic") == []
    with pytest.raises(CursorNotFound):
        await page(after="provider-00000000-0000-4000-8000-000000000000")


async def test_an_organization_chooses_its_defaults(providers):
    assert await providers.get_defaults(ANN) == ModelDefaults()
    await providers.put_defaults(ANN, ModelDefaults(handle="mine/a"), NOW)
    await providers.put_defaults(ANN, ModelDefaults(handle="mine/b", embedding_handle="mine/e"), NOW)

    assert await providers.get_defaults(ANN) == ModelDefaults(handle="mine/b", embedding_handle="mine/e")
    assert await providers.get_defaults(BEN) == ModelDefaults()


def record(actor: Actor = ANN, cost: int | None = 5, at: datetime = NOW, **rest) -> BookedCall:
    values = {
        "id": new_id("usage"),
        "user_id": actor.user_id,
        "created_at": stamp_of(at),
        "agent_id": "agent-1",
        "run_id": "run-1",
        "step_id": "step-1",
        "purpose": CallPurpose.CALL_PURPOSE_STEP,
        "model": "openai/x",
        "provider_type": "openai",
        "usage": TokenUsage(
            prompt_tokens=10, completion_tokens=2, cached_input_tokens=3, cache_write_tokens=1, reasoning_tokens=1
        ),
        "usage_source": 1,
        "cost_microdollars": cost,
        "duration": duration_of(3_000_000),
        "outcome": "ok",
    }
    return BookedCall(actor.organization_id, ModelCall(**{**values, **rest}))


def trace(at: datetime, answer: str, actor: Actor = ANN) -> ProviderTrace:
    return ProviderTrace(
        id=new_id("trace"),
        created_at=stamp_of(at),
        request_json="{}",
        response_json=answer,
        step_id="step-1",
        agent_id="agent-1",
        run_id="run-1",
        call_type=CallPurpose.CALL_PURPOSE_STEP,
        model="m",
        org_id=actor.organization_id,
        user_id=actor.user_id,
        provider_type="openai",
    )


async def test_calls_come_back_as_they_were_booked(books):
    known, unknown = record(), record(cost=None, at=NOW + timedelta(seconds=1), outcome="LLM_TIMEOUT")
    await books.create([known, unknown, record(BEN)], [])

    assert await books.list_calls(ANN, Page(), ModelCallFilter()) == [unknown.call, known.call]


async def test_calls_are_paged_and_filtered(books):
    rows = [
        record(at=NOW + timedelta(hours=at), agent_id=f"agent-{at % 2}", run_id=f"run-{at}", model=f"m/{at % 3}")
        for at in range(6)
    ]
    await books.create(rows, [])

    made = [row.call for row in rows]

    async def ids(wanted: ModelCallFilter, **rest):
        return [made.index(call) for call in await books.list_calls(ANN, Page(**rest), wanted)]

    assert await ids(ModelCallFilter(), limit=2) == [5, 4]
    assert await ids(ModelCallFilter(), limit=2, after=rows[4].call.id) == [3, 2]
    assert await ids(ModelCallFilter(agent_id="agent-1")) == [5, 3, 1]
    assert await ids(ModelCallFilter(run_id="run-2")) == [2]
    assert await ids(ModelCallFilter(model="m/0", agent_id="agent-1")) == [3]
    assert await ids(ModelCallFilter(user_id="user-x")) == await ids(ModelCallFilter(step_id="step-x")) == []
    assert await ids(
        ModelCallFilter(start_at=stamp_of(NOW + timedelta(hours=1)), end_at=stamp_of(NOW + timedelta(hours=3)))
    ) == [2, 1]
    with pytest.raises(CursorNotFound):
        await ids(ModelCallFilter(), after="usage-00000000-0000-4000-8000-000000000000")
    assert await books.list_calls(BEN, Page(), ModelCallFilter()) == []


async def test_sums_are_grouped_and_say_what_has_no_price(books):
    late = NOW.replace(hour=23, minute=59) + timedelta(minutes=2)
    await books.create(
        [
            record(cost=5, model="a"),
            record(cost=7, model="a", agent_id="agent-2", outcome="LLM_TIMEOUT"),
            record(cost=None, model="b", at=late),
            record(cost=None, model="a", at=late),
            record(BEN, cost=99, model="a"),
        ],
        [],
    )

    async def sums(*groups: UsageGroupBy.ValueType, most: int = 10, wanted: ModelCallFilter | None = None):
        found = await books.list_sums(ANN, wanted or ModelCallFilter(), groups, most)
        return [
            (
                tuple(getattr(each, GROUP_KEYS[group]) for group in groups),
                each.calls,
                each.failed_calls,
                each.cost_microdollars if each.HasField("cost_microdollars") else None,
                each.unpriced_calls,
            )
            for each in found
        ]

    assert await sums() == [((), 4, 1, 12, 2)]
    assert await sums(UsageGroupBy.USAGE_GROUP_BY_MODEL) == [(("a",), 3, 1, 12, 1), (("b",), 1, 0, None, 1)]
    assert await sums(UsageGroupBy.USAGE_GROUP_BY_AGENT) == [(("agent-2",), 1, 1, 7, 0), (("agent-1",), 3, 0, 5, 2)]
    assert await sums(UsageGroupBy.USAGE_GROUP_BY_DAY) == [
        (("2026-11-22",), 2, 1, 12, 0),
        (("2026-11-23",), 2, 0, None, 2),
    ]
    assert await sums(UsageGroupBy.USAGE_GROUP_BY_DAY, UsageGroupBy.USAGE_GROUP_BY_MODEL, most=2) == [
        (("2026-11-22", "a"), 2, 1, 12, 0),
        (("2026-11-23", "a"), 1, 0, None, 1),
    ]
    assert await sums(
        UsageGroupBy.USAGE_GROUP_BY_USER, UsageGroupBy.USAGE_GROUP_BY_RUN, wanted=ModelCallFilter(model="b")
    ) == [(("user-a", "run-1"), 1, 0, None, 1)]
    assert await sums(UsageGroupBy.USAGE_GROUP_BY_MODEL, wanted=ModelCallFilter(model="nobody's")) == []
    [whole] = await books.list_sums(ANN, ModelCallFilter(), (), 1)
    assert (whole.prompt_tokens, whole.completion_tokens, whole.cached_input_tokens) == (40, 8, 12)
    assert (whole.cache_write_tokens, whole.reasoning_tokens) == (4, 4)
    [nothing] = await books.list_sums(BEN, ModelCallFilter(model="b"), (), 1)
    assert (nothing.calls, nothing.prompt_tokens, nothing.HasField("cost_microdollars")) == (0, 0, False)


@pytest.fixture
def kept(books, request):
    """Budgets over the same books."""
    return (
        FakeBudgetStore(books) if isinstance(books, FakeUsageStore) else SqlBudgetStore(request.getfixturevalue("db"))
    )


def budget(scope=BudgetScope.ORGANIZATION, subject="", period=Period.MONTH, limit=100, actor=ANN, at=0) -> Budget:
    time = NOW + timedelta(seconds=at)
    return Budget(new_id("budget"), actor.organization_id, scope, subject, period, limit, Action.REFUSE, time, time)


async def spent(kept, actor=ANN):
    found = (await kept.spent([actor.organization_id, "org-nobody"], NOW.date()))[actor.organization_id]
    named = {(each.budget.scope.name, each.budget.period.name): each.spent_microdollars for each in found.standings}
    return found.month_microdollars, named


async def test_a_budget_is_set_once_for_its_subject(kept):
    first = await kept.put(ANN, budget(limit=1))
    again = await kept.put(ANN, replace(budget(limit=2, at=9), action=Action.WARN))
    other = await kept.put(ANN, budget(period=Period.DAY, at=1))

    assert (again.id, again.created_at) == (first.id, first.created_at)
    assert (again.limit_microdollars, again.action, again.updated_at) == (2, Action.WARN, NOW + timedelta(seconds=9))
    assert await kept.list_budgets(ANN, Page()) == [other, again]
    assert await kept.list_budgets(ANN, Page(limit=1, after=other.id)) == [again]
    assert await kept.list_budgets(BEN, Page()) == await kept.list_budgets(BEN, Page(after=other.id)) == []


async def test_a_budget_is_deleted_by_its_organization_alone(kept):
    one = await kept.put(ANN, budget())

    with pytest.raises(BudgetNotFound):
        await kept.delete(BEN, one.id)
    await kept.delete(ANN, one.id)
    with pytest.raises(BudgetNotFound):
        await kept.delete(ANN, one.id)


async def test_spending_counts_by_scope_and_period_and_each_record_once(books, kept):
    for period in Period:
        await kept.put(ANN, budget(period=period))
        await kept.put(ANN, budget(BudgetScope.USER, "user-a", period))
        await kept.put(ANN, budget(BudgetScope.AGENT, "agent-1", period))
    await kept.put(BEN, budget(actor=BEN))
    rows = [
        record(cost=1),
        record(cost=2, user_id="user-z"),
        record(cost=4, agent_id="agent-2"),
        record(cost=8, at=NOW - timedelta(days=3)),
        record(cost=16, at=NOW - timedelta(days=40)),
        record(cost=None),
        record(cost=0),
        record(BEN, cost=1000),
    ]
    await books.create(rows, [])
    await books.create([*rows[:2], record(cost=32)], [])

    month, named = await spent(kept)
    assert month == 1 + 2 + 4 + 8 + 32
    assert named == {
        ("ORGANIZATION", "DAY"): 39,
        ("ORGANIZATION", "MONTH"): 47,
        ("ORGANIZATION", "FOREVER"): 63,
        ("USER", "DAY"): 37,
        ("USER", "MONTH"): 45,
        ("USER", "FOREVER"): 61,
        ("AGENT", "DAY"): 35,
        ("AGENT", "MONTH"): 43,
        ("AGENT", "FOREVER"): 59,
    }
    assert await spent(kept, BEN) == (1000, {("ORGANIZATION", "MONTH"): 1000})
    assert (await kept.spent(["org-nobody"], NOW.date()))["org-nobody"].standings == []


async def test_two_replicas_that_book_at_once_lose_nothing(books, kept):
    await kept.put(ANN, budget())
    rows = [[record(cost=1, agent_id=f"agent-{at % 5}") for at in range(40)] for _ in range(8)]

    await asyncio.gather(
        *(books.create(batch, []) for batch in rows), *(books.create(batch[::-1], []) for batch in rows)
    )

    assert await spent(kept) == (320, {("ORGANIZATION", "MONTH"): 320})


async def test_the_newest_trace_of_a_step_is_found(books):
    rows = [trace(NOW, "1"), trace(NOW + timedelta(seconds=1), "2"), trace(NOW, "b", BEN)]
    await books.create([], rows)

    found = await books.find_trace(ANN, "step-1")
    assert found == rows[1]
    assert (await books.find_trace(BEN, "step-1")).response_json == "b"
    assert await books.find_trace(ANN, "step-2") is None


async def test_old_traces_are_forgotten_a_few_at_once(books):
    old = [trace(NOW - timedelta(days=8), "old", actor) for actor in (ANN, BEN, ANN)]
    await books.create([], [*old, trace(NOW, "new")])

    assert [await books.forget_traces(NOW - timedelta(days=7), 2) for _ in range(3)] == [2, 1, 0]
    assert (await books.find_trace(ANN, "step-1")).response_json == "new"
    assert await books.find_trace(BEN, "step-1") is None
