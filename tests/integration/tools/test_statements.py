"""What a call costs the database: counted by the database itself."""

import asyncio

import pytest

from letta.tools.v1 import tool_execution_service_pb2_grpc, tool_pb2, tool_service_pb2_grpc
from letta.tools.v1.tool_execution_service_pb2 import ExecuteRequest
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, ResolveToolsRequest
from letta_agent.clients.tools import ToolClient
from letta_common.actor import Actor, acting_as
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from letta_rpc.service import Deps
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.support.rpc import Identities, running

CALLS = 8
SOURCE = 'def f(n: int):\n    """F.\n\n    Args:\n        n: it\n    """\n    return n\n'


@pytest.fixture
async def channel(database_url, tmp_path):
    service = await build(ToolsSettings(database_url=database_url, home=tmp_path), Deps())
    identities = Identities()
    async with running(service, identities=identities) as channel:
        with acting_as(identities.sign(Actor(new_id("org"), "user-ann"))):
            yield channel


@pytest.fixture
async def counted(database_url):
    db = await Database.open(database_url, schema="tools")
    await db.hot("create extension if not exists pg_stat_statements")

    async def count():
        """Return how often each statement on this schema ran, and begin to count anew."""
        rows = await db.hot(
            "select query, calls from pg_stat_statements where query ~ 'tools[.]' and toplevel "
            "and dbid = (select oid from pg_database where datname = current_database())"
        )
        await db.hot("select pg_stat_statements_reset()")
        return {query: calls for query, calls in rows if "pg_stat" not in query}

    yield count
    await db.close()


async def test_a_call_with_a_key_is_two_statements_before_it_runs(channel, counted):
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    tool = (await registry.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=SOURCE)), timeout=5)).tool

    def call(number):
        request = ExecuteRequest(
            tool_id=tool.id,
            tool_version=tool.version,
            arguments=f'{{"n": {number}}}',
            idempotency_key=f"run:1:{number}",
        )
        return executions.Execute(request, timeout=20)

    await call(-1)
    await counted()

    answers = await asyncio.gather(*(call(number) for number in range(CALLS)))

    assert [answer.result for answer in answers] == [str(number) for number in range(CALLS)]
    seen = await counted()
    begun = sum(calls for query, calls in seen.items() if "begin_execution" in query)
    written = sum(calls for query, calls in seen.items() if query.lstrip().startswith("update tools.executions"))
    assert begun == CALLS
    assert written <= CALLS
    read = sum(calls for query, calls in seen.items() if "environment_variables" in query)
    assert read == CALLS
    assert begun + read + written == sum(seen.values())


async def test_a_call_of_an_agent_is_not_looked_up(channel, counted):
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    made = (await registry.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=SOURCE)), timeout=5)).tool
    client = ToolClient(channel)
    tool = (await client.resolve([made.id]))[0]

    def call(number):
        return ExecuteRequest(
            tool_id=tool.id,
            tool_version=tool.version,
            arguments=f'{{"n": {number}}}',
            idempotency_key=f"run:2:{number}",
            agent_id="agent-1",
        )

    await client.execute(call(0))
    await counted()

    assert (await client.execute(call(1))).result == "1"

    assert not [query for query in await counted() if "tools.tools" in query]


async def test_resolving_is_one_statement(channel, counted):
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    names = ["send_message", "memory_insert", "run_code"]
    await registry.ResolveTools(ResolveToolsRequest(names=names), timeout=5)
    await counted()

    await registry.ResolveTools(ResolveToolsRequest(names=names), timeout=5)

    assert sum((await counted()).values()) == 1
