"""Authorization of MCP servers, against a real MCP server and a real authorization server that the test starts."""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from letta.tools.v1 import mcp_server_service_pb2 as pb
from letta.tools.v1.mcp_server_pb2 import MCPServerConfig, StreamableHttpMCPConfig
from letta_common.errors import InvalidArgument, MCPConnectionFailed, MCPServerNotFound
from letta_common.values.ids import new_id
from letta_postgres.db import Database

SERVER = Path(__file__).with_name("mcp_oauth_server.py")


@contextlib.contextmanager
def started(lifetime):
    process = subprocess.Popen([sys.executable, SERVER, str(lifetime)], stdout=subprocess.PIPE, text=True)
    places = json.loads(process.stdout.readline())
    while process.poll() is None:  # the ports are known before anybody listens
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(f"{places['authority']}/counts")
            httpx.get(places["mcp"])
            break
        time.sleep(0.02)
    try:
        yield places
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def places():
    with started(3600) as places:
        yield places


async def create(servers, url):
    config = MCPServerConfig(streamable_http=StreamableHttpMCPConfig(server_url=url))
    request = pb.CreateMCPServerRequest(server_name="guarded", config=config)
    return (await servers.CreateMCPServer(request, timeout=30)).mcp_server


def authorized(url):
    """Be the person: open the address and be sent back; return what the address of return was called with."""
    answer = httpx.get(url, follow_redirects=False)
    assert answer.status_code == 302, answer.text
    return {name: values[0] for name, values in parse_qs(urlsplit(answer.headers["location"]).query).items()}


_EVENTS = {number: name.removeprefix("MCP_CONNECT_EVENT_").lower() for name, number in pb.MCPConnectEvent.items()}


async def connect(servers, server, person):
    """Connect; return the events and the last step. `person` gets the address and does what a person would."""
    call = servers.ConnectMCPServer(pb.ConnectMCPServerRequest(mcp_server_id=server.id), timeout=60)
    steps = []
    async for step in call:
        steps.append(step)
        if step.event == pb.MCP_CONNECT_EVENT_AUTHORIZATION_URL:
            await person(step.url)
    return [_EVENTS[step.event] for step in steps], steps[-1]


def returning(servers):
    async def person(url):
        back = await asyncio.to_thread(authorized, url)
        done = await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back), timeout=5)
        failed = "error" in back
        assert done.status == (pb.MCP_AUTHORIZATION_STATUS_ERROR if failed else pb.MCP_AUTHORIZATION_STATUS_SUCCESS)

    return person


async def run(servers, server):
    tools = await servers.ListMCPServerTools(pb.ListMCPServerToolsRequest(mcp_server_id=server.id), timeout=5)
    request = pb.RunMCPServerToolRequest(mcp_server_id=server.id, tool_id=tools.tools[0].id, args="{}")
    return await servers.RunMCPServerTool(request, timeout=30)


async def test_a_person_authorizes_a_server(servers, places):
    server = await create(servers, places["mcp"])
    none = await servers.ListMCPServerTools(pb.ListMCPServerToolsRequest(mcp_server_id=server.id), timeout=5)
    assert len(none.tools) == 0

    events, last = await connect(servers, server, returning(servers))

    assert events == ["connection_attempt", "oauth_required", "authorization_url", "waiting_for_auth", "success"]
    assert [tool.name for tool in last.tools.tools] == ["whisper"]
    answer = await run(servers, server)
    assert (answer.status, json.loads(answer.func_return)) == (pb.MCP_TOOL_STATUS_SUCCESS, "psst")
    again, _ = await connect(servers, server, returning(servers))
    assert again == ["connection_attempt", "success"]


async def test_tokens_lie_encrypted(servers, places, ann, database_url):
    server = await create(servers, places["mcp"])
    await connect(servers, server, returning(servers))

    db = await Database.open(database_url, schema="tools")
    try:
        mine = "from tools.{} where organization_id = %s"
        rows = [
            *await db.hot("select grant_sealed " + mine.format("mcp_oauth_grants"), (ann.organization_id,)),
            *await db.hot("select answer " + mine.format("mcp_oauth_sessions"), (ann.organization_id,)),
        ]
    finally:
        await db.close()
    assert len(rows) == 2
    for (sealed,) in rows:
        assert not any(word in bytes(sealed) for word in (b"access-", b"refresh-", b"code", b"client"))


async def test_an_expired_token_is_refreshed_without_a_person(servers):
    with started(1) as places:
        server = await create(servers, places["mcp"])
        await connect(servers, server, returning(servers))
        await asyncio.sleep(1.1)

        for _ in range(2):  # the second time from what the first one kept
            assert (await run(servers, server)).status == pb.MCP_TOOL_STATUS_SUCCESS
            await asyncio.sleep(1.1)

        counts = (await asyncio.to_thread(httpx.get, f"{places['authority']}/counts")).json()
        assert (counts["registered"], counts["codes"]) == (1, 1)
        assert counts["refreshes"] >= 2


async def test_another_organization_cannot_answer(servers, places, as_bob):
    server = await create(servers, places["mcp"])
    refused = []

    async def person(url):
        back = await asyncio.to_thread(authorized, url)
        with as_bob(), pytest.raises(InvalidArgument):
            await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back), timeout=5)
        refused.append(back)
        await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back), timeout=5)

    events, _ = await connect(servers, server, person)
    assert events[-1] == "success"
    assert len(refused) == 1
    with as_bob(), pytest.raises(MCPServerNotFound):
        await connect(servers, server, person)


async def test_the_first_answer_counts_and_only_with_its_state(servers, places):
    server = await create(servers, places["mcp"])

    async def person(url):
        back = await asyncio.to_thread(authorized, url)
        forged = back["state"][:-4] + ("AAAA" if back["state"][-4:] != "AAAA" else "BBBB")
        for state in ("", "nonsense", "é", forged):
            request = pb.CompleteMCPOAuthRequest(code="stolen", state=state)
            with pytest.raises(InvalidArgument):
                await servers.CompleteMCPOAuth(request, timeout=5)
        await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back), timeout=5)
        await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back), timeout=5)
        with pytest.raises(InvalidArgument, match="already"):
            await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back | {"code": "stolen"}), timeout=5)

    events, _ = await connect(servers, server, person)
    assert events[-1] == "success"


async def test_a_code_that_is_none_is_refused(servers, places):
    server = await create(servers, places["mcp"])

    async def person(url):
        state = parse_qs(urlsplit(url).query)["state"][0]
        await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(code="made up", state=state), timeout=5)

    events, last = await connect(servers, server, person)
    assert events[-1] == "error"
    assert last.message


async def test_an_answer_of_an_empty_issuer_is_of_no_server(servers, places):
    server = await create(servers, places["mcp"])

    async def person(url):
        back = await asyncio.to_thread(authorized, url)
        await servers.CompleteMCPOAuth(pb.CompleteMCPOAuthRequest(**back | {"iss": ""}), timeout=5)

    events, last = await connect(servers, server, person)
    assert (events[-1], "iss mismatch" in last.message) == ("error", True)


async def test_a_person_who_refuses(servers):
    with started(3600) as places:
        server = await create(servers, places["mcp"])
        await asyncio.to_thread(httpx.post, f"{places['authority']}/refuse")

        events, last = await connect(servers, server, returning(servers))

        assert (events[-1], "the owner says no" in last.message) == ("error", True)


async def test_a_call_without_authorization_says_what_to_do(servers, places):
    server = await create(servers, places["mcp"])
    with pytest.raises(MCPConnectionFailed, match="mcp-servers/connect"):
        await servers.RefreshMCPServer(pb.RefreshMCPServerRequest(mcp_server_id=server.id), timeout=30)


async def test_connecting_to_a_server_that_nobody_has(servers):
    call = servers.ConnectMCPServer(pb.ConnectMCPServerRequest(mcp_server_id=new_id("mcp_server")), timeout=10)
    with pytest.raises(MCPServerNotFound):
        await anext(aiter(call))
