"""Conversations that a crash left half made or half removed are finished, over the tables and over their twins."""

from datetime import timedelta

import pytest

from letta.agent.v1 import agent_pb2
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.conversations import Conversation, Conversations, StoredConversation
from letta_agent.domain.agents.records import AgentPeers, Stage, StoredAgent
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import ConversationNotFound
from letta_common.values.ids import new_id
from tests.fakes.agent.peers import ScriptedModels, TwinCredentials, TwinMemory, TwinTools

CLOCK = SystemClock()


class Half:
    """An agent, and conversations of it that were begun but not finished."""

    def __init__(self, rooms):
        self.actor = Actor(new_id("org"), "user-ann", frozenset({"write"}))
        self.memory, self.store, self.agents = TwinMemory(), rooms.conversations, rooms.agents
        agents = Agents(self.agents, AgentPeers(self.memory, ScriptedModels(), TwinTools()), None, CLOCK)
        self.conversations = Conversations(self.store, self.memory, agents, ScriptedModels(), CLOCK)
        self.credentials = TwinCredentials()

    async def agent(self):
        state = agent_pb2.Agent(id=new_id("agent"), name="a", system="Be kind.")
        state.created_at.FromDatetime(CLOCK.now())
        state.updated_at.FromDatetime(CLOCK.now())
        await self.agents.create(self.actor, StoredAgent(state.id, state, stage=Stage.READY))
        await self.memory.provision(state.id, "a", [], [], [])
        return state.id

    async def begun(self, agent_id):
        made = Conversation(id=new_id("conv"), agent_id=agent_id, created_by_id="user-ann")
        made.created_at.FromDatetime(CLOCK.now())
        made.updated_at.FromDatetime(CLOCK.now())
        await self.store.create(self.actor, StoredConversation(made, stage=Stage.MAKING))
        return made.id

    async def sweep(self, *, minutes=1):
        await self.conversations.finish_half_done(self.credentials, CLOCK.now() + timedelta(minutes=minutes))


@pytest.fixture
async def half(rooms):
    return Half(rooms)


async def test_a_conversation_left_half_made_is_made(half):
    conversation_id = await half.begun(await half.agent())

    await half.sweep(minutes=-1)
    with pytest.raises(ConversationNotFound):
        await half.store.get(half.actor, conversation_id)
    await half.sweep()

    assert (await half.store.get(half.actor, conversation_id)).id == conversation_id
    assert len(half.memory.thread(conversation_id).messages) == 1
    assert len(half.credentials.issued) == 1


async def test_a_conversation_left_half_removed_is_removed(half):
    conversation_id = await half.begun(await half.agent())
    await half.sweep()
    await half.store.begin_removal(half.actor, conversation_id)

    await half.sweep()

    assert conversation_id not in half.memory.threads
    assert await half.store.list_unfinished(CLOCK.now() + timedelta(minutes=1), 10) == []


async def test_a_conversation_whose_agent_went_away_is_removed(half):
    agent_id = await half.agent()
    conversation_id = await half.begun(agent_id)
    await half.agents.begin_removal(half.actor, agent_id)

    await half.sweep()

    assert await half.store.list_unfinished(CLOCK.now() + timedelta(minutes=1), 10) == []
    assert conversation_id not in half.memory.threads
