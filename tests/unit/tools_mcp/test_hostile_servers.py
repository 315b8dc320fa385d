"""MCP servers that hang, lie or send garbage cost a bounded time and amount."""

import asyncio
import json
from contextlib import asynccontextmanager

import pytest

from letta.tools.v1.mcp_server_pb2 import SchemaHealth
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.egress import AddressGuard
from letta_common.errors import InvalidArgument, MCPConnectionFailed, MCPTimeout
from letta_common.sealing import Sealer
from letta_sandbox.local.programs import ProgramOptions, Programs
from letta_tools.domain.mcp.connections import MCPConnection
from letta_tools.domain.mcp.oauth import OAuthGrants
from letta_tools.domain.mcp.servers import MCPServers
from letta_tools.domain.mcp.tools import Offer, health_of, tool_of
from letta_tools.domain.registry.records import EPOCH
from letta_tools.providers.mcp import MCPOptions, StdioOptions
from letta_tools.providers.mcp_client import SDKClient
from tests.fakes.tools.oauth import FakeOAuthStore
from tests.fakes.tools.servers import FakeMCPServerStore
from tests.fakes.tools.stores import FakeToolStore
from tests.support.bounds import within

ANN = Actor("org-ann", "user-ann")


def no_grants():
    return OAuthGrants(FakeOAuthStore(), Sealer([b"secret"]), SystemClock())


HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n"


def client(seconds=5.0, most_bytes=200_000, stdio=False):
    programs = StdioOptions(enabled=stdio, organizations=("*",))
    options = MCPOptions(stdio=programs, connect_seconds=seconds, list_seconds=seconds, most_bytes=most_bytes)
    return SDKClient(AddressGuard(["127.0.0.1"]), options, Programs(ProgramOptions()), no_grants())


@asynccontextmanager
async def serving(answer):
    """Serve what `answer(method, params, writer)` writes to each request."""

    async def serve(reader, writer):
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
            length = int(head.split("content-length:")[1].split("\r\n")[0]) if "content-length" in head else 0
            body = json.loads(await reader.readexactly(length)) if length else {}
            await answer(body, writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        async with within(60, "what a test asks of the server"):
            yield MCPConnection("streamable_http", server_url=f"http://127.0.0.1:{port}/mcp")
    finally:
        server.close()


def speaking(tools=None, call=None, pages=False):
    """Return a server that speaks the protocol of old and answers these tools."""

    async def answer(body, writer):
        method = body.get("method")
        if "id" not in body:
            writer.write(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
            return
        result = {
            "initialize": {
                "protocolVersion": "2025-03-26",
                "capabilities": {"tools": {}},
                "serverInfo": {"name": "liar", "version": "1"},
            },
            "tools/list": {"tools": tools or [], **({"nextCursor": "more"} if pages else {})},
            "tools/call": call,
        }.get(method)
        reply = {"jsonrpc": "2.0", "id": body["id"]}
        reply |= {"result": result} if result else {"error": {"code": -32601, "message": "no"}}
        writer.write(HEAD + json.dumps(reply).encode())

    return answer


async def test_a_server_that_hangs():
    gate = asyncio.Event()

    async def hang(_body, _writer):
        await gate.wait()

    async with serving(hang) as connection:
        with pytest.raises(MCPTimeout):
            await client(0.5).list_tools(connection)
        gate.set()


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\xff" * 100,
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
        HEAD + b"{",
        HEAD + b"[" * 50_000,
        HEAD + b'{"jsonrpc": "2.0", "id": 999, "result": {}}',
        b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.2:9/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: nonsense\n\n",
    ],
)
async def test_garbage(garbage):
    async def answer(_body, writer):
        writer.write(garbage)

    async with serving(answer) as connection:
        with pytest.raises((MCPConnectionFailed, MCPTimeout)):
            await client(2.0).list_tools(connection)


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
async def test_a_flood(kind):
    sent = 0

    async def answer(_body, writer):
        nonlocal sent
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: " + kind + b"\r\nconnection: close\r\n\r\ndata: ")
        while sent < 64 << 20:
            writer.write(b"x" * 65_536)
            await writer.drain()
            sent += 65_536

    async with serving(answer) as connection:
        with pytest.raises((MCPConnectionFailed, MCPTimeout)):
            await client(10.0).list_tools(connection)
    assert sent < 32 << 20


async def test_pages_without_end():
    tools = [{"name": "again", "inputSchema": {"type": "object"}}]
    async with serving(speaking(tools, pages=True)) as connection:
        offers = await client(30.0).list_tools(connection)
    assert [offer.name for offer in offers] == ["again"]


@pytest.mark.parametrize(
    ("tools", "kept"),
    [
        ([{"name": 1, "inputSchema": {"type": "object"}}], []),
        ([{"inputSchema": {"type": "object"}}], []),
        (["x"], []),
        ([{"name": "x", "inputSchema": 5}], ["x"]),
    ],
)
async def test_tools_that_are_no_tools_lose_no_others(tools, kept):
    good = {"name": "good", "inputSchema": {"type": "object"}}
    async with serving(speaking([*tools, good])) as connection:
        offers = await client().list_tools(connection)
    assert [offer.name for offer in offers] == [*kept, "good"]


async def test_a_listing_that_is_none_is_named():
    async with serving(speaking("tools")) as connection:
        with pytest.raises(MCPConnectionFailed, match="tools"):
            await client().list_tools(connection)


async def test_names_without_sense_are_left_out():
    names = ["", "x" * 300, "a\0b", "good"]
    tools = [{"name": name, "inputSchema": {"type": "object"}} for name in names]
    async with serving(speaking(tools)) as connection:
        assert [offer.name for offer in await client().list_tools(connection)] == ["good"]


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        ({"content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}, (True, "a\nb")),
        ({"content": [], "structuredContent": {"a": 1}}, (True, '{"a": 1}')),
        ({"content": [{"type": "image", "data": "AA==", "mimeType": "image/png"}]}, (True, "[image]")),
        ({"content": [{"type": "text", "text": "bad"}], "isError": True}, (False, "bad")),
        (None, (False, "no")),
    ],
)
async def test_results(call, answer):
    tools = [{"name": "t", "inputSchema": {"type": "object"}}]
    async with serving(speaking(tools, call)) as connection:
        assert await client().call_tool(connection, "t", {}, 5.0) == answer


async def test_patterns_of_a_server_are_never_run_over_its_results():
    slow = {"type": "string", "pattern": "^(a+)+$"}
    tools = [{"name": "t", "inputSchema": {"type": "object"}, "outputSchema": {"properties": {"a": slow}}}]
    call = {"content": [], "structuredContent": {"a": "a" * 64 + "!"}}
    async with serving(speaking(tools, call)) as connection:
        good, text = await client().call_tool(connection, "t", {}, 5.0)
    assert (good, json.loads(text)) == (True, call["structuredContent"])


async def test_a_call_asks_the_server_one_question():
    asked = []

    async def answer(body, writer):
        asked.append(body.get("method"))
        await speaking([], {"content": []})(body, writer)

    async with serving(answer) as connection:
        await client().call_tool(connection, "t", {}, 5.0)
    assert asked[-1] == "tools/call"
    assert "tools/list" not in asked


@pytest.mark.parametrize(
    ("command", "args"),
    [
        ("/bin/true", ()),
        ("/bin/sleep", ("60",)),
        ("/usr/bin/yes", ()),
        ("/nonexistent", ()),
        ("/bin/sh", ("-c", "head -c 50000000 /dev/zero")),
        ("/bin/sh", ("-c", "trap '' TERM INT; (sleep 60 & sleep 60)")),
    ],
)
async def test_programs_that_speak_no_protocol(command, args):
    connection = MCPConnection("stdio", command=command, args=args)
    async with within(60, f"the end of {command}"):
        with pytest.raises((MCPConnectionFailed, MCPTimeout)):
            await client(1.0, stdio=True).list_tools(connection)


async def test_programs_are_off_by_default():
    connection = MCPConnection("stdio", command="/bin/true")
    for attempt in (client().check(connection), client().list_tools(connection)):
        with pytest.raises(InvalidArgument, match="mcp_stdio"):
            await attempt


class Offering:
    """A client of a server that offers what it is told to."""

    def __init__(self, *offers):
        self.offers = offers

    async def check(self, connection):
        pass

    async def list_tools(self, connection):
        return list(self.offers)


async def test_a_hint_that_a_server_takes_back_counts_no_longer():
    told = Offering(Offer("pay", "", {"type": "object"}, idempotent=True))
    tools = FakeToolStore()
    servers = MCPServers(FakeMCPServerStore(tools), tools, told, Sealer([b"secret"]), SystemClock())
    server = await servers.create(ANN, "demo", MCPConnection("sse", server_url="http://127.0.0.1/"))
    assert [tool.idempotent for tool in await servers.tools(ANN, server.id)] == [True]

    told.offers = (Offer("pay", "", {"type": "object"}),)
    done = await servers.refresh(ANN, server.id, {})

    assert list(done.updated) == ["pay"]
    assert [tool.idempotent for tool in await servers.tools(ANN, server.id)] == [False]


CIRCLE = {"$ref": "#/$defs/n"}


def nested(depth):
    schema = {"type": "object"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"x": schema}}
    return schema


@pytest.mark.parametrize(
    ("schema", "status"),
    [
        ({"type": "object", "properties": {}, "additionalProperties": False}, "STRICT_COMPLIANT"),
        ({"type": "object", "properties": {"a": {"type": "string"}}}, "NON_STRICT_ONLY"),
        ({"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"]}, "NON_STRICT_ONLY"),
        (
            {"type": "object", "properties": {"a": True}, "required": ["a"], "additionalProperties": False},
            "NON_STRICT_ONLY",
        ),
        ({"type": "object", "properties": {"a": {"type": "array", "items": False}}}, "NON_STRICT_ONLY"),
        ({"type": "string"}, "INVALID"),
        ({"type": "object", "properties": []}, "INVALID"),
        ({"type": "object", "properties": {"a": 5}}, "INVALID"),
        ({"type": "object", "properties": {"a": {"type": "array", "items": 5}}}, "INVALID"),
        ({"type": "object", "description": "x" * 70_000}, "INVALID"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {}}}, "NON_STRICT_ONLY"),
        (
            {"type": "object", "properties": {"a": {"$ref": "#/$defs/n"}}, "$defs": {"n": {"$ref": "#/$defs/n"}}},
            "INVALID",
        ),
        ({"type": "object", "properties": {"a": {"$ref": "http://127.0.0.1/x"}}}, "INVALID"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/none"}}}, "INVALID"),
        (nested(40), "INVALID"),
        (nested(5_000), "INVALID"),
    ],
)
def test_schemas_are_judged(schema, status):
    assert SchemaHealth.Name(health_of(schema).status) == f"SCHEMA_HEALTH_{status}"


def test_a_name_that_no_text_can_hold_is_told_of_all_the_same():
    assert "arguments.?: not required" in health_of({"properties": {"\ud800": {"type": "string"}}}).reasons


def test_an_unusable_schema_is_replaced():
    offer = Offer("t", "d\0" * 10_000, {"type": "string"})
    tool = tool_of(ANN, ("mcp_server-1", "demo"), offer, "t", EPOCH)

    schema = json.loads(tool.json_schema)
    assert schema["parameters"] == {"type": "object", "properties": {}}
    assert len(schema["description"]) == 8192
    assert json.loads(tool.metadata)["mcp:SCHEMA_STATUS"] == "INVALID"
