"""MCP servers through the unmodified letta-client, with a server that the test starts."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from letta_client import APIStatusError, NotFoundError
from tests.servers import RunningServer, letta_server

DEMO = Path(__file__).parents[2] / "contract" / "rpc" / "tools" / "mcp_demo_server.py"


@pytest.fixture(scope="module")
def server(databases) -> Iterator[RunningServer]:
    allowed = {"LETTA_TOOLS_EGRESS_ALLOWED_HOSTS": '["127.0.0.1"]', "LETTA_TOOLS_MCP_LIST_SECONDS": "10"}
    dsn = databases.clone(["auth", "agent", "memory", "tools", "llm"])
    with letta_server(dsn, environment=allowed) as running:
        yield running


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    process = subprocess.Popen([sys.executable, DEMO, "streamable_http"], stdout=subprocess.PIPE, text=True)
    yield f"http://127.0.0.1:{process.stdout.readline().strip()}/mcp"
    process.kill()
    process.wait()
    process.stdout.close()


def test_the_life_of_a_server(client, server, url):
    config = {"mcp_server_type": "streamable_http", "server_url": url, "auth_token": "secret"}
    made = client.mcp_servers.create(server_name="demo", config=config)

    body = httpx.get(f"{server.http_url}/v1/mcp-servers/{made.id}").json()
    assert body == {
        "id": made.id,
        "server_name": "demo",
        "mcp_server_type": "streamable_http",
        "server_url": url,
        "auth_header": None,
        "auth_token": "********",
        "custom_headers": None,
    }
    tools = {tool.name: tool for tool in client.mcp_servers.tools.list(made.id)}
    assert tools["add"].tool_type == "external_mcp"
    ran = client.mcp_servers.tools.run(tools["add"].id, mcp_server_id=made.id, args={"a": 1, "b": 2})
    assert (ran.status, ran.func_return) == ("success", "3")
    failed = client.mcp_servers.tools.run(tools["boom"].id, mcp_server_id=made.id)
    assert failed.status == "error"
    assert client.mcp_servers.tools.retrieve(tools["add"].id, mcp_server_id=made.id).name == "add"
    assert client.mcp_servers.refresh(made.id) == {"added": [], "updated": [], "deleted": []}
    renamed = client.mcp_servers.update(made.id, server_name="renamed", config=config)
    assert renamed.server_name == "renamed"
    assert [item.server_name for item in client.mcp_servers.list()] == ["renamed"]
    client.mcp_servers.delete(made.id)
    with pytest.raises(NotFoundError):
        client.mcp_servers.retrieve(made.id)


def test_an_agent_gets_a_tool_of_a_server(client, url):
    config = {"mcp_server_type": "streamable_http", "server_url": url}
    made = client.mcp_servers.create(server_name="for_agents", config=config)
    tool = next(tool for tool in client.mcp_servers.tools.list(made.id) if tool.name == "add")
    agent = client.agents.create(model="builtin/rules", memory_blocks=[], tool_ids=[tool.id])

    assert tool.id in {held.id for held in client.agents.tools.list(agent.id)}
    client.agents.delete(agent.id)
    client.mcp_servers.delete(made.id)


def test_servers_that_cannot_be_reached(client):
    with pytest.raises(APIStatusError) as caught:
        client.mcp_servers.create(
            server_name="down", config={"mcp_server_type": "sse", "server_url": "http://127.0.0.1:1/sse"}
        )
    assert caught.value.status_code == 502
    assert caught.value.body["error"]["type"] == "mcp_connection_error"
