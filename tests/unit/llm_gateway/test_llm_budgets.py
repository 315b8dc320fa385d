"""Budgets: what counts, what refuses, and that callers at once and replicas stay within the stated overshoot."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from structlog.testing import capture_logs

from letta.llm.v1.usage_pb2 import ModelCall
from letta_common.actor import Actor
from letta_common.errors import BudgetExceeded, DatabaseUnavailable, InvalidArgument, PermissionDenied
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_llm_gateway.domain.accounting.budgets import Action, BudgetOptions, Budgets, BudgetScope, Period, new_budget
from letta_llm_gateway.domain.accounting.usage import BookedCall, UsageWriter
from tests.fakes.llm_gateway.stores import FakeBudgetStore, FakeUsageStore

SCOPES = frozenset({"read", "write", "keys"})
ANN, BEN, CAT = Actor("org-a", "user-a", SCOPES), Actor("org-b", "user-b", SCOPES), Actor("org-a", "user-c", SCOPES)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic_ns(self) -> int:
        return round(self.time.timestamp() * 1e9)


class Books(FakeUsageStore):
    """Books that can be away, and count how often they are read."""

    away = False


class Kept(FakeBudgetStore):
    """Budgets that count how often they are read."""

    reads = 0
    away = False

    async def spent(self, organization_ids, today):
        self.reads += 1
        if self.away:
            raise DatabaseUnavailable("away")
        await asyncio.sleep(0)
        return await super().spent(organization_ids, today)


class Replica:
    """One process: it admits, books and reads."""

    def __init__(self, books: Books, kept: Kept, clock: Clock, ceiling: int = 0) -> None:
        self.writer = UsageWriter(books)
        self.budgets = Budgets(kept, clock, self.writer.flush, BudgetOptions(ceiling))
        self.clock = clock

    async def call(self, cost: int | None, actor: Actor = ANN, agent: str = "agent-1", *, expected: int = 0) -> None:
        """Make a call that costs so much and was expected to cost so much."""
        hold = await self.budgets.admit(actor, agent, lambda: expected)
        await asyncio.sleep(0)
        self.budgets.settle(hold, cost)
        self.writer.put(self.record(cost, actor, agent))

    def record(self, cost: int | None, actor: Actor, agent: str) -> BookedCall:
        call = ModelCall(
            id=new_id("usage"),
            created_at=stamp_of(self.clock.now()),
            user_id=actor.user_id,
            agent_id=agent,
            cost_microdollars=cost,
            outcome="ok",
        )
        return BookedCall(actor.organization_id, call)

    async def limit(self, microdollars: int, actor: Actor = ANN, **rest) -> str:
        wanted = (
            rest.get("scope", BudgetScope.ORGANIZATION),
            rest.get("subject", ""),
            rest.get("period", Period.MONTH),
            microdollars,
            rest.get("action", Action.REFUSE),
        )
        return (await self.budgets.put(actor, new_budget(actor, self.clock, wanted))).budget.id

    async def refused(self, actor: Actor = ANN, agent: str = "agent-1") -> BudgetExceeded | None:
        try:
            await self.call(0, actor, agent)
        except BudgetExceeded as error:
            return error
        return None


@pytest.fixture
def books():
    return Books()


@pytest.fixture
def kept(books):
    return Kept(books)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def replica(books, kept, clock):
    return Replica(books, kept, clock)


async def test_without_budgets_everything_passes_and_the_books_are_read_once(replica, kept):
    for _ in range(50):
        await replica.call(10**9)

    assert kept.reads == 1


async def test_a_used_up_budget_refuses_and_names_itself(replica):
    budget_id = await replica.limit(100)
    await replica.call(99)
    await replica.call(1)

    error = await replica.refused()
    assert error is not None
    assert error.metadata == {
        "budget_id": budget_id,
        "scope": "ORGANIZATION",
        "subject_id": "",
        "period": "MONTH",
        "spent_microdollars": "100",
        "limit_microdollars": "100",
    }
    assert budget_id in error.message
    assert await replica.refused(BEN) is None


async def test_nothing_is_read_for_a_call(replica, kept):
    await replica.limit(10**9)
    before = kept.reads
    for _ in range(100):
        await replica.call(5)

    assert kept.reads == before


@pytest.mark.parametrize(
    ("scope", "subject", "hit", "missed"),
    [
        (BudgetScope.USER, "user-a", (ANN, "agent-1"), (CAT, "agent-1")),
        (BudgetScope.AGENT, "agent-1", (CAT, "agent-1"), (ANN, "agent-2")),
    ],
)
async def test_a_budget_of_one_leaves_the_others_alone(replica, scope, subject, hit, missed):
    await replica.limit(10, scope=scope, subject=subject)
    await replica.call(10, *hit)
    await replica.call(1000, *missed)

    assert await replica.refused(*hit) is not None
    assert await replica.refused(*missed) is None


async def test_a_budget_that_warns_lets_pass(replica):
    await replica.limit(10, action=Action.WARN)
    with capture_logs() as lines:
        for _ in range(5):
            await replica.call(10)

    warnings = [line for line in lines if "only warns" in line["event"]]
    assert len(warnings) == 1, "it says so once"


async def test_the_strictest_budget_decides(replica):
    await replica.limit(1000, period=Period.FOREVER)
    small = await replica.limit(10, period=Period.DAY)
    await replica.call(10)

    error = await replica.refused()
    assert error is not None
    assert error.metadata["budget_id"] == small


@pytest.mark.parametrize(
    ("period", "days", "whole"), [(Period.DAY, 1, True), (Period.MONTH, 1, False), (Period.MONTH, 9, True),
                                  (Period.FOREVER, 400, False)],
)  # fmt: skip
async def test_a_budget_is_whole_again_in_its_next_period(replica, clock, period, days, whole):
    await replica.limit(10, period=period)
    await replica.call(10)
    clock.time += timedelta(days=days)

    assert (await replica.refused() is None) is whole


async def test_costs_that_nobody_knows_count_as_nothing(replica):
    await replica.limit(1)
    for _ in range(10):
        await replica.call(None)

    assert await replica.refused() is None


async def test_callers_at_once_are_stopped_by_what_is_expected_of_them(replica, books):
    await replica.limit(100)
    done = await asyncio.gather(*(replica.call(10, expected=10) for _ in range(200)), return_exceptions=True)

    assert sum(result is None for result in done) == 10
    assert all(isinstance(result, BudgetExceeded) for result in done if result is not None)
    await replica.writer.flush()
    assert sum(record.call.cost_microdollars for record in books.records.values()) == 100


async def test_callers_at_once_exceed_it_by_no_more_than_was_not_expected(replica, books):
    await replica.limit(100)
    await asyncio.gather(*(replica.call(13, expected=10) for _ in range(200)), return_exceptions=True)

    await replica.writer.flush()
    spent = sum(record.call.cost_microdollars for record in books.records.values())
    assert 100 <= spent <= 100 + 10 * 3 + 13


async def test_what_was_held_for_a_call_that_failed_is_given_back(replica):
    await replica.limit(100)
    hold = await replica.budgets.admit(ANN, "agent-1", lambda: 100)
    assert await replica.refused() is not None
    replica.budgets.settle(hold, 0)

    assert await replica.refused() is None


async def test_a_reading_in_between_counts_nothing_twice_and_forgets_nothing(replica):
    await replica.limit(100)
    hold = await replica.budgets.admit(ANN, "agent-1", lambda: 30)
    await replica.call(40)
    await replica.budgets.refresh()  # 40 are in the books now, 30 in flight
    await replica.call(20, expected=20)

    assert await replica.refused() is None, "90 of 100"
    replica.budgets.settle(hold, 40)
    replica.writer.put(replica.record(40, ANN, "agent-1"))
    for _ in range(2):
        error = await replica.refused()
        assert error is not None
        assert error.metadata["spent_microdollars"] == "100"
        await replica.budgets.refresh()


async def test_a_reading_while_calls_are_booked_loses_none(replica):
    await replica.limit(10_000)
    calls = [replica.call(1, expected=1) for _ in range(300)]
    readings = [replica.budgets.refresh() for _ in range(20)]
    await asyncio.gather(*calls[:100], *readings[:10], *calls[100:200], *readings[10:], *calls[200:])
    await replica.budgets.refresh()

    [standing] = await replica.budgets.page(ANN, Page())
    assert standing.spent_microdollars == 300
    [line] = replica.budgets._ledgers["org-a"].lines
    assert line.spent == 300


async def test_two_replicas_share_a_budget_within_the_stated_overshoot(books, kept, clock):
    one, two = Replica(books, kept, clock), Replica(books, kept, clock)
    await one.limit(1000)
    between = 7  # calls of each replica between two readings
    for _ in range(100):
        for replica in (one, two):
            await asyncio.gather(*(replica.call(10, expected=10) for _ in range(between)), return_exceptions=True)
        await one.budgets.refresh()
        await two.budgets.refresh()

    for replica in (one, two):
        assert await replica.refused() is not None
        await replica.writer.flush()
    spent = sum(record.call.cost_microdollars for record in books.records.values())
    assert 1000 <= spent <= 1000 + between * 10, "what the other spends between two readings"


async def test_a_budget_set_at_one_replica_binds_the_other_after_its_reading(books, kept, clock):
    one, two = Replica(books, kept, clock), Replica(books, kept, clock)
    await two.call(500)
    await two.writer.flush()
    await one.limit(100)

    assert await one.refused() is not None
    assert await two.refused() is None
    await two.budgets.refresh()
    assert await two.refused() is not None


async def test_the_ceiling_of_the_deployment_holds_for_every_organization(books, kept, clock):
    replica = Replica(books, kept, clock, ceiling=50)
    await replica.limit(10**9)
    await replica.call(50)

    error = await replica.refused()
    assert error is not None
    assert error.metadata["budget_id"] == "LETTA_BUDGET_DOLLARS"
    assert await replica.refused(BEN) is None


async def test_a_database_that_is_away_leaves_budgets_as_they_were_known(replica, kept, clock):
    await replica.limit(100)
    kept.away = True
    await replica.call(60)
    with pytest.raises(DatabaseUnavailable):
        await replica.budgets.refresh()
    clock.time += timedelta(days=1)

    await replica.call(40)
    assert await replica.refused() is not None, "what was counted here still counts"
    with pytest.raises(DatabaseUnavailable):
        await replica.call(1, BEN)


async def test_organizations_that_fell_silent_are_forgotten_and_read_again(replica, kept, clock):
    await replica.limit(10)
    await replica.call(10)
    await replica.budgets.refresh()
    clock.time += timedelta(minutes=11)
    await replica.budgets.refresh()
    reads = kept.reads
    await replica.budgets.refresh()
    assert kept.reads == reads, "nobody to read for"

    assert await replica.refused() is not None
    assert kept.reads == reads + 1


async def test_only_who_manages_the_organization_changes_budgets(replica):
    usual = Actor("org-a", "user-a", frozenset({"read", "write"}))
    with pytest.raises(PermissionDenied):
        await replica.limit(1, usual)
    budget_id = await replica.limit(1)
    with pytest.raises(PermissionDenied):
        await replica.budgets.delete(usual, budget_id)
    await replica.limit(1, Actor("org-a", "user-a", frozenset({"admin"})))


async def test_a_deleted_budget_refuses_no_more(replica):
    budget_id = await replica.limit(1)
    await replica.call(1)
    assert await replica.refused() is not None

    await replica.budgets.delete(ANN, budget_id)
    assert await replica.refused() is None


@pytest.mark.parametrize(
    ("scope", "subject"), [(BudgetScope.USER, ""), (BudgetScope.AGENT, ""), (BudgetScope.ORGANIZATION, "user-a")]
)
async def test_a_budget_must_say_whose_it_is(replica, scope, subject):
    with pytest.raises(InvalidArgument):
        await replica.limit(1, scope=scope, subject=subject)
