"""grpcurl, a client that knows nothing of this product, lists, describes and calls the server by reflection."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

VERSION = "v1.9.3"
BUILD_SECONDS = 900
SERVICES = (
    "grpc.health.v1.Health",
    "letta.agent.v1.AgentService",
    "letta.agent.v1.RunService",
    "letta.auth.v1.APIKeyService",
    "letta.llm.v1.ModelService",
    "letta.memory.v1.BlockService",
    "letta.tools.v1.ToolService",
)
Grpcurl = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build grpcurl with Go's own client."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go here to build grpcurl with")
    place = tmp_path_factory.mktemp("grpcurl")
    module = f"github.com/fullstorydev/grpcurl/cmd/grpcurl@{VERSION}"
    done = subprocess.run(
        [go, "install", module],
        env={**os.environ, "GOBIN": str(place)},
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if "dial tcp" in done.stderr:
        pytest.skip("Go modules cannot be fetched here")
    assert done.returncode == 0, done.stderr
    return place / "grpcurl"


@pytest.fixture(scope="module")
def grpcurl(binary: Path, server) -> Grpcurl:
    def call(*arguments: str, data: str = "") -> subprocess.CompletedProcess[str]:
        flags = ["-plaintext", *(["-d", data] if data else [])]
        return subprocess.run(
            [str(binary), *flags, server.grpc_address, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return call


def answer(done: subprocess.CompletedProcess[str]) -> dict:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_it_lists_services(grpcurl):
    listed = grpcurl("list").stdout.split()

    assert set(SERVICES) <= set(listed)


def test_it_describes_a_method(grpcurl):
    described = grpcurl("describe", "letta.agent.v1.RunService.StreamMessage").stdout

    assert "returns ( stream .letta.agent.v1.StreamMessageResponse )" in described


def test_it_makes_an_agent_and_talks_to_it(grpcurl):
    block = {"label": "human", "value": ""}
    body = json.dumps({"agent": {"model": "builtin/rules"}, "memory_blocks": [block]})
    agent = answer(grpcurl("letta.agent.v1.AgentService/CreateAgent", data=body))["agent"]

    message = json.dumps({"agent_id": agent["id"], "run": {"input_text": "My name is Sam."}})
    sent = answer(grpcurl("letta.agent.v1.RunService/SendMessage", data=message))

    assert any("assistantMessage" in one for one in sent["messages"])
    streamed = grpcurl("letta.agent.v1.RunService/StreamMessage", data=message)
    assert "assistantMessage" in streamed.stdout


def test_an_error_carries_its_reason(grpcurl):
    request = json.dumps({"agent_id": "agent-00000000-0000-4000-8000-0000000000aa"})

    failed = grpcurl("letta.agent.v1.AgentService/GetAgent", data=request)

    assert failed.returncode != 0
    assert "Code: NotFound" in failed.stderr
    assert "AGENT_NOT_FOUND" in failed.stderr


def test_an_internal_method_is_unimplemented(grpcurl):
    failed = grpcurl("letta.memory.v1.ContextService/BeginStep", data="{}")

    assert "Code: Unimplemented" in failed.stderr


def test_the_server_is_healthy(grpcurl):
    request = json.dumps({"service": "letta.memory.v1.BlockService"})

    assert answer(grpcurl("grpc.health.v1.Health/Check", data=request))["status"] == "SERVING"
