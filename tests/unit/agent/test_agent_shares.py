"""Runs of organizations share a replica: slots for each, a bounded queue, turns. Orders and counts are checked."""

from __future__ import annotations

import asyncio

import pytest

from letta.agent.v1 import run_pb2
from letta.common.v1 import message_pb2
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runs import SendCommand
from letta_common.actor import Actor
from letta_common.errors import Overloaded, RateLimited
from tests.fakes.agent.agents import FakeAgents
from tests.fakes.agent.peers import ScriptedModels, answer, call, say
from tests.fakes.agent.world import SIGNED, World

ANN = Actor("org-a", "user-a", frozenset({"write"}))
BEN = Actor("org-b", "user-b", frozenset({"write"}))


class Gate(ScriptedModels):
    """A model that answers when it is let, and notes who asked in which order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.open = asyncio.Semaphore(0)

    async def generate(self, prompt, messages):
        self.asked.append(prompt.attribution.agent_id)
        await self.open.acquire()
        return answer(say("done"))

    async def until(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.asked) < count:  # noqa: ASYNC110
                await asyncio.sleep(0.005)


class Asking(Gate):
    """A model that asks the client of one agent to open a door."""

    async def generate(self, prompt, messages):
        asks = prompt.attribution.agent_id == "a5"
        return answer(call("open_door")) if asks else await super().generate(prompt, messages)


async def make(world: World, actor: Actor, *names: str) -> None:
    for name in names:
        state = world.state_of()
        state.id = name
        await FakeAgents(world.store.state).create(actor, StoredAgent(name, state, (), b""))
        first = Message(id=f"message-{name}", role=message_pb2.MESSAGE_ROLE_SYSTEM, parts=[say("compiled")])
        await world.memory.provision(name, name, [], [], [first])


async def send(world: World, actor: Actor, name: str):
    return await world.runs.send(actor, SendCommand(name, name, run_pb2.RunRequest(input_text="hi")), SIGNED)


async def counted(world: World, count: int) -> None:
    async with asyncio.timeout(5):
        while world.runner.count < count:  # noqa: ASYNC110
            await asyncio.sleep(0.005)


@pytest.fixture
async def world():
    made = World(models=Gate(), slots=3, slots_of_one=2, waiting_of_one=2)
    await make(made, ANN, "a1", "a2", "a3", "a4", "a5")
    await make(made, BEN, "b1", "b2")
    yield made
    for _ in range(100):
        made.models.open.release()
    await made.runner.close(1)


async def test_one_organizations_runs_leave_slots_to_others(world):
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in range(1, 5)]
    await world.models.until(2)
    assert world.models.asked == ["a1", "a2"], "the others wait for a slot"

    runs.append(asyncio.create_task(send(world, BEN, "b1")))
    await world.models.until(3)
    assert world.models.asked == ["a1", "a2", "b1"]
    for _ in range(10):
        world.models.open.release()
    assert len(await asyncio.gather(*runs)) == 5


async def test_who_has_fewest_runs_comes_next():
    world = World(models=Gate(), slots=2, slots_of_one=2)
    await make(world, ANN, "a1", "a2", "a3", "a4")
    await make(world, BEN, "b1")
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in range(1, 5)]
    await world.models.until(2)
    await counted(world, 4)
    runs.append(asyncio.create_task(send(world, BEN, "b1")))
    await counted(world, 5)
    world.models.open.release()
    await world.models.until(3)

    assert world.models.asked[2] == "b1", "though a3 and a4 have waited longer"
    for _ in range(10):
        world.models.open.release()
    await asyncio.gather(*runs)


async def test_more_than_may_wait_is_refused_and_says_when_to_come_back(world):
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in range(1, 5)]
    await world.models.until(2)
    await counted(world, 4)

    with pytest.raises(RateLimited) as caught:
        await send(world, ANN, "a5")
    assert caught.value.metadata["retry_after"]
    other = asyncio.create_task(send(world, BEN, "b1"))
    await world.models.until(3)
    for _ in range(10):
        world.models.open.release()
    assert len(await asyncio.gather(*runs, other)) == 5
    assert (await send(world, ANN, "a5")).run_id, "its places are free again"


async def test_a_run_that_waits_for_its_slot_can_be_cancelled(world):
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in range(1, 4)]
    await world.models.until(2)
    await counted(world, 3)
    [waiting] = [run_id for run_id, active in world.runner._active.items() if active.job.held.agent_id == "a3"]
    assert world.runner.cancel(waiting)
    await runs[2]
    assert world.models.asked == ["a1", "a2"]
    for _ in range(10):
        world.models.open.release()
    await asyncio.gather(*runs)


async def test_a_replica_that_stops_takes_no_run(world):
    await world.runner.close(0)

    with pytest.raises(Overloaded):
        await send(world, BEN, "b1")


async def test_a_slot_that_becomes_free_is_looked_for_work_at_once(world):
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in (1, 2)]
    await world.models.until(2)
    await world.runner.dispatch()
    assert not world.runner._queue_looks._wake.is_set()

    world.models.open.release()
    await asyncio.wait(runs, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.wait_for(world.runner._queue_looks._wake.wait(), 5)

    world.models.open.release()
    await asyncio.gather(*runs)
    assert not world.runner._counts, "nothing is kept of organizations without runs"


async def test_a_run_that_waits_for_approval_is_ended_though_no_slot_is_free():
    world = World(models=Asking(), slots=2, slots_of_one=2)
    await make(world, ANN, "a1", "a2", "a5")
    asking = run_pb2.RunRequest(input_text="hi", client_tools=[run_pb2.ClientTool(name="open_door")])
    asked = await world.runs.send(ANN, SendCommand("a5", "a5", asking), SIGNED)
    runs = [asyncio.create_task(send(world, ANN, f"a{at}")) for at in (1, 2)]
    await world.models.until(2)
    assert world.runner.full

    record = await world.runs.cancel(ANN, asked.run_id)

    assert record.status == run_pb2.RUN_STATUS_CANCELLED
    for _ in range(10):
        world.models.open.release()
    await asyncio.gather(*runs)
