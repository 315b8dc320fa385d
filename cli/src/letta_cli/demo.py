"""`letta demo`: two facts told over gRPC, the whole stack restarted, the facts asked for."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import typer
from grpc_health.v1 import health_pb2, health_pb2_grpc

from letta.agent.v1 import agent_service_pb2 as api
from letta.agent.v1 import agent_service_pb2_grpc
from letta_cli.agents import new_agent
from letta_cli.connection import CALL_SECONDS, connected
from letta_cli.console import fail, note, out, panel, say
from letta_cli.servers import engines
from letta_cli.talk.turns import ShownTurn, send
from letta_common.process.settings import Settings

GRPC_PORT, HTTP_PORT = 50051, 8283
START_SECONDS = 120.0
FACTS = "Hi! My name is Sam and I am allergic to peanuts."
QUESTIONS = ("What is my name?", "What am I allergic to?")
app = typer.Typer(add_completion=False)


@dataclass(frozen=True, slots=True)
class Address:
    """Where the demo's server listens."""

    grpc: int
    http: int

    @property
    def target(self) -> str:
        """The gRPC target."""
        return f"127.0.0.1:{self.grpc}"


@app.command()
def main() -> None:
    """Tell an agent two facts over gRPC, restart everything, and ask for them back."""
    address = Address(_port(GRPC_PORT), _port(HTTP_PORT))
    settings = Settings()
    with _server(address, "Starting Postgres and all services"):
        panel("Which model answers", [engines.banner(address.target, settings)])
        agent_id, taught = _teach(address.target)
    with _server(address, "Restarting the whole stack"), connected(address.target) as channel:
        asked = [_turn(channel, agent_id, question) for question in QUESTIONS]
        deterministic = not engines.default_engine(address.target, settings).language_model
    remembered = "Sam" in asked[0].said and "peanut" in asked[1].said.lower()
    # A language model may put its answers in other words; only the built-in engine is held to its own.
    if deterministic and not (remembered and taught.tools):
        fail("the agent did not remember; see the log above")
    _go_on(agent_id)


def _teach(target: str) -> tuple[str, ShownTurn]:
    with connected(target) as channel:
        stub = agent_service_pb2_grpc.AgentServiceStub(channel)
        request = new_agent("demo", None, "", "A helpful agent that remembers what it is told.")
        agent = stub.CreateAgent(request, timeout=CALL_SECONDS).agent
        note(f"made {agent.name} ({agent.id})")
        taught = _turn(channel, agent.id, FACTS)
        include = [api.AGENT_INCLUDE_BLOCKS]
        kept = stub.GetAgent(api.GetAgentRequest(agent_id=agent.id, include=include), timeout=CALL_SECONDS).agent
        human = next(block.value for block in kept.blocks if block.label == "human")
        panel("Its memory block `human` now", [human])
        return agent.id, taught


def _turn(channel: grpc.Channel, agent_id: str, text: str) -> ShownTurn:
    out.print()
    say(f"you> {text}", "bold")
    return send(channel, agent_id, text)


def _go_on(agent_id: str) -> None:
    here = Path(sys.executable).parent
    lines = ["make run", "  serves everything; then, in another terminal:", f"{_shown(here)}/letta chat {agent_id}"]
    if shutil.which("grpcurl"):
        lines.append(f"grpcurl -plaintext localhost:{GRPC_PORT} list")
    if shutil.which("buf"):
        call = f"http://localhost:{GRPC_PORT}/letta.agent.v1.AgentService/ListAgents"
        lines += ["buf curl --http2-prior-knowledge --protocol grpc -d '{}' \\", f"  {call}"]
    lines += [
        f"curl localhost:{HTTP_PORT}/v1/agents/",
        "pip install letta-client, and in Python:",
        f'  Letta(base_url="http://localhost:{HTTP_PORT}", api_key="any")',
    ]
    panel("It remembered across a restart. Go on", lines)


def _shown(path: Path) -> str:
    """Return a path as it is typed here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


@contextmanager
def _server(address: Address, why: str) -> Iterator[None]:
    """Run `letta server --dev` for the length of the block."""
    begun = time.monotonic()
    note(f"{why} ...")
    command = [sys.executable, "-m", "letta_cli", "server", "--dev", "--no-banner"]
    ports = ["--port", str(address.http), "--grpc-port", str(address.grpc)]
    variables = {**os.environ, "LETTA_LOG_LEVEL": "warning"}
    process = subprocess.Popen([*command, *ports], env=variables, stdin=subprocess.DEVNULL)
    try:
        _wait(address.target, process)
        note(f"{why}: healthy after {time.monotonic() - begun:.1f} s (pid {process.pid})")
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
