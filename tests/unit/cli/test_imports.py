"""What a command loads: never what only servers need, so that it answers at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

OF_SERVERS = (
    "alembic",
    "anthropic",
    "google.genai",
    "grpc._server",
    "grpc_health.v1",
    "grpc_reflection.v1alpha",
    "letta_agent",
    "letta_auth",
    "letta_embedded_postgres",
    "letta_gateway",
    "letta_llm_gateway",
    "letta_memory",
    "letta_rpc.boundary",
    "letta_rpc.server",
    "letta_rpc.service",
    "letta_sandbox",
    "letta_tool_schemas",
    "letta_tools",
    "mcp",
    "numpy",
    "onnxruntime",
    "openai",
    "opentelemetry",
    "protovalidate",
    "psycopg",
    "pydantic_settings",
    "sqlalchemy",
    "structlog",
    "uvicorn",
    "uvloop",
)
OF_CALLS = ("grpc", "google.protobuf", "letta.agent")
OF_TALKS = ("prompt_toolkit",)
RUN = """
import json, sys
sys.argv = ["letta", *json.loads(sys.argv[1])]
from letta_cli.app import main
try:
    main()
except SystemExit:
    pass
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def loaded(*arguments: str) -> set[str]:
    variables = {**os.environ, "LETTA_AGENT_ADDRESS": "127.0.0.1:1"}
    command = [sys.executable, "-c", RUN, json.dumps(arguments)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def of(modules: set[str], names: tuple[str, ...]) -> set[str]:
    return {module for module in modules if any(module == name or module.startswith(f"{name}.") for name in names)}


@pytest.mark.parametrize("arguments", [["--version"], ["--help"], ["nonsense"]], ids=" ".join)
def test_what_calls_nobody_loads_no_grpc(arguments: list[str]):
    assert of(loaded(*arguments), (*OF_SERVERS, *OF_CALLS, *OF_TALKS)) == set()


@pytest.mark.parametrize(
    "arguments",
    [
        ["agents", "list"],
        ["agents", "create"],
        ["agents", "show", "sam"],
        ["agents", "delete", "sam"],
        ["agents", "--help"],
        ["keys", "create", "name"],
        ["keys", "list"],
        ["keys", "delete", "name"],
        ["keys", "--help"],
        ["chat", "--help"],
        ["chat", "sam", "-m", "Hi."],
    ],
    ids=" ".join,
)
def test_what_calls_a_server_loads_no_part_of_one(arguments: list[str]):
    modules = loaded(*arguments)
    assert of(modules, (*OF_SERVERS, *OF_TALKS)) == set()
    assert "grpc" in modules


def test_what_keeps_servers_running_loads_none_of_them():
    """`letta up` and `--workers` keep it beside everything, for as long as that runs."""
    code = "import json, sys, letta_cli.servers.commands; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    services = ("letta_agent", "letta_auth", "letta_gateway", "letta_llm_gateway", "letta_memory", "letta_tools")
    assert of(set(json.loads(done.stdout)), (*OF_CALLS, *services, "alembic", "sqlalchemy")) == set()
