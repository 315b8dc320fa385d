"""Whatever callers, deaths and take-overs do, in whatever order: each acknowledged message once, in order."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tests.fakes.agent.exchange import fresh
from tests.fakes.agent.world import AGENT

REPLICA = st.integers(0, 3)


class ExchangeMachine(RuleBasedStateMachine):
    """An exchange over twins; after each thing done, the replicas work on for some turns of their loop."""

    def __init__(self):
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.exchange = self.loop.run_until_complete(fresh())

    def do(self, work, turns=0):
        async def done():
            await work
            for _ in range(turns):
                await asyncio.sleep(0)

        self.loop.run_until_complete(done())

    @rule(index=REPLICA, enqueue=st.booleans(), times=st.integers(1, 4), turns=st.integers(0, 20))
    def send(self, index, enqueue, times, turns):
        self.do(self.exchange.send(index, enqueue=enqueue, times=times), turns)

    @precondition(lambda self: self.exchange.keys)
    @rule(index=REPLICA, pick=st.integers(0, 50), turns=st.integers(0, 20))
    def repeat(self, index, pick, turns):
        self.do(self.exchange.repeat(index, pick), turns)

    @rule(index=st.integers(0, 5), turns=st.integers(0, 60))
    def let(self, index, turns):
        self.exchange.let(index)
        self.do(asyncio.sleep(0), turns)

    @rule(index=REPLICA, turns=st.integers(0, 60))
    def dispatch(self, index, turns):
        self.do(self.exchange.dispatch(index), turns)

    @precondition(lambda self: self.exchange.acknowledged)
    @rule(index=REPLICA, pick=st.integers(0, 50))
    def cancel(self, index, pick):
        self.do(self.exchange.cancel(index, pick))

    @rule(index=REPLICA)
    def crash(self, index):
        self.do(self.exchange.crash(index))

    @rule(index=REPLICA)
    def pause(self, index):
        self.do(self.exchange.pause(index))

    @precondition(lambda self: len(self.exchange.replicas) < 3)
    @rule()
    def start(self):
        self.exchange.start()

    @rule(index=REPLICA, turns=st.integers(0, 60))
    def compact(self, index, turns):
        self.do(self.exchange.compact(index), turns)

    @invariant()
    def nothing_comes_twice(self):
        self.do(self.exchange.check())

    def teardown(self):
        try:
            self.do(self.exchange.settle())
            self.do(self.exchange.check_end())
        finally:
            self.do(self.exchange.close())
            self.loop.close()


TestExchange = ExchangeMachine.TestCase
TestExchange.settings = settings(max_examples=30, stateful_step_count=40, deadline=None, derandomize=True)


async def turns(number=80):
    for _ in range(number):
        await asyncio.sleep(0)


async def died_and_taken_over(exchange):
    """A message is admitted, its replica dies while the model thinks, and another one takes over."""
    await exchange.send(0)
    await turns()
    await exchange.crash(0)
    await exchange.dispatch(0)
    await turns()
    await exchange.settle()


async def two_at_once(exchange):
    await exchange.send(0, times=2)
    await turns()
    await exchange.settle()


async def test_a_story_without_fault_holds():
    for story in (died_and_taken_over, two_at_once):
        exchange = await fresh()
        await story(exchange)
        await exchange.check_end()
        assert len(exchange.acknowledged) == 1


async def test_the_checker_sees_a_memory_that_appends_the_input_twice():
    exchange = await fresh()
    exchange._seed.memory.thread(AGENT).begun = Forgetful()
    await died_and_taken_over(exchange)
    with pytest.raises(AssertionError, match="came twice"):
        await exchange.check_end()


async def test_the_checker_sees_a_memory_that_loses_the_input():
    exchange = await fresh()
    exchange._seed.memory._append = lambda held, messages: None
    await died_and_taken_over(exchange)
    with pytest.raises(AssertionError, match="lost"):
        await exchange.check_end()


async def test_the_checker_sees_a_memory_that_forgets_what_it_committed():
    exchange = await fresh()
    exchange._seed.memory.thread(AGENT).steps = Forgetful()
    exchange._seed.memory._fenced = lambda thread: exchange._seed.memory.thread(thread.conversation_id)
    await exchange.send(0)
    await turns()
    await exchange.pause(0)
    await exchange.dispatch(0)
    await turns()
    await exchange.settle()
    with pytest.raises(AssertionError, match="answered twice"):
        await exchange.check_end()


async def test_the_checker_sees_a_queue_that_lets_everybody_in():
    exchange = await fresh()
    exchange._seed.store._busy = lambda *_: None
    with pytest.raises(AssertionError, match="do not end"):
        await two_at_once(exchange)


class Forgetful(dict):
    """A set and a dictionary that keep nothing."""

    def add(self, _):
        return

    def __setitem__(self, *_):
        return
