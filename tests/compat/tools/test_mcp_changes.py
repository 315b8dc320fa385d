"""What a change of an MCP server over REST keeps, replaces and refuses."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.compat.tools.test_mcp_legacy_routes import SERVERS, client, url

__all__ = ["client", "url"]
V1, OLDER = "/v1/mcp-servers/", "/v1/tools/mcp/servers"
ALL = {"authorization": "secret", "x-colour": "blue"}
SECRETS = {"auth_token": "secret", "custom_headers": {"x-colour": "blue"}}
DOWN = "http://127.0.0.1:1/mcp"
CHANGES: list[tuple[dict[str, Any], dict[str, str]]] = [
    ({}, ALL),
    ({"server_url": None, "auth_header": None, "auth_token": None, "custom_headers": None}, ALL),
    ({"custom_headers": {}}, ALL),
    ({"server_url": ""}, ALL),
    ({"auth_token": "********"}, ALL),
    ({"auth_header": "x-key"}, {"x-key": "secret", "x-colour": "blue"}),
    ({"custom_headers": {"x-colour": "********"}}, ALL),
    ({"custom_headers": {"x-shape": "round"}}, {"authorization": "secret", "x-shape": "round"}),
    ({"auth_token": ""}, {"x-colour": "blue"}),
]
"""What a request changes of a server, and the headers that the server gets then."""
PROGRAM = {"command": sys.executable, "args": [str(SERVERS / "mcp_demo_server.py"), "stdio"]}
REFUSED: list[dict[str, Any]] = [
    {},
    {"server_name": None},
    {"server_name": "changing", "config": None},
    {"server_name": "changing", "config": {}},
    {"server_name": "", "config": {"mcp_server_type": "sse", "server_url": DOWN}},
    {"server_name": "n" * 129, "config": {"mcp_server_type": "sse", "server_url": DOWN}},
    {"server_name": "changing", "config": {"mcp_server_type": "other"}},
    {"server_name": "changing", "config": {"server_url": DOWN}},
    *(
        {"server_name": "changing", "config": {"mcp_server_type": kind, **values}}
        for kind, values in (
            ("sse", {}),
            ("stdio", {}),
            ("sse", {"server_url": "http://10.0.0.1/sse"}),
            ("sse", {"server_url": DOWN, "auth_token": 1}),
            ("sse", {"server_url": DOWN, "auth_header": "h" * 257}),
            ("sse", {"server_url": DOWN, "custom_headers": {"x y": "z"}}),
            ("stdio", {"command": "/bin/true", "env": {"A=B": "c"}}),
        )
    ),
]
"""Servers that nobody can add."""
MOVED: list[dict[str, Any]] = [
    {"server_url": "http://localhost:1/mcp"},
    {"server_url": "http://localhost:1/mcp", "auth_token": "new", "custom_headers": {"x-colour": "********"}},
    {"server_url": "http://10.0.0.1/mcp", "auth_token": "", "custom_headers": {"x-colour": ""}},
    {"auth_header": "X A", "auth_token": "new"},
    {"custom_headers": {"x y": "z"}},
]
"""Changes that are refused."""


def add(client: httpx.Client, kind: str, **config: Any) -> str:
    """Add a server called `changing`; return its path."""
    made = client.post(V1, json={"server_name": "changing", "config": {"mcp_server_type": kind, **config}})
    assert made.status_code == 200, made.text
    return f"{V1}{made.json()['id']}"


def run(client: httpx.Client, name: str, tool: str) -> dict[str, str]:
    ran = client.post(f"{OLDER}/{name}/tools/{tool}/execute", json={"args": {}})
    found: dict[str, str] = json.loads(ran.json()["result"])
    return found


def flat(body: dict[str, Any]) -> dict[str, Any]:
    """Return a body of the newer paths as the older ones take it."""
    told = {"type" if key == "mcp_server_type" else key: each for key, each in (body.get("config") or {}).items()}
    return {key: each for key, each in body.items() if key != "config"} | told


@pytest.fixture(autouse=True)
def _none_is_left(client: httpx.Client) -> Iterator[None]:
    yield
    for server in client.get(V1).json():
        client.delete(f"{V1}{server['id']}")


@pytest.mark.parametrize("older", [False, True], ids=["by id", "by name"])
def test_a_change_leaves_what_it_does_not_give(client, url, older):
    path = add(client, "streamable_http", server_url=url, **SECRETS)

    for number, (change, expected) in enumerate(CHANGES):
        name = f"changed_{number}"
        if older:
            before = "changing" if not number else f"changed_{number - 1}"
            answer = client.patch(f"{OLDER}/{before}", json={"server_name": name, **change})
        else:
            config = {"mcp_server_type": "streamable_http", **change}
            answer = client.patch(path, json={"server_name": name, "config": config})
        sent = run(client, name, "headers")
        restored = client.patch(
            path, json={"config": {"mcp_server_type": "streamable_http", "auth_header": "authorization", **SECRETS}}
        )

        assert (answer.status_code, answer.json()["server_name"]) == (200, name)
        assert {key: sent[key] for key in (*ALL, "x-key", "x-shape") if key in sent} == expected, change
        assert restored.status_code == 200


def test_a_put_leaves_what_it_does_not_give(client, url):
    put = {"server_name": "changing", "type": "streamable_http", "server_url": url}
    assert client.put(OLDER, json=put | SECRETS).status_code == 200

    assert client.put(OLDER, json=put | {"auth_token": None, "custom_headers": {"x-shape": "round"}}).is_success

    sent = run(client, "changing", "headers")
    assert {key: sent[key] for key in (*ALL, "x-shape") if key in sent} == {
        "authorization": "secret",
        "x-shape": "round",
    }


def test_servers_that_nobody_can_add(client):
    for body in REFUSED:
        given = flat(body)
        asked = ((V1, body), (f"{OLDER}/test", given), (f"{OLDER}/connect", given))
        answers = [client.put(OLDER, json=given), *(client.post(path, json=each) for path, each in asked)]

        assert {answer.status_code for answer in answers} <= {200, 400, 422, 502}, body
    assert client.get(V1).json() == []


def test_changes_that_are_refused(client, url):
    path = add(client, "streamable_http", server_url=url, **SECRETS)
    moved = [{"config": {"mcp_server_type": "streamable_http", **change}} for change in MOVED]

    for body in (*REFUSED, *moved):
        given = {key: each for key, each in flat(body).items() if key != "type"}
        put = {"server_name": "changing", **flat(body)}
        for answer in (
            client.patch(path, json=body),
            client.patch(f"{OLDER}/changing", json={**given, "server_name": "changing"}),
            client.put(OLDER, json=put),
            client.patch(f"{OLDER}/changing", json={"stdio_config": given}),
        ):
            assert answer.status_code in {200, 400, 422}, body

    sent = run(client, "changing", "headers")
    assert {key: sent[key] for key in ALL} == ALL


def test_changes_of_a_program(client):
    path = add(client, "stdio", **PROGRAM, env={"A": "a"})
    more = [*PROGRAM["args"], "more"]
    for change in (
        {"command": "/bin/true"},
        {"args": ["x"]},
        {"env": {}},
        {"command": None, "args": None, "env": None},
        {"args": [], "env": {"A=B": "c"}},
        {"command": "", "env": {"A": "********"}},
        {"args": more, "env": {"A": "********"}},
        {"args": more, "env": {"A": "new"}},
    ):
        for asked in (
            client.patch(path, json={"config": {"mcp_server_type": "stdio", **change}}),
            client.patch(f"{OLDER}/changing", json={"stdio_config": change, "server_url": DOWN}),
            client.put(OLDER, json={"server_name": "changing", "type": "stdio", **change}),
        ):
            assert asked.status_code in {200, 422}, change
        seen = run(client, "changing", "environment")
        assert seen["A"] == ("new" if change.get("env") == {"A": "new"} else "a"), change
