"""The promise of exactly once and in order, over PostgreSQL and the memory service as they are."""

from __future__ import annotations

import asyncio
import random

import pytest
from pydantic import SecretStr

import letta_memory.wiring
from letta.common.v1 import message_pb2
from letta.memory.v1 import block_pb2
from letta_agent.clients.memory import MemoryClient
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.peers.memory import Message
from letta_agent.store.agents import SqlAgentStore
from letta_agent.store.queue import SqlQueueStore
from letta_agent.store.runs import SqlRunStore
from letta_common.actor import Actor, acting_as
from letta_common.values.ids import new_id
from letta_memory.settings import MemorySettings
from letta_messages.rendering import text_of
from letta_postgres.db import Database
from letta_rpc.service import Deps
from tests.fakes.agent.exchange import Exchange
from tests.fakes.agent.peers import say
from tests.fakes.agent.world import AGENT, World
from tests.support.rpc import Identities, running

STEPS = 60
_ROLES = {message_pb2.MESSAGE_ROLE_USER: "user", message_pb2.MESSAGE_ROLE_ASSISTANT: "assistant"}


class Stores:
    """Runs and their queue, in PostgreSQL."""

    def __init__(self, db):
        self.db, self._runs, self._queue = db, SqlRunStore(db), SqlQueueStore(db)

    def __getattr__(self, name):
        return getattr(self._runs, name, None) or getattr(self._queue, name)


class Signing:
    """Signs for runs as auth does."""

    def __init__(self, identities):
        self._identities = identities

    async def issue(self, actor, run_id):
        return self._identities.sign(actor)


class Real(World):
    """A replica over PostgreSQL and a real memory service."""

    def __init__(self, identities, stores, memory, **more):
        super().__init__(store=stores, memory=memory, credentials=Signing(identities), **more)
        self._identities = identities

    def another(self, *_, **more):
        return Real(self._identities, self.store, self.memory, **more)


@pytest.fixture(scope="module")
async def memory(database_url, tmp_path_factory):
    """Run the memory service in this process."""
    identities = Identities()
    home = tmp_path_factory.mktemp("letta")
    settings = MemorySettings(database_url=SecretStr(database_url), home=home, pool_size=4)
    service = await letta_memory.wiring.build(settings, Deps())
    async with running(service, "local", identities=identities) as channel:
        yield identities, MemoryClient(channel)


@pytest.fixture(scope="module")
async def db(database_url):
    database = await Database.open(database_url, schema="agent")
    yield database
    await database.close()


@pytest.fixture
async def exchange(memory, db):
    """Make an agent in an organization of its own, and an exchange with it."""
    identities, client = memory
    ann = Actor(new_id("org"), new_id("user"), frozenset({"write"}))
    signed = identities.sign(ann)
    replica = Real(identities, Stores(db), client)
    state = replica.state_of()
    await SqlAgentStore(db).create(ann, StoredAgent(AGENT, state))
    first = Message(id=new_id("message"), role=message_pb2.MESSAGE_ROLE_SYSTEM, parts=[say("compiled")])
    first.created_at.FromDatetime(replica.clock.now())
    with acting_as(signed):
        await client.provision(AGENT, "a", [block_pb2.Block(label="human", value="Bob")], [], [first])

    async def expire(owner):
        statement = (
            "update agent.conversation_queue set lease_until = clock_timestamp() "
            "where organization_id = %s and (%s = '' or owner = %s)"
        )
        await db.hot(statement, (ann.organization_id, owner, owner))

    async def texts():
        rows = await db.hot(
            "select body from memory.messages where organization_id = %s order by seq", (ann.organization_id,)
        )
        stored = [Message.FromString(row[0]) for row in rows]
        return [(_ROLES[message.role], text_of(message)) for message in stored if message.role in _ROLES]

    made = Exchange(replica, ann, signed=signed, expire=expire, texts=texts)
    yield made
    await made.close()


@pytest.mark.parametrize("seed", range(4))
async def test_each_acknowledged_message_comes_once_and_in_order(exchange, seed):
    chance = random.Random(seed)
    for _ in range(STEPS):
        index = chance.randrange(4)
        match chance.choices(
            ("send", "repeat", "let", "dispatch", "cancel", "crash", "pause", "start", "compact"),
            (5, 2, 5, 4, 1, 1, 1, 1, 1),
        ):
            case ["send"]:
                await exchange.send(index, enqueue=chance.random() < 0.6, times=chance.randint(1, 4))
            case ["repeat"]:
                await exchange.repeat(index, chance.randrange(50))
            case ["let"]:
                exchange.let(index)
            case ["dispatch"]:
                await exchange.dispatch(index)
            case ["cancel"]:
                await exchange.cancel(index, chance.randrange(50))
            case ["crash"]:
                await exchange.crash(index)
            case ["pause"]:
                await exchange.pause(index)
            case ["start"] if len(exchange.replicas) < 3:
                exchange.start()
            case ["compact"]:
                await exchange.compact(index)
        await asyncio.sleep(chance.choice((0, 0, 0.002)))
        await exchange.check()
    await exchange.settle()
    await exchange.check_end()
    assert exchange.acknowledged
