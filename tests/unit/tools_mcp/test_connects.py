"""Steps of a connection: what is left when who asked goes away."""

import asyncio
from types import SimpleNamespace

from letta.tools.v1.mcp_server_service_pb2 import MCP_CONNECT_EVENT_CONNECTION_ATTEMPT, MCP_CONNECT_EVENT_OAUTH_REQUIRED
from letta_common.actor import Actor
from letta_tools.domain.mcp.connects import ConnectOptions, MCPConnects
from letta_tools.domain.mcp.oauth import AuthorizationNeeded
from tests.support.bounds import within

ANN = Actor("org-ann", "user-ann")


class Unauthorized:
    """A server that nobody authorizes."""

    async def get(self, actor, server_id):
        return SimpleNamespace(server_name="demo")

    async def list_offers(self, actor, server_id, variables):
        raise AuthorizationNeeded("authorize me")

    async def authorize(self, actor, server_id, variables, ask):
        await asyncio.Event().wait()


async def test_nothing_waits_for_steps_that_nobody_takes():
    before = asyncio.all_tasks()
    steps = MCPConnects(Unauthorized(), ConnectOptions()).connect(ANN, "mcp_server-1", {})
    events = [(await anext(steps)).event for _ in range(2)]
    assert events == [MCP_CONNECT_EVENT_CONNECTION_ATTEMPT, MCP_CONNECT_EVENT_OAUTH_REQUIRED]
    third = asyncio.ensure_future(anext(steps))
    await asyncio.sleep(0.05)
    third.cancel()
    async with within(10, "the end of every task"):
        await asyncio.wait({third})
        await steps.aclose()
        await asyncio.gather(*(asyncio.all_tasks() - before), return_exceptions=True)
