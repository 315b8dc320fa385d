"""Forgetting against a run that is admitted meanwhile: either before it or after it, never in the middle."""

import asyncio

import pytest

from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.records import ALL_PARTS as ALL
from letta_agent.domain.agents.records import AgentPeers
from letta_common.errors import ConversationBusy, ServiceUnavailable
from tests.fakes.agent.agents import FakeAgents
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, ANN, SIGNED, World, send_of


async def talked(*script, **options):
    """Make an agent that has exchanged two messages, and what forgets them."""
    world = await World(answer(say("Hello.")), *script, tools=options.pop("tools", ())).agent(**options)
    await world.send("hi")
    return world, agents_of(world)


def agents_of(world):
    peers = AgentPeers(world.memory, world.models, world.tools)
    return Agents(FakeAgents(world.store.state), peers, None, world.clock)


def before_reset(world, do):
    """Do something after the fence was raised and before memory forgets."""
    reset = world.memory.reset

    async def meanwhile(request):
        world.memory.reset = reset
        await do()
        await reset(request)

    world.memory.reset = meanwhile


async def test_messages_are_forgotten():
    world, agents = await talked(answer(say("Again.")))
    state = await agents.reset(ANN, AGENT)
    assert len(state.message_ids) == 1
    assert world.texts() == []
    await world.send("fresh")
    assert world.texts() == [("user", "fresh"), ("assistant", "Again.")]


async def test_a_run_that_began_meanwhile_keeps_its_messages():
    world, agents = await talked(asyncio.Event(), answer(say("Later.")))
    gate = world.models.script[0]
    admitted = []

    async def begin():
        count = len(world.models.prompts)
        admitted.append(await world.runs.admit(ANN, send_of("meanwhile"), SIGNED))
        while len(world.models.prompts) == count:  # noqa: ASYNC110
            await asyncio.sleep(0)

    before_reset(world, begin)
    with pytest.raises(ConversationBusy) as refused:
        await agents.reset(ANN, AGENT)
    assert refused.value.metadata["run_id"] == admitted[0].run_id
    gate.set()
    await world.runs.answer(ANN, admitted[0])
    assert [text for _, text in world.texts()] == ["hi", "Hello.", "meanwhile", "Later."]


async def test_a_run_that_ended_meanwhile_is_forgotten_as_a_whole():
    world, agents = await talked(answer(say("Quick.")))
    before_reset(world, lambda: world.send("meanwhile"))
    await agents.reset(ANN, AGENT)
    assert world.texts() == []


async def test_a_run_that_was_admitted_but_not_begun_comes_after():
    world, agents = await talked(answer(say("Later.")))
    hold, begin = asyncio.Event(), world.memory.begin_step

    async def slowly(organization_id, request):
        await hold.wait()
        return await begin(organization_id, request)

    world.memory.begin_step = slowly
    admitted = []

    async def admit():
        admitted.append(await world.runs.admit(ANN, send_of("meanwhile"), SIGNED))

    before_reset(world, admit)
    await agents.reset(ANN, AGENT)
    hold.set()
    await world.runs.answer(ANN, admitted[0])
    assert world.texts() == [("user", "meanwhile"), ("assistant", "Later.")]


async def test_nothing_is_forgotten_under_a_run():
    world, agents = await talked(asyncio.Event(), answer(say("Later.")))
    gate = world.models.script[0]
    admitted = await world.runs.admit(ANN, send_of("hold"), SIGNED)
    while len(world.models.prompts) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    with pytest.raises(ConversationBusy):
        await agents.reset(ANN, AGENT)
    gate.set()
    await world.runs.answer(ANN, admitted)
    assert len(world.texts()) == 4


async def test_a_restored_database_does_not_keep_messages_from_being_forgotten():
    world, agents = await talked(answer(say("Again.")))
    world.memory.thread(AGENT).fence = 41
    await agents.reset(ANN, AGENT)
    assert (world.texts(), world.memory.thread(AGENT).fence) == ([], 42)
    await world.send("fresh")


async def test_what_waits_for_approval_stays_until_memory_has_forgotten():
    world, agents = await talked(answer(call("pay")), answer(say("ok")), tools=[tool("pay")], approve=["pay"])
    await world.send("pay")
    world.memory.fail["reset"] = [ServiceUnavailable("away")]
    with pytest.raises(ServiceUnavailable):
        await agents.reset(ANN, AGENT)
    assert (await agents.get(ANN, AGENT, ALL)).HasField("pending_approval")

    await agents.reset(ANN, AGENT)
    assert not (await agents.get(ANN, AGENT, ALL)).HasField("pending_approval")
    await world.send("fresh")
    assert world.texts() == [("user", "fresh"), ("assistant", "ok")]
