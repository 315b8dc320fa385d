"""Servers that hang, lie, change and crash, over each transport: what they cost is bounded, and others work."""

import json
import re
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.egress import AddressGuard
from letta_common.errors import MCPConnectionFailed, MCPTimeout
from letta_common.sealing import Sealer
from letta_sandbox.local.programs import ProgramOptions, Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import OAuthGrants
from letta_tools.domain.mcp.servers import MCPServers
from letta_tools.providers.mcp import MCPOptions, StdioOptions
from letta_tools.providers.mcp_client import SDKClient
from tests.fakes.tools.oauth import FakeOAuthStore
from tests.fakes.tools.servers import FakeMCPServerStore
from tests.fakes.tools.stores import FakeToolStore
from tests.support.bounds import within

LIAR = Path(__file__).with_name("liar.py")
ANN = Actor("org-ann", "user-ann")


def no_grants():
    return OAuthGrants(FakeOAuthStore(), Sealer([b"secret"]), SystemClock())


TRANSPORTS = ["stdio", "sse", "streamable_http"]


@contextmanager
def started(transport, behaviour):
    process = subprocess.Popen([sys.executable, LIAR, transport, behaviour], stdout=subprocess.PIPE, text=True)
    try:
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/{'sse' if transport == 'sse' else 'mcp'}"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@asynccontextmanager
async def serving(transport, behaviour, seconds=5.0):
    """Yield a client and the connection to a server that misbehaves so."""
    paths = (sys.prefix, sys.base_prefix, str(LIAR.parent))
    programs = Programs(ProgramOptions(readable=paths))
    stdio = StdioOptions(enabled=True, organizations=("*",))
    options = MCPOptions(stdio=stdio, connect_seconds=seconds, list_seconds=seconds, most_bytes=400_000)
    client = SDKClient(AddressGuard(["127.0.0.1"]), options, programs, no_grants())
    place = {"organization_id": "org-ann", "server_id": "mcp_server-1"}
    try:
        async with within(60, f"what a test asks of a server that does: {behaviour}"):
            if transport == "stdio":
                args = (str(LIAR), "stdio", behaviour)
                yield client, MCPConnection("stdio", command=sys.executable, args=args, **place)
            else:
                with started(transport, behaviour) as url:
                    yield client, MCPConnection(transport, server_url=url, **place)
    finally:
        async with within(30, "the end of every program"):
            await client.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("phase", ["initialize", "tools/list"])
async def test_a_server_that_hangs_before_a_call(transport, phase):
    async with serving(transport, f"hang {phase}", 2.5) as (client, connection):
        with pytest.raises(MCPTimeout):
            await client.list_tools(connection)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_call_that_hangs(transport):
    async with serving(transport, "hang tools/call") as (client, connection):
        for _ in range(2):
            with pytest.raises(MCPTimeout):
                await client.call_tool(connection, "pid", {}, 0.7)
            assert {offer.name for offer in await client.list_tools(connection)} == {"pid", "same"}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("phase", ["initialize", "tools/list", "tools/call"])
async def test_garbage_instead_of_an_answer(transport, phase):
    async with serving(transport, f"garbage {phase}", 2.0) as (client, connection):
        try:
            good = await client.list_tools(connection) and (await client.call_tool(connection, "pid", {}, 2.0))[0]
        except (MCPTimeout, MCPConnectionFailed):
            good = False
        assert not good


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_schemas_and_names_that_no_vendor_takes(transport):
    async with serving(transport, "schemas") as (client, connection):
        tools = FakeToolStore()
        servers = MCPServers(FakeMCPServerStore(tools), tools, client, Sealer([b"secret"]), SystemClock())
        server = await servers.create(ANN, "demo", connection)
        kept = await servers.tools(ANN, server.id)

    names = [tool.name for tool in kept]
    assert len(set(names)) == len(names)
    assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_-]{0,63}", name) for name in names)
    states = {tool.mcp_name: json.loads(tool.metadata)["mcp:SCHEMA_STATUS"] for tool in kept}
    for bad in ("no array", "no object", "enormous", "recursive", "deep"):
        assert states.get(bad) in {"INVALID", None}
    assert states["good"] == "NON_STRICT_ONLY" or states["good"] == "STRICT_COMPLIANT"
    assert all(len(tool.json_schema) < 70_000 for tool in kept)
    assert {"same/name", "same name"} <= states.keys()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_one_bad_tool_does_not_lose_the_others(transport):
    async with serving(transport, "odd") as (client, connection):
        tools = FakeToolStore()
        servers = MCPServers(FakeMCPServerStore(tools), tools, client, Sealer([b"secret"]), SystemClock())
        server = await servers.create(ANN, "demo", connection)
        kept = {tool.mcp_name: tool for tool in await servers.tools(ANN, server.id)}
        again = await servers.refresh(ANN, server.id, {})
        called = await servers.call(ANN, kept["good"], {}, {}, 5.0)
        await servers.close()

    states = {name: json.loads(tool.metadata) for name, tool in kept.items()}
    invalid = {name for name, state in states.items() if state["mcp:SCHEMA_STATUS"] == "INVALID"}
    told = {"no schema", "null schema", "text schema", "array", "text property", "required", "lost reference"}
    usable = {"good", "root reference", "no type", "any output", "array output", "hints", "words"}
    assert invalid == told
    assert states.keys() == told | usable
    assert all(states[name]["mcp:SCHEMA_WARNINGS"] for name in told)
    assert "integer" in kept["root reference"].json_schema
    assert (*again.added, *again.updated, *again.deleted) == ()
    assert called[0]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_tools_that_change_during_a_call(transport):
    async with serving(transport, "changes") as (client, connection):
        tools = FakeToolStore()
        servers = MCPServers(FakeMCPServerStore(tools), tools, client, Sealer([b"secret"]), SystemClock())
        server = await servers.create(ANN, "demo", connection)
        tool = next(tool for tool in await servers.tools(ANN, server.id) if tool.name == "pid")

        assert (await servers.call(ANN, tool, {}, {}, 5.0))[0]
        done = await servers.refresh(ANN, server.id, {})

        assert list(done.added) == ["other"]
        assert set(done.deleted) == {"pid", "same"}
        await servers.close()


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_server_that_crashes_in_each_call(transport):
    async with serving(transport, "crash tools/call") as (client, connection):
        with pytest.raises(MCPConnectionFailed):
            await client.call_tool(connection, "pid", {}, 5.0)
        if transport == "stdio":
            assert len(await client.list_tools(connection)) == 2


async def test_a_program_that_crashed_is_started_again():
    async with serving("stdio", "crash once") as (client, connection):
        first = await client.call_tool(connection, "pid", {}, 5.0)
        with pytest.raises(MCPConnectionFailed, match="ended during the call"):
            await client.call_tool(connection, "pid", {}, 5.0)
        again = await client.call_tool(connection, "pid", {}, 5.0)
        assert first[0]
        assert again[0]


async def test_an_http_server_that_was_restarted_is_reached_again():
    async with serving("streamable_http", "calm") as (client, _):
        with started("streamable_http", "calm") as url:
            connection = MCPConnection("streamable_http", server_url=url)
            assert (await client.call_tool(connection, "pid", {}, 5.0))[0]
        with pytest.raises(MCPConnectionFailed):
            await client.call_tool(connection, "pid", {}, 5.0)
        with started("streamable_http", "calm") as url:
            assert (await client.call_tool(MCPConnection("streamable_http", server_url=url), "pid", {}, 5.0))[0]
