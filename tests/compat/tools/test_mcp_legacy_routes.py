"""The routes of MCP servers by name and of authorization, as JSON over HTTP, with servers that the test starts."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.servers import letta_server

SERVERS = Path(__file__).parents[2] / "contract" / "rpc" / "tools"


@pytest.fixture(scope="module")
def client(databases) -> Iterator[httpx.Client]:
    settings = {
        "LETTA_TOOLS_EGRESS_ALLOWED_HOSTS": '["127.0.0.1"]',
        "LETTA_TOOLS_MCP_LIST_SECONDS": "10",
        "LETTA_TOOLS_MCP_STDIO": "true",
        "LETTA_TOOLS_MCP_STDIO_PATHS": json.dumps([sys.prefix, sys.base_prefix, str(SERVERS)]),
    }
    dsn = databases.clone(["auth", "agent", "memory", "tools", "llm"])
    with (
        letta_server(dsn, environment=settings) as running,
        httpx.Client(base_url=running.http_url, timeout=30) as made,
    ):
        yield made


@contextlib.contextmanager
def started(name: str, *arguments: str) -> Iterator[str]:
    process = subprocess.Popen([sys.executable, SERVERS / name, *arguments], stdout=subprocess.PIPE, text=True)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with started("mcp_demo_server.py", "streamable_http") as port:
        wait_for(f"http://127.0.0.1:{port}/mcp")
        yield f"http://127.0.0.1:{port}/mcp"


def wait_for(url: str) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(url)
            return
        time.sleep(0.02)


def steps(response: httpx.Response) -> Iterator[dict]:
    assert response.headers["content-type"].startswith("text/event-stream")
    for line in response.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_the_life_of_a_server_by_name(client, url):
    config = {"server_name": "old", "type": "streamable_http", "server_url": url, "auth_token": "secret"}
    shown = config | {"auth_header": None, "auth_token": "********", "custom_headers": None}

    assert client.put("/v1/tools/mcp/servers", json=config).json() == [shown]
    assert client.put("/v1/tools/mcp/servers", json=config).json() == [shown]
    assert client.get("/v1/tools/mcp/servers").json() == {"old": shown}
    assert [item["server_name"] for item in client.get("/v1/mcp-servers/").json()] == ["old"]
    tools = {tool["name"]: tool for tool in client.get("/v1/tools/mcp/servers/old/tools").json()}
    assert tools["add"]["inputSchema"]["properties"].keys() == {"a", "b"}
    assert tools["add"]["health"]["status"] == "NON_STRICT_ONLY"
    added = (
        client.post("/v1/tools/mcp/servers/old/weird.name%2F1")
        if False
        else client.post("/v1/tools/mcp/servers/old/add")
    )
    assert (added.json()["name"], added.json()["tool_type"]) == ("add", "external_mcp")
    assert client.post("/v1/tools/mcp/servers/old/none").status_code == 404
    again = client.post("/v1/tools/mcp/servers/old/resync")
    assert again.json() == {"added": [], "updated": [], "deleted": []}
    ran = client.post("/v1/tools/mcp/servers/old/tools/add/execute", json={"args": {"a": 1, "b": 2}})
    assert ran.json() == {"result": "3", "success": True}
    failed = client.post("/v1/tools/mcp/servers/old/tools/boom/execute", json={"args": {}}).json()
    assert failed["success"] is False
    change = {"server_name": "new", "custom_headers": {"x-colour": "blue"}}
    changed = client.patch("/v1/tools/mcp/servers/old", json=change).json()
    assert (changed["server_name"], changed["custom_headers"]) == ("new", {"x-colour": "********"})
    assert client.get("/v1/tools/mcp/servers/old/tools").status_code == 404
    assert client.delete("/v1/tools/mcp/servers/new").json() == []
    assert client.delete("/v1/tools/mcp/servers/new").status_code == 404


def test_a_server_is_tried_before_it_is_kept(client, url):
    config = {"server_name": "tried", "type": "streamable_http", "server_url": url}

    tried = client.post("/v1/tools/mcp/servers/test", json=config).json()
    assert (tried["status"], "add" in [tool["name"] for tool in tried["tools"]]) == ("success", True)
    with client.stream("POST", "/v1/tools/mcp/servers/connect", json=config) as response:
        told = list(steps(response))
    assert [step["event"] for step in told] == ["connection_attempt", "success"]
    assert "add" in [tool["name"] for tool in told[-1]["tools"]]
    assert client.get("/v1/tools/mcp/servers").json() == {}
    down = config | {"server_url": "http://127.0.0.1:1/mcp"}
    assert client.post("/v1/tools/mcp/servers/test", json=down).status_code == 502
    with client.stream("POST", "/v1/tools/mcp/servers/connect", json=down) as response:
        assert [step["event"] for step in steps(response)] == ["connection_attempt", "error"]


def test_a_program_is_a_server_too(client):
    config = {
        "server_name": "program",
        "type": "stdio",
        "command": sys.executable,
        "args": [str(SERVERS / "mcp_demo_server.py"), "stdio"],
        "env": {"TOKEN": "mine"},
    }

    assert client.put("/v1/tools/mcp/servers", json=config).json() == [config | {"env": {"TOKEN": "********"}}]
    seen = client.post("/v1/tools/mcp/servers/program/tools/environment/execute", json={"args": {}}).json()
    assert json.loads(seen["result"])["TOKEN"] == "mine"
    changed = {"stdio_config": {"env": {"TOKEN": "other"}}}
    assert client.patch("/v1/tools/mcp/servers/program", json=changed).status_code == 200
    seen = client.post("/v1/tools/mcp/servers/program/tools/environment/execute", json={"args": {}}).json()
    assert json.loads(seen["result"])["TOKEN"] == "other"
    client.delete("/v1/tools/mcp/servers/program")


@pytest.mark.parametrize("legacy", [False, True])
def test_a_person_authorizes_a_server(client, legacy):
    with started("mcp_oauth_server.py", "3600") as line:
        places = json.loads(line)
        wait_for(places["mcp"])
        wait_for(f"{places['authority']}/counts")
        config = {"server_name": "guarded", "type": "streamable_http", "server_url": places["mcp"]}
        with client.stream("POST", "/v1/tools/mcp/servers/connect", json=config) as response:
            assert [step["event"] for step in steps(response)][-2:] == ["oauth_required", "error"]
        kept = {"mcp_server_type": "streamable_http", "server_url": places["mcp"]}
        server = client.post("/v1/mcp-servers/", json={"server_name": "guarded", "config": kept}).json()

        how = (
            ("POST", "/v1/tools/mcp/servers/connect") if legacy else ("GET", f"/v1/mcp-servers/connect/{server['id']}")
        )
        events = []
        with client.stream(*how, **({"json": config} if legacy else {})) as response:
            for step in steps(response):
                events.append(step["event"])
                if step["event"] == "authorization_url":
                    back = httpx.get(step["url"]).headers["location"].partition("?")[2]
                    done = httpx.get(f"{client.base_url}/v1/tools/mcp/oauth/callback?{back}")
                    assert done.json() == {"status": "success", "message": "The MCP server is authorized."}
        assert events == ["connection_attempt", "oauth_required", "authorization_url", "waiting_for_auth", "success"]
        ran = client.post("/v1/tools/mcp/servers/guarded/tools/whisper/execute", json={"args": {}}).json()
        assert ran == {"result": "psst", "success": True}
        client.delete("/v1/tools/mcp/servers/guarded")


def test_an_answer_that_nobody_waits_for(client):
    assert client.get("/v1/tools/mcp/oauth/callback?code=x&state=y").status_code == 422
