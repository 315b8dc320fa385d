"""Slots: how many at once, and whose turn is next. Orders are checked, never times."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from letta_common.errors import LLMUnavailable, RateLimited
from letta_llm_gateway.domain.resilience import Breaker, Slots


class Crowd:
    """Callers of slots, in the order in which they get them."""

    def __init__(self, slots: Slots, key: str = "openai") -> None:
        self.slots, self.key = slots, key
        self.order: list[str] = []
        self.at_once = self.most_at_once = 0

    async def call(self, tenant: str, name: str = "") -> None:
        async with self.slots.hold(self.key, tenant):
            self.order.append(name or tenant)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            try:
                await asyncio.sleep(0)
            finally:
                self.at_once -= 1


async def run(crowd: Crowd, *tenants: str) -> str:
    await asyncio.gather(*(crowd.call(tenant) for tenant in tenants))
    return "".join(crowd.order)


async def test_a_burst_of_one_tenant_does_not_starve_another():
    order = await run(Crowd(Slots(1, "provider")), *"A" * 20, *"BBB", *"C")

    assert order.index("B") <= 2
    assert order.index("C") <= 3
    assert order[: order.rindex("B")].count("A") <= 4, "B's three calls wait for about as many of A's"
    assert sorted(order) == sorted("A" * 20 + "BBB" + "C")


async def test_control_callers_of_one_tenant_come_in_their_order():
    crowd = Crowd(Slots(1, "provider"))
    names = [str(at) for at in range(30)]

    await asyncio.gather(*(crowd.call("everybody", name) for name in names))

    assert crowd.order == names, "without tenants the last would wait for all"


async def test_who_holds_least_comes_next():
    slots = Slots(3, "provider")
    crowd = Crowd(slots)
    async with AsyncExitStack() as held:
        for _ in range(3):
            await held.enter_async_context(slots.hold("openai", "A"))
        waiting = [asyncio.create_task(crowd.call(tenant)) for tenant in "AAABAB"]
        await asyncio.sleep(0)
    await asyncio.gather(*waiting)

    assert "".join(crowd.order[:2]) in {"BB", "BA", "AB"}
    assert crowd.order.index("B") <= 1


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.lists(st.sampled_from("ABCD"), min_size=1, max_size=60), st.sets(st.integers(0, 59)))
def test_never_more_than_allowed_and_nobody_is_forgotten(most, tenants, leaving):
    async def scenario() -> None:
        crowd = Crowd(Slots(most, "provider"))
        tasks = [asyncio.create_task(crowd.call(tenant)) for tenant in tenants]
        await asyncio.sleep(0)
        for at in leaving:
            if at < len(tasks):
                tasks[at].cancel()
                await asyncio.sleep(0)
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert crowd.most_at_once <= most
        assert all(result is None or isinstance(result, asyncio.CancelledError) for result in done)
        again = Crowd(crowd.slots)
        await run(again, *"ABCD" * most)
        assert len(again.order) == 4 * most, "every slot came back"
        assert not crowd.slots._pools

    asyncio.run(scenario())


async def test_a_turn_that_comes_as_its_caller_leaves_goes_on_to_the_next():
    slots = Slots(1, "provider")
    async with slots.hold("openai", "A"):
        leaver = asyncio.create_task(Crowd(slots).call("B"))
        crowd = Crowd(slots)
        follower = asyncio.create_task(crowd.call("C"))
        await asyncio.sleep(0)
    leaver.cancel()  # its turn has come, it has not noticed yet
    await asyncio.wait_for(follower, 5)

    assert crowd.order == ["C"]


async def test_waiting_has_an_end_and_says_when_to_come_back():
    slots = Slots(1, "provider", patience=0.01)
    async with slots.hold("openai", "A"):
        with pytest.raises(RateLimited) as caught:
            await Crowd(slots).call("B")
    assert caught.value.metadata["retry_after"] == "5"
    await Crowd(slots).call("B")


async def test_single_keys_have_limits_of_their_own():
    slots = Slots(0, "provider", special={"ollama": 1})

    free, narrow = Crowd(slots), Crowd(slots, "ollama")
    await asyncio.gather(run(free, *"ABCDEF"), run(narrow, *"ABCDEF"))
    assert (free.most_at_once, narrow.most_at_once) == (6, 1)


def test_our_own_refusals_say_nothing_of_the_vendor():
    breaker = Breaker("v", lambda: 0.0, most=2)
    breaker.note(LLMUnavailable("x"))
    breaker.note(RateLimited("no slot"))
    breaker.note(LLMUnavailable("x"))

    with pytest.raises(LLMUnavailable):
        breaker.check()
