"""The stores of providers and of the books, in memory and in SQL."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta_common.actor import Actor
from letta_common.db import Database
from letta_common.errors import CursorNotFound, ProviderNameTaken, ProviderNotFound
from letta_common.ids import new_id
from letta_common.paging import Page
from letta_llm_gateway.domain.accounts import Filter, OwnProvider
from letta_llm_gateway.domain.usage import Attribution, Trace, UsageRecord
from letta_llm_gateway.store.accounts import SqlProviderStore
from letta_llm_gateway.store.fake import FakeProviderStore, FakeUsageStore
from letta_llm_gateway.store.usage import SqlUsageStore

ANN, BEN = Actor("org-a", "user-a"), Actor("org-b", "user-b")
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def database_schemas():
    return ["llm"]


@pytest.fixture
async def db(database_url):
    database = await Database.open(database_url, schema="llm")
    await database.hot("truncate llm.providers, llm.usage, llm.provider_traces")
    yield database
    await database.close()


@pytest.fixture(params=["fake", "sql"])
def providers(request):
    return FakeProviderStore() if request.param == "fake" else SqlProviderStore(request.getfixturevalue("db"))


@pytest.fixture(params=["fake", "sql"])
def books(request):
    return FakeUsageStore() if request.param == "fake" else SqlUsageStore(request.getfixturevalue("db"))


def made(name: str, actor: Actor = ANN, at: int = 0) -> OwnProvider:
    time = NOW + timedelta(seconds=at)
    return OwnProvider(
        id=new_id("provider"),
        organization_id=actor.organization_id,
        name=name,
        provider_type="openai",
        base_url="https://example.org",
        region=None,
        api_version=None,
        api_key=b"\x00sealed",
        access_key=None,
        created_at=time,
        updated_at=time,
    )


async def test_a_provider_comes_back_as_it_was_stored(providers):
    one = made("one")
    await providers.add(ANN, one)

    assert await providers.get(ANN, one.id) == one
    assert list(await providers.all(ANN)) == [one]


async def test_names_are_unique_within_an_organization(providers):
    await providers.add(ANN, made("one"))

    with pytest.raises(ProviderNameTaken):
        await providers.add(ANN, made("one"))
    await providers.add(BEN, made("one", BEN))


async def test_another_organization_sees_nothing(providers):
    one = made("one")
    await providers.add(ANN, one)

    assert not await providers.all(BEN)
    for act in (providers.get(BEN, one.id), providers.replace(BEN, one), providers.delete(BEN, one.id)):
        with pytest.raises(ProviderNotFound):
            await act
    assert await providers.get(ANN, one.id) == one


async def test_a_provider_is_replaced_and_deleted(providers):
    one = made("one")
    await providers.add(ANN, one)
    changed = replace(one, region="eu", api_key=None, last_synced=NOW)

    await providers.replace(ANN, changed)
    assert await providers.get(ANN, one.id) == changed
    await providers.delete(ANN, one.id)
    with pytest.raises(ProviderNotFound):
        await providers.get(ANN, one.id)


async def test_pages_are_by_time(providers):
    rows = [made(f"p{at}", at=at) for at in range(4)]
    for row in rows:
        await providers.add(ANN, row)

    async def page(wanted: Filter | None = None, **rest):
        return [row.name for row in await providers.page(ANN, Page(**rest), wanted or Filter())]

    assert await page() == ["p3", "p2", "p1", "p0"]
    assert await page(limit=2, after=rows[2].id) == ["p1", "p0"]
    assert await page(limit=1, before=rows[2].id) == ["p3"]
    assert await page(limit=2, ascending=True) == ["p0", "p1"]
    assert await page(Filter(name="p1")) == ["p1"]
    assert await page(Filter(provider_type="anthropic")) == []
    with pytest.raises(CursorNotFound):
        await page(after="provider-00000000-0000-4000-8000-000000000000")


def record(actor: Actor = ANN, cost: int = 5, at: datetime = NOW) -> UsageRecord:
    return UsageRecord(
        id=new_id("usage"),
        organization_id=actor.organization_id,
        user_id=actor.user_id,
        created_at=at,
        attribution=Attribution("agent-1", "run-1", "step-1", "step"),
        model="openai/x",
        provider_type="openai",
        prompt_tokens=1,
        completion_tokens=2,
        cached_input_tokens=0,
        cache_write_tokens=0,
        reasoning_tokens=0,
        source=1,
        cost_microdollars=cost,
        duration_ms=3,
        outcome="ok",
    )


def trace(at: datetime, answer: str, actor: Actor = ANN) -> Trace:
    booked = Attribution("agent-1", "run-1", "step-1", "step")
    return Trace(new_id("trace"), actor.organization_id, actor.user_id, at, booked, "m", "openai", "{}", answer)


async def test_spending_is_summed_since_a_time_and_each_record_counts_once(books):
    new, old, other = record(), record(at=NOW - timedelta(days=40)), record(BEN)
    await books.add([new, old, other], [])
    await books.add([new], [])

    assert await books.spent(ANN, NOW - timedelta(days=1)) == 5
    assert await books.spent(ANN, NOW - timedelta(days=99)) == 10
    assert await books.spent(Actor("org-c", "u"), NOW) == 0


async def test_the_newest_trace_of_a_step_is_found(books):
    await books.add([], [trace(NOW, "1"), trace(NOW + timedelta(seconds=1), "2"), trace(NOW, "b", BEN)])

    found = await books.trace_of_step(ANN, "step-1")
    assert (found.response_json, found.attribution.agent_id, found.created_at) == (
        "2",
        "agent-1",
        NOW + timedelta(seconds=1),
    )
    assert (await books.trace_of_step(BEN, "step-1")).response_json == "b"
    assert await books.trace_of_step(ANN, "step-2") is None


async def test_old_traces_are_forgotten(books):
    await books.add([], [trace(NOW - timedelta(days=8), "old"), trace(NOW, "new")])

    assert await books.forget_traces(NOW - timedelta(days=7)) == 1
    assert await books.forget_traces(NOW - timedelta(days=7)) == 0
    assert (await books.trace_of_step(ANN, "step-1")).response_json == "new"
