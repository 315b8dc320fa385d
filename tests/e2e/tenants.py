"""A deployment that asks for credentials, and two organizations in it: one has secrets, the other wants them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from tests.servers import RunningServer

DEMO = Path(__file__).parents[1] / "contract/rpc/tools/mcp_demo_server.py"
MARK = "ZANZIBAR"
"""In everything that the victim keeps."""
TOOL = f'''
def secret_tool(text: str) -> str:
    """Return the {MARK}.

    Args:
        text: Any.
    """
    return "{MARK}"
'''
_IDS = {
    "agent_id": "/v1/agents/",
    "block_id": "/v1/blocks/",
    "archive_id": "/v1/archives/",
    "folder_id": "/v1/folders/",
    "conversation_id": "/v1/conversations/",
    "run_id": "/v1/runs/",
    "provider_id": "/v1/providers/",
}


@dataclass(slots=True)
class Tenant:
    """An organization with a user, a key and what it owns."""

    http: httpx.Client
    user_id: str
    secret: str
    owned: dict[str, str] = field(default_factory=dict)
    """An id of each kind, by the name that paths and requests have for it."""


def bootstrap(environment: dict[str, str]) -> str:
    """Return what `letta keys bootstrap` prints."""
    command = [sys.executable, "-m", "letta_cli", "keys", "bootstrap"]
    made = subprocess.run(
        command, check=False, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120
    )
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


@contextmanager
def mcp_server(transport: str = "streamable_http") -> Iterator[str]:
    """Run an MCP server on loopback; yield its address."""
    with subprocess.Popen([sys.executable, DEMO, transport], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/{'sse' if transport == 'sse' else 'mcp'}"
        finally:
            process.terminate()


def client(server: RunningServer, secret: str) -> httpx.Client:
    return httpx.Client(base_url=server.http_url, timeout=60, headers={"authorization": f"Bearer {secret}"})


def make_tenant(server: RunningServer, admin: httpx.Client, name: str, stack: ExitStack, *scopes: str) -> Tenant:
    """Make an organization with one user and a key of theirs."""
    organization = posted(admin, "/v1/admin/orgs/", {"name": name})
    user = posted(admin, "/v1/admin/users/", {"name": name, "organization_id": organization["id"]})
    secret = make_key(admin, user["id"], ["read", "write", *scopes])["secret"]
    return Tenant(stack.enter_context(client(server, secret)), user["id"], secret, {"org_id": organization["id"]})


def make_key(http: httpx.Client, user_id: str, scopes: list[str]) -> dict[str, Any]:
    return posted(http, "/v1/api-keys/", {"name": "a key", "user_id": user_id, "scopes": scopes})


def posted(http: httpx.Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = http.post(path, json=body)
    assert answer.status_code in (200, 201), f"{path}: {answer.text}"
    return dict(answer.json())


def furnish(tenant: Tenant, mcp_url: str) -> None:
    """Let a tenant own one of everything, each with the mark in it."""
    http, owned = tenant.http, tenant.owned
    block = posted(http, "/v1/blocks/", {"label": "human", "value": MARK})
    tool = posted(http, "/v1/tools/", {"source_code": TOOL})
    agent = posted(
        http,
        "/v1/agents/",
        {"name": MARK, "model": "builtin/rules", "block_ids": [block["id"]], "tool_ids": [tool["id"]], "tags": [MARK]},
    )
    posted(http, f"/v1/agents/{agent['id']}/messages", {"input": f"My word is {MARK}."})
    archive = posted(http, "/v1/archives/", {"name": MARK})
    passage = posted(http, f"/v1/archives/{archive['id']}/passages", {"text": MARK})
    folder = posted(http, "/v1/folders/", {"name": MARK})
    file = _uploaded(http, folder["id"])
    identity = posted(http, "/v1/identities/", _identity(agent["id"], block["id"]))
    conversation = http.post("/v1/conversations/", params={"agent_id": agent["id"]}, json={"summary": MARK}).json()
    run = http.get("/v1/runs/").json()[0]
    step = http.get("/v1/steps/").json()[0]
    message = http.get(f"/v1/agents/{agent['id']}/messages").json()[0]
    account = {"name": MARK.lower(), "provider_type": "openai-compatible", "api_key": f"sk-{MARK}"}
    provider = posted(http, "/v1/providers/", account | {"base_url": "http://127.0.0.1:9/v1"})
    config = posted(http, "/v1/sandbox-config/", {"config": {"timeout": 30}})
    path = f"/v1/sandbox-config/{config['id']}/environment-variable"
    variable = posted(http, path, {"key": MARK, "value": MARK})
    config_of_mcp = {"mcp_server_type": "streamable_http", "server_url": mcp_url}
    server = {"server_name": MARK, "config": config_of_mcp}
    mcp = posted(http, "/v1/mcp-servers/", server)
    owned.update(
        block_id=block["id"],
        tool_id=tool["id"],
        agent_id=agent["id"],
        archive_id=archive["id"],
        passage_id=passage["id"],
        memory_id=passage["id"],
        folder_id=folder["id"],
        identity_id=identity["id"],
        file_id=file["id"],
        conversation_id=conversation["id"],
        run_id=run["id"],
        step_id=step["id"],
        message_id=message["id"],
        provider_id=provider["id"],
        sandbox_config_id=config["id"],
        environment_variable_id=variable["id"],
        mcp_server_id=mcp["id"],
        user_id=tenant.user_id,
        tool_name="secret_tool",
        block_label="human",
    )


def _identity(agent_id: str, block_id: str) -> dict[str, Any]:
    """Return an identity that everything belongs to."""
    told = {"properties": [{"key": MARK, "value": MARK, "type": "string"}], "identity_type": "user", "name": MARK}
    return {"identifier_key": MARK, **told, "agent_ids": [agent_id], "block_ids": [block_id]}


def _uploaded(http: httpx.Client, folder_id: str) -> dict[str, Any]:
    """Upload a file; return it once it was read and embedded, so that it stays as it is."""
    path = f"/v1/folders/{folder_id}"
    file = http.post(f"{path}/upload", files={"file": (f"{MARK}.txt", MARK.encode())}).json()
    while file["processing_status"] not in ("completed", "error"):
        time.sleep(0.05)
        file = http.get(f"{path}/files/{file['id']}").json()
    assert file["processing_status"] == "completed", file
    return dict(file)


def snapshot(tenant: Tenant) -> dict[str, Any]:
    """Return what a tenant owns as it is now."""
    http, agent_id = tenant.http, tenant.owned["agent_id"]
    paths = [
        *_IDS.values(),
        f"/v1/agents/{agent_id}",
        f"/v1/agents/{agent_id}/messages",
        f"/v1/agents/{agent_id}/tools",
        f"/v1/agents/{agent_id}/core-memory/blocks",
        f"/v1/archives/{tenant.owned['archive_id']}",
        f"/v1/folders/{tenant.owned['folder_id']}/files?include_content=true",
        f"/v1/folders/{tenant.owned['folder_id']}/passages",
        "/v1/tools/",
        "/v1/mcp-servers/",
        "/v1/sandbox-config/",
        f"/v1/sandbox-config/{tenant.owned['sandbox_config_id']}/environment-variable",
        "/v1/steps/",
    ]
    found = {}
    for path in paths:
        answer = http.get(path)
        assert answer.status_code == 200, f"{path}: {answer.text}"
        found[path] = answer.json()
    return found


def tenants(server: RunningServer, admin_secret: str, mcp_url: str) -> Iterator[tuple[Tenant, Tenant, httpx.Client]]:
    """Yield the victim, the intruder and an administrator."""
    with ExitStack() as stack:
        admin = stack.enter_context(client(server, admin_secret))
        victim = make_tenant(server, admin, "victims", stack)
        furnish(victim, mcp_url)
        yield victim, make_tenant(server, admin, "intruders", stack), admin
