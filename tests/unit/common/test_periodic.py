"""Background work in turns."""

from __future__ import annotations

import asyncio

import pytest

from letta_common.errors import DatabaseUnavailable
from letta_common.process.periodic import Next, Periodic, stop_all

NEVER = 3600.0


class Work:
    """Counts its turns; each gives what the test put in for it."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.turns = 0
        self.done = asyncio.Semaphore(0)

    async def __call__(self) -> object:
        self.turns += 1
        result = self.results.pop(0) if self.results else None
        self.done.release()
        if isinstance(result, Exception):
            raise result
        return result


async def test_a_failure_is_survived_whatever_it_is():
    work = Work(DatabaseUnavailable("away"), ValueError("a bug"), None)
    loop = Periodic("work", work, 0.001)
    loop.start()
    async with asyncio.timeout(10):
        for _ in range(4):
            await work.done.acquire()
    await loop.stop()


async def test_the_first_turn_comes_after_a_pause_or_at_once():
    late, soon = Work(), Work()
    loops = [Periodic("late", late, NEVER), Periodic("soon", soon, NEVER, at_once=True)]
    for loop in loops:
        loop.start()
    async with asyncio.timeout(10):
        await soon.done.acquire()
    assert (late.turns, soon.turns) == (0, 1)

    loops[0].wake()
    async with asyncio.timeout(10):
        await late.done.acquire()
    await stop_all(loops)
    assert (late.turns, soon.turns) == (1, 1)


async def test_only_work_that_says_so_goes_on_at_once():
    work = Work(Next.AT_ONCE, Next.AT_ONCE, True)
    loop = Periodic("work", work, NEVER, at_once=True)
    loop.start()
    async with asyncio.timeout(10):
        for _ in range(3):
            await work.done.acquire()
    for _ in range(10):
        await asyncio.sleep(0)
    assert work.turns == 3
    await loop.stop()


@pytest.mark.parametrize(("end", "completed"), [("stop", False), ("finish", True)])
async def test_the_turn_in_hand_is_given_up_or_waited_for(end: str, completed: bool):
    begun, go_on, ended = asyncio.Event(), asyncio.Event(), []

    async def work() -> None:
        begun.set()
        await go_on.wait()
        ended.append(True)

    loop = Periodic("work", work, NEVER, at_once=True)
    loop.start()
    await begun.wait()
    ending = asyncio.ensure_future(getattr(loop, end)())
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(10):
        await ending
    assert bool(ended) is completed


async def test_it_begins_once_and_may_end_before_it_began():
    work = Work()
    await Periodic("work", work, NEVER).stop()
    await Periodic("work", work, NEVER).finish()
    loop = Periodic("work", work, NEVER, at_once=True)
    loop.start()
    loop.start()
    async with asyncio.timeout(10):
        await work.done.acquire()
    await asyncio.sleep(0)
    await loop.stop()
    assert work.turns == 1
