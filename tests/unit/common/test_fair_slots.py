"""Fair slots: how much at once, and whose turn is next. Orders are checked, never times."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letta_common.codes import Code
from letta_common.errors import RateLimited
from letta_common.fair_slots import FairSlots, Shares


class Crowd:
    """Callers that hold their slot until they are told, in the order in which they got it."""

    def __init__(self, slots: FairSlots) -> None:
        self.slots = slots
        self.order: list[str] = []
        self._holding: list[tuple[str, asyncio.Event]] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def come(self, *names: str, size: int = 0) -> None:
        """Let callers come; the first letter is the tenant."""
        self.tasks += [asyncio.create_task(self._call(name, size)) for name in names]
        await settled()

    async def leave(self, tenant: str = "") -> None:
        """Let the first holder, or the first of a tenant, go."""
        name, event = next(each for each in self._holding if each[0].startswith(tenant))
        self._holding.remove((name, event))
        event.set()
        await settled()

    async def finish(self) -> None:
        while self._holding:
            await self.leave()
        await asyncio.gather(*self.tasks)

    async def _call(self, name: str, size: int) -> None:
        async with self.slots.hold(name[0], size):
            self.order.append(name)
            event = asyncio.Event()
            self._holding.append((name, event))
            await event.wait()


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_tenant_at_its_share_delays_nobody():
    crowd = Crowd(FairSlots(Shares(slots=8, tenant_slots=4, waiting=300), "x"))

    await crowd.come(*"A" * 300)
    assert crowd.order == ["A"] * 4

    await crowd.come("B")
    assert crowd.order[-1] == "B", "300 of another organization wait, and this one does not"
    await crowd.finish()
    assert len(crowd.order) == 301


async def test_tenants_leave_room_for_one_more_whatever_they_do():
    crowd = Crowd(FairSlots(Shares(slots=64, leave_room=True), "x"))

    for tenant in "ABCDE":
        await crowd.come(*tenant * 100)
    counts = [crowd.slots.held_by(tenant) for tenant in "ABCDE"]
    await crowd.come("F")

    assert counts == [32, 16, 8, 4, 2]
    assert crowd.order[-1] == "F"
    await crowd.finish()


async def test_who_waits_comes_by_turns_of_tenants():
    crowd = Crowd(FairSlots(Shares(slots=1), "x"))
    await crowd.come("A0", *(f"A{at}" for at in range(1, 20)), "B1", "B2", "C1")

    await crowd.finish()

    assert crowd.order[:7] == ["A0", "A1", "B1", "C1", "A2", "B2", "A3"]


async def test_sizes_are_shared_too():
    crowd = Crowd(FairSlots(Shares(slots=100, size=16, tenant_size=4), "x"))

    await crowd.come(*"AAAAA", size=2)
    assert crowd.order == ["A", "A"]
    await crowd.come("B", size=4)
    assert crowd.order == ["A", "A", "B"]

    await crowd.leave("A")
    assert crowd.order == ["A", "A", "B", "A"]
    await crowd.finish()


async def test_who_asks_for_more_than_there_is_comes_alone():
    crowd = Crowd(FairSlots(Shares(slots=100, size=16, tenant_size=4), "x"))

    await crowd.come("A1", "A2", size=99)
    assert crowd.order == ["A1"]
    await crowd.leave()
    assert crowd.order == ["A1", "A2"]
    await crowd.finish()


async def test_small_ones_pass_a_large_one_yet_not_for_ever():
    crowd = Crowd(FairSlots(Shares(size=8), "x"))
    await crowd.come("B0", "B1", size=4)
    await crowd.come("A", size=8)
    small = 0
    while "A" not in crowd.order and small < 100:
        await crowd.leave()
        small += 1
        await crowd.come(f"{'CD'[small % 2]}{small}", size=4)

    assert 2 < small < 100, "it came while small ones went on coming"
    await crowd.finish()


async def test_too_many_that_wait_are_refused_with_a_reason():
    crowd = Crowd(FairSlots(Shares(slots=1, waiting=2), "x"))
    await crowd.come(*"AAA")

    with pytest.raises(RateLimited) as caught:
        await crowd.slots.take("A")
    await crowd.come("B")

    assert caught.value.code is Code.RESOURCE_EXHAUSTED
    assert caught.value.metadata["retry_after"] == "5"
    await crowd.finish()
    assert sorted(crowd.order) == ["A", "A", "A", "B"]


async def test_waiting_has_an_end():
    slots = FairSlots(Shares(slots=1, patience=0.01), "x")
    grant = await slots.take("A")
    with pytest.raises(RateLimited):
        await slots.take("B")
    slots.give(grant)

    assert slots.idle


async def test_taking_at_once_never_passes_those_who_wait():
    slots = FairSlots(Shares(slots=2, size=4), "x")
    first = slots.try_take("A", 3)
    waiter = asyncio.create_task(slots.take("B", 2))
    await settled()

    assert first is not None
    assert slots.try_take("C", 1) is None
    slots.give(first)
    slots.give(await waiter)
    assert slots.try_take("C", 1) is not None


async def test_a_turn_that_comes_as_its_caller_leaves_goes_on_to_the_next():
    slots = FairSlots(Shares(slots=1), "x")
    grant = await slots.take("A")
    leaver, follower = asyncio.create_task(slots.take("B")), asyncio.create_task(slots.take("C"))
    await settled()
    slots.give(grant)
    leaver.cancel()  # its turn has come, it has not noticed yet

    slots.give(await follower)
    assert slots.idle


@settings(max_examples=60, deadline=None)
@given(
    st.builds(
        Shares,
        slots=st.integers(1, 5),
        tenant_slots=st.integers(0, 3),
        size=st.integers(0, 9),
        tenant_size=st.integers(0, 9),
        leave_room=st.booleans(),
    ),
    st.lists(st.tuples(st.sampled_from("ABCD"), st.integers(0, 12)), min_size=1, max_size=60),
    st.sets(st.integers(0, 59)),
)
def test_never_more_than_allowed_and_nobody_is_forgotten(shares, calls, leaving):
    async def scenario() -> None:
        slots = FairSlots(shares, "x")
        held: list[tuple[str, int]] = []

        async def call(tenant: str, size: int) -> None:
            grant = await slots.take(tenant, size)
            held.append((tenant, grant.size))
            mine = [each for each in held if each[0] == tenant]
            assert len(held) <= shares.slots
            assert len(mine) <= (shares.tenant_slots or 99)
            assert sum(each[1] for each in held) <= (shares.size or 9999)
            assert sum(each[1] for each in mine) <= (shares.tenant_size or 9999)
            try:
                await asyncio.sleep(0)
            finally:
                held.remove((tenant, grant.size))
                slots.give(grant)

        tasks = [asyncio.create_task(call(*each)) for each in calls]
        await asyncio.sleep(0)
        for at in leaving:
            if at < len(tasks):
                tasks[at].cancel()
                await asyncio.sleep(0)
        async with asyncio.timeout(10):
            done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done)
        assert slots.idle

    asyncio.run(scenario())


async def test_what_is_held_and_waits_is_counted():
    slots = FairSlots(Shares(slots=1), "x")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(slots.hold("A"))
        waiter = asyncio.create_task(slots.take("A"))
        await settled()
        assert (slots.held, slots.waiting) == (1, 1)
    slots.give(await waiter)
    assert (slots.held, slots.waiting) == (0, 0)
