"""The stores of the agent service: in PostgreSQL, and their twins in memory."""

from dataclasses import dataclass
from datetime import timedelta
from itertools import count

import pytest

from letta.agent.v1 import agent_pb2, run_pb2, stored_pb2
from letta_agent.domain.agents.conversations import Conversation, ConversationStore, StoredConversation
from letta_agent.domain.agents.records import AgentStore, StoredAgent
from letta_agent.domain.journal.records import NewRun
from letta_agent.store.agents import SqlAgentStore
from letta_agent.store.conversations import SqlConversationStore
from letta_agent.store.queue import SqlQueueStore
from letta_agent.store.runs import SqlRunStore
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from tests.fakes.agent.agents import FakeAgents, FakeConversations
from tests.fakes.agent.runs import FakeRuns

_ticks = count()


@dataclass
class Rooms:
    """All stores over the same data."""

    agents: AgentStore
    conversations: ConversationStore
    runs: object
    queue: object
    db: Database | None = None

    async def vanish(self, actor, agent_id):
        """Take the row of an agent away, and nothing else."""
        if self.db is None:
            del self.runs.state.agents[actor.organization_id, agent_id]
            return
        statement = "delete from agent.agents where organization_id = %s and id = %s"
        await self.db.hot(statement, (actor.organization_id, agent_id))


@pytest.fixture
async def db(database_url):
    database = await Database.open(database_url, schema="agent")
    yield database
    await database.close()


@pytest.fixture(params=["fake", "sql"])
async def rooms(request, db):
    if request.param == "fake":
        runs = FakeRuns(SystemClock())
        return Rooms(FakeAgents(runs.state), FakeConversations(runs.state), runs, runs)
    return Rooms(SqlAgentStore(db), SqlConversationStore(db), SqlRunStore(db), SqlQueueStore(db), db)


@pytest.fixture
def ann():
    return Actor(new_id("org"), new_id("user"), frozenset({"write"}))


@pytest.fixture
def bob():
    return Actor(new_id("org"), new_id("user"), frozenset({"write"}))


def agent_of(*, tool_ids=(), secrets=b"", request_id="", stage=None, created_by="", **state):
    """Return an agent, each a second younger than the one before."""
    given = agent_pb2.Agent(id=new_id("agent"), **{"name": "Ada", "model": "m/x", **state})
    moment = SystemClock().now() + timedelta(seconds=next(_ticks))
    given.created_at.FromDatetime(moment)
    given.updated_at.FromDatetime(moment)
    more = {} if stage is None else {"stage": stage}
    return StoredAgent(
        given.id,
        given,
        tuple(tool_ids),
        secrets,
        creation=b"left",
        request_id=request_id,
        created_by=created_by,
        **more,
    )


def conversation_of(agent_id, *, stage=None, request_id="", labels=(), **fields):
    """Return a conversation, each a second younger than the one before."""
    given = Conversation(id=new_id("conv"), agent_id=agent_id, created_by_id="user-ann", **fields)
    moment = SystemClock().now() + timedelta(seconds=next(_ticks))
    given.created_at.FromDatetime(moment)
    given.updated_at.FromDatetime(moment)
    more = {} if stage is None else {"stage": stage}
    return StoredConversation(given, tuple(labels), request_id, **more)


def new_run(agent_id, conversation_id="", **changes):
    return NewRun(
        id=new_id("run"),
        agent_id=agent_id,
        conversation_id=conversation_id or agent_id,
        key="",
        request_hash=b"h",
        request=run_pb2.RunRequest(input_text="hi").SerializeToString(),
        input=stored_pb2.StoredInput().SerializeToString(),
        **changes,
    )
