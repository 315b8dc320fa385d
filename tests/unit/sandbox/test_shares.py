"""Calls of several organizations at once: nobody waits for another's calls, nobody takes more memory than its share."""

import asyncio
import os
from dataclasses import replace

import pytest

from letta_common.errors import RateLimited
from letta_common.fair_slots import Shares
from letta_sandbox.cage.limits import private_bytes
from letta_sandbox.calls import CallEnding, Env, Language, Limits, Result, SandboxCall, Signature
from letta_sandbox.local import hosts
from letta_sandbox.local.memory_watch import MemoryShares
from letta_sandbox.local.provider import LocalProvider
from tests.unit.sandbox.test_lifecycles import descendants

MIB = 1 << 20
SLEEP = "import time\ndef f():\n    time.sleep(600)"
TRIVIAL = "def f():\n    return 1"
GREEDY = """
import time
def f(first, seconds, more):
    held = [b"x" * (first << 20)]
    time.sleep(seconds)
    held.append(b"x" * (more << 20))
    return sum(map(len, held)) >> 20
"""


@pytest.fixture
async def made(provider):
    """Make providers like the one of the tier, with other shares."""
    providers = []

    def made(**changes) -> LocalProvider:
        providers.append(LocalProvider(replace(provider._options, **changes)))
        return providers[-1]

    yield made
    for each in providers:
        await each.close()


async def called(provider: LocalProvider, organization: str, source: str = TRIVIAL, **fields) -> Result:
    return await provider.run(SandboxCall(source, "f", **fields), Env(organization_id=organization))


async def until(true) -> None:
    while not true():  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def ended(*tasks: asyncio.Task) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_sleeping_tools_of_one_organization_delay_no_other(made):
    provider = made(shares=Shares(slots=8, tenant_slots=4, waiting=300, leave_room=True))
    limits = Limits(timeout_seconds=120)
    sleepers = [asyncio.create_task(called(provider, "org-a", SLEEP, limits=limits)) for _ in range(300)]
    await until(lambda: (provider._slots.held, provider._slots.waiting) == (4, 296))
    results = [await called(provider, organization) for organization in ("org-b", "org-c", "org-b")]
    asleep = [task.done() for task in sleepers].count(False)
    held, waiting = provider._slots.held_by("org-a"), provider._slots.waiting
    await ended(*sleepers)

    assert [result.status for result in results] == [CallEnding.SUCCESS] * 3
    assert (asleep, held, waiting) == (300, 4, 296), "all of them sleep or wait, and three calls of others have ended"


async def test_several_organizations_that_fill_all_leave_room_for_one_more(made):
    provider = made(shares=Shares(slots=32, waiting=100, leave_room=True))
    limits = Limits(timeout_seconds=120)
    sleepers = [
        asyncio.create_task(called(provider, f"org-{at % 3}", SLEEP, limits=limits))
        for at in range(3)
        for _ in range(40)
    ]
    await until(lambda: provider._slots.waiting >= 60)
    result = await called(provider, "org-new")
    done = [task.done() for task in sleepers].count(True)
    await ended(*sleepers)

    assert (result.status, done) == (CallEnding.SUCCESS, 0)


async def test_calls_beyond_those_that_may_wait_are_refused(made):
    provider = made(shares=Shares(slots=8, tenant_slots=1, waiting=2))
    calls = [asyncio.create_task(called(provider, "org-a", SLEEP)) for _ in range(3)]
    await until(lambda: provider._slots.waiting >= 2)
    with pytest.raises(RateLimited):
        await called(provider, "org-a")
    other = await called(provider, "org-b")
    await ended(*calls)

    assert other.status is CallEnding.SUCCESS


def taken() -> int:
    return sum(map(private_bytes, descendants(os.getpid())))


async def test_calls_of_one_organization_stay_within_its_memory_and_all_succeed(made):
    provider = made(memory=MemoryShares(0, 300 * MIB))
    await called(provider, "org-a")
    before, most = taken(), 0
    arguments = '{"first": 60, "seconds": 3, "more": 120}'
    limits = Limits(timeout_seconds=100, memory_bytes=200 * MIB, scratch_bytes=MIB)
    greedy = [
        asyncio.create_task(called(provider, "org-a", GREEDY, arguments=arguments, limits=limits)) for _ in range(5)
    ]
    other = None
    while not all(task.done() for task in greedy):
        most = max(most, taken() - before)
        if most > 290 * MIB and other is None:
            other = await called(provider, "org-b")
            assert not any(task.done() for task in greedy), "one that takes little waits for none of them"
        await asyncio.sleep(0.02)

    results = [await task for task in greedy]
    assert [(result.status, result.result) for result in results] == [(CallEnding.SUCCESS, "180")] * 5
    assert other is not None
    assert other.status is CallEnding.SUCCESS
    assert most < (300 + 200 + 100) * MIB, "without a share it is 900 MiB"


async def test_calls_of_all_organizations_stay_within_what_they_share(made):
    provider = made(memory=MemoryShares(300 * MIB, 0))
    await called(provider, "org-a")
    before, most = taken(), 0
    arguments = '{"first": 60, "seconds": 3, "more": 120}'
    limits = Limits(timeout_seconds=100, memory_bytes=200 * MIB, scratch_bytes=MIB)
    greedy = [
        asyncio.create_task(called(provider, f"org-{at % 2}", GREEDY, arguments=arguments, limits=limits))
        for at in range(6)
    ]
    while not all(task.done() for task in greedy):
        most = max(most, taken() - before)
        await asyncio.sleep(0.02)

    assert {(await task).status for task in greedy} == {CallEnding.SUCCESS}
    assert most < (360 + 2 * 200 + 50) * MIB, "without a share it is 1080 MiB"


async def test_scripts_stay_within_the_memory_of_their_organization(made):
    provider = made(memory=MemoryShares(0, 300 * MIB))
    source = """
export async function f(first, seconds, more) {
  const held = [Buffer.alloc(first << 20, 1)];
  await new Promise(done => setTimeout(done, seconds * 1000));
  held.push(Buffer.alloc(more << 20, 1));
  return held.reduce((sum, each) => sum + each.length, 0) >> 20;
}
"""
    signature = Signature(("first", "seconds", "more"), ("first", "seconds", "more"))
    fields = {"language": Language.JAVASCRIPT, "signature": signature}
    limits = Limits(timeout_seconds=100, memory_bytes=250 * MIB, scratch_bytes=MIB)
    warm = await called(provider, "org-a", source, arguments='{"first": 1, "seconds": 0, "more": 1}', **fields)
    if warm.status is CallEnding.REFUSED:
        pytest.skip(str(warm.failure))
    before, most = taken(), 0
    arguments = '{"first": 70, "seconds": 3, "more": 90}'
    greedy = [
        asyncio.create_task(called(provider, "org-a", source, arguments=arguments, limits=limits, **fields))
        for _ in range(5)
    ]
    while not all(task.done() for task in greedy):
        most = max(most, taken() - before)
        await asyncio.sleep(0.02)

    assert [((await task).status, (await task).result) for task in greedy] == [(CallEnding.SUCCESS, "160")] * 5
    assert most < 700 * MIB, "without a share it is more than 800 MiB"


def test_a_machine_has_memory():
    assert 64 * MIB < hosts.memory_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
