"""What a server does while the things it needs are gone."""

from __future__ import annotations

import os
import signal
import tempfile
import time
from pathlib import Path

import httpx

from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from tests.servers import letta_server

RECOVERY_SECONDS = 30.0
CLOSED_PORT = "http://127.0.0.1:9/v1"


def until(check, seconds: float = RECOVERY_SECONDS):
    """Repeat a check until it holds; what it returned last is the failure's explanation."""
    end = time.monotonic() + seconds
    while True:
        found, ok = check()
        if ok or time.monotonic() > end:
            assert ok, found
            return found
        time.sleep(0.1)


def test_a_provider_that_is_down_is_a_typed_error(databases):
    url = databases.clone(["auth", "agent", "memory", "tools", "llm"])
    variables = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": CLOSED_PORT, "LETTA_ATTEMPTS": "1"}
    with letta_server(url, environment=variables) as server, httpx.Client(base_url=server.http_url, timeout=60) as http:
        agent = http.post("/v1/agents/", json={"model": "openai-proxy/gpt-4o-mini"})
        if agent.status_code == 404:  # the handle cannot be looked up while the provider is down
            agent = http.post("/v1/agents/", json={"model": "builtin/rules"})
        agent_id = agent.json()["id"]
        body = {"input": "Remember me.", "override_model": "openai-proxy/gpt-4o-mini"}
        answer = http.post(f"/v1/agents/{agent_id}/messages", json=body)
        assert answer.status_code in (404, 503), answer.text
        assert http.get("/v1/health/").status_code == 200


def test_the_server_outlives_postgres():
    with tempfile.TemporaryDirectory(prefix="letta-down-") as scratch:
        postgres = EmbeddedPostgres(Path(scratch) / "pg", PostgresOptions(durable=False, restart=False))
        postgres.start()
        try:
            with letta_server(postgres.dsn()) as server, httpx.Client(base_url=server.http_url, timeout=60) as http:
                agent_id = http.post("/v1/agents/", json={"model": "builtin/rules"}).json()["id"]
                assert http.post(f"/v1/agents/{agent_id}/messages", json={"input": "hi"}).status_code == 200
                postgres.stop()
                down = http.get(f"/v1/agents/{agent_id}")
                assert down.status_code == 503, down.text
                assert "detail" in down.json()
                _ask_while_away(http, agent_id, (postgres.dsn(), scratch))
                postgres.start()

                def recovered():
                    answer = http.post(f"/v1/agents/{agent_id}/messages", json={"input": "hello again"})
                    return answer.text, answer.status_code == 200

                until(recovered)
                listed = http.get(f"/v1/agents/{agent_id}/messages", params={"order": "asc"}).json()
                assert "hi" in [message.get("content") for message in listed]
        finally:
            postgres.stop()


def _ask_while_away(http: httpx.Client, agent_id: str, secrets: tuple[str, ...]) -> None:
    """Ask in every way that has an answer of its own; none tells where the database is."""
    message = {"input": "are you there?"}
    answers = [
        http.get("/v1/agents/"),
        http.get("/v1/tools/"),
        http.get("/v1/blocks/"),
        http.get("/v1/providers/"),
        http.get("/v1/runs/"),
        http.get("/v1/health/"),
        http.get("/v1/ready/"),
        http.post(f"/v1/agents/{agent_id}/messages", json=message),
        http.post(f"/v1/agents/{agent_id}/messages/stream", json=message),
        http.post("/rpc/letta.agent.v1.AgentService/ListAgents", json={}),
        http.post("/rpc/letta.agent.v1.RunService/StreamMessage", json={"agentId": agent_id, "run": message}),
    ]
    words = (*secrets, ".s.PGSQL", "socket", "connection to server", "127.0.0.1", "localhost", "port ")
    for answer in answers:
        shown = answer.text + str(answer.headers)
        assert not [word for word in words if word in shown], (answer.request.url, shown)


def test_killing_the_server_leaves_nothing_running_and_loses_nothing():
    with tempfile.TemporaryDirectory(prefix="letta-kill-") as home:
        variables = {"LETTA_DATABASE_URL": "", "LETTA_HOME": home}
        with letta_server("", environment=variables) as server:
            with httpx.Client(base_url=server.http_url, timeout=60) as http:
                agent_id = http.post("/v1/agents/", json={"model": "builtin/rules"}).json()["id"]
                told = http.post(f"/v1/agents/{agent_id}/messages", json={"input": "My name is Sam."})
                assert told.status_code == 200
            os.kill(server.process.pid, signal.SIGKILL)
            server.process.wait(10)
            until(lambda: (_processes_in(home), not _processes_in(home)))
        with (
            letta_server("", environment=variables) as server,
            httpx.Client(base_url=server.http_url, timeout=60) as http,
        ):
            listed = http.get(f"/v1/agents/{agent_id}/messages", params={"order": "asc"}).json()
            assert "My name is Sam." in [message.get("content") for message in listed]


def _processes_in(home: str) -> list[str]:
    """Return the command lines that name the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if home in command:
                found.append(command)
    return found
