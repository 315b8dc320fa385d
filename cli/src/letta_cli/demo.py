"""`letta demo`: two facts told over gRPC, the whole stack restarted, the facts asked for."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from letta.agent.v1 import agent_service_pb2 as api
from letta.agent.v1 import agent_service_pb2_grpc
from letta.llm.v1 import model_service_pb2, model_service_pb2_grpc
from letta_cli.agents import CALL_SECONDS, new_agent
from letta_cli.connection import connected
from letta_cli.console import err, fail, out, panel
from letta_cli.turns import Turn, send
from letta_common.actor_context import service_identity
from letta_common.settings import Settings

GRPC_PORT, HTTP_PORT = 50051, 8283
START_SECONDS = 120.0
FACTS = "Hi! My name is Sam and I am allergic to peanuts."
QUESTIONS = ("What is my name?", "What am I allergic to?")
HINT = "Talk to it: letta chat"


@dataclass(frozen=True, slots=True)
class Address:
    """Where the demo's server listens."""

    grpc: int
    http: int

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"127.0.0.1:{self.grpc}"


def main() -> None:
    """Run the demo; exit with status 1 when an engine of `builtin/` forgot."""
    address = Address(_port(GRPC_PORT), _port(HTTP_PORT))
    settings = Settings()
    with _server(address, "Starting Postgres and all services"):
        panel("Which model answers", [engine_banner(address.target, settings)])
        agent_id, told = _tell(address.target)
    with _server(address, "Restarting the whole stack"), connected(address.target) as channel:
        asked = [_turn(channel, agent_id, question) for question in QUESTIONS]
        deterministic = not _engine(address.target, settings).language_model
    remembered = "Sam" in asked[0].said and "peanut" in asked[1].said.lower()
    if deterministic and not (remembered and told.tools):
        fail("the agent did not remember; see the log above")
    _go_on(agent_id)


def engine_banner(target: str, settings: Settings) -> str:
    """Say which model answers by default, and why."""
    engine = _engine(target, settings)
    return engine.banner or f"{engine.handle}: {engine.reason}"


def _engine(target: str, settings: Settings) -> model_service_pb2.GetDefaultModelResponse:
    identity = (("x-letta-service-bin", service_identity("cli", settings.secret())),)
    with connected(target) as channel:
        stub = model_service_pb2_grpc.ModelServiceStub(channel)
        request = model_service_pb2.GetDefaultModelRequest()
        return stub.GetDefaultModel(request, timeout=CALL_SECONDS, metadata=identity)


def _tell(target: str) -> tuple[str, Turn]:
    with connected(target) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        request = new_agent("demo", None, "", "A helpful agent that remembers what it is told.")
        agent = stub.CreateAgent(request, timeout=CALL_SECONDS).agent
        err.print(f"[dim]made {agent.name} ({agent.id})[/dim]")
        told = _turn(channel, agent.id, FACTS)
        include = [api.AGENT_INCLUDE_BLOCKS]
        kept = stub.GetAgent(api.GetAgentRequest(agent_id=agent.id, include=include), timeout=CALL_SECONDS).agent
        human = next(block.value for block in kept.blocks if block.label == "human")
        panel("Its memory block `human` now", [human])
        return agent.id, told


def _turn(channel: grpc.Channel, agent_id: str, text: str) -> Turn:
    out.print(f"\n[bold]you>[/bold] {text}")
    return send(channel, agent_id, text)


def _go_on(agent_id: str) -> None:
    panel(
        "It remembered across a restart. Go on",
        [
            "make run                      serve everything, then in another terminal:",
            f"letta chat {agent_id}   (in .venv/bin)",
            f"grpcurl -plaintext localhost:{GRPC_PORT} list",
            "buf curl --http2-prior-knowledge --protocol grpc -d '{}' \\",
            f"  http://localhost:{GRPC_PORT}/letta.agent.v1.AgentService/ListAgents",
            f"curl localhost:{HTTP_PORT}/v1/agents/",
            f'letta-client: Letta(base_url="http://localhost:{HTTP_PORT}", api_key="any")',
        ],
    )


@contextmanager
def _server(address: Address, why: str) -> Iterator[None]:
    """Run `letta server --dev` for the length of the block."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "letta_cli", "server", "--dev", "--quiet"]
    ports = ["--port", str(address.http), "--grpc-port", str(address.grpc)]
    variables = {**os.environ, "LETTA_LOG_LEVEL": "warning"}
    process = subprocess.Popen([*command, *ports], env=variables, stdin=subprocess.DEVNULL)
    try:
        with err.status(f"{why} ..."):
            _wait(address.target, process)
        err.print(f"[dim]{why}: healthy after {time.monotonic() - begun:.1f} s (pid {process.pid})[/dim]")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _wait(target: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + START_SECONDS
    with grpc.insecure_channel(target, [("grpc.max_reconnect_backoff_ms", 100)]) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="letta.agent.v1.AgentService")
        while time.monotonic() < end:
            if process.poll() is not None:
                fail("the server did not start; the reason stands above")
            try:
                if stub.Check(request, timeout=1).status == health_pb2.HealthCheckResponse.SERVING:
                    return
            except grpc.RpcError:
                time.sleep(0.05)
    fail(f"the server was not healthy after {START_SECONDS:.0f} s; what it said stands above")


def _port(preferred: int) -> int:
    """Return the port if nobody listens there, else any free one."""
    with socket.socket() as probe, socket.socket() as spare:
        try:
            probe.bind(("127.0.0.1", preferred))
        except OSError:
            spare.bind(("127.0.0.1", 0))
            return int(spare.getsockname()[1])
        return preferred
