"""Servers as processes of their own, for tests that come from outside."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import httpx
from grpc_health.v1 import health_pb2, health_pb2_grpc

HEALTHY_SECONDS = 300.0  # a busy machine takes long to start seven services; what does not start ends by itself
_HELD_PORTS = 60  # more than one process has in use at a time, and few of the 1,333 that there are
_held_ports: deque[int] = deque()


@dataclass(slots=True)
class RunningServer:
    """A server that answers."""

    process: subprocess.Popen[bytes]
    http_port: int
    grpc_port: int
    home: Path

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.grpc_port}"


def free_port() -> int:
    """Return a port that nobody listens on, nor on the eight after it; outside of those that outgoing calls take.

    For the next calls of this process no other one gets them: two servers of one port would share what they are asked.
    """
    while True:
        first = random.randrange(20_000, 32_000, 9)
        held = os.open(Path(tempfile.gettempdir()) / f"letta-test-port-{first}", os.O_CREAT | os.O_RDWR, 0o666)
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for port in range(first, first + 9):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            os.close(held)
            continue
        _held_ports.append(held)
        if len(_held_ports) > _HELD_PORTS:
            os.close(_held_ports.popleft())
        return first


@contextmanager
def letta_server(
    database_url: str,
    *,
    command: str = "server",
    workers: int = 1,
    dev: bool = True,
    environment: Mapping[str, str] | None = None,
    healthy: bool = True,
) -> Iterator[RunningServer]:
    """Run `letta server` (or `letta up`) on a database, wait until it is `healthy`, and end it with the block."""
    with tempfile.TemporaryDirectory(prefix="letta-home-") as home:
        http_port, grpc_port = free_port(), free_port()
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("OPENAI", "ANTHROPIC"))},
            "LETTA_HOME": home,
            "LETTA_DATABASE_URL": database_url,
            "LETTA_LOG_LEVEL": "warning",
            **(environment or {}),
        }
        flags = ["--port", str(http_port), "--grpc-port", str(grpc_port), *(["--dev"] if dev else [])]
        flags += ["--workers", str(workers)] if workers > 1 else []
        with (Path(home) / "server.log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "letta_cli", command, *flags], env=variables, stdout=log, stderr=log
            )
            running = RunningServer(process, http_port, grpc_port, Path(home))
            try:
                if healthy:
                    wait_until_healthy(running)
                yield running
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(30)


def wait_until_healthy(running: RunningServer) -> None:
    """Wait for the agent service over gRPC, and for the gateway to have seen every service behind it."""
    end = time.monotonic() + HEALTHY_SECONDS
    with grpc.insecure_channel(running.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="letta.agent.v1.AgentService")
        while time.monotonic() < end:
            if running.process.poll() is not None:
                raise AssertionError((running.home / "server.log").read_text())
            try:
                serving = stub.Check(request, timeout=1).status == health_pb2.HealthCheckResponse.SERVING
                ready = httpx.get(f"{running.http_url}/v1/ready/", timeout=5, trust_env=False).status_code == 200
                if serving and ready:
                    return
            except (grpc.RpcError, httpx.HTTPError):
                pass
            time.sleep(0.05)
    raise AssertionError((running.home / "server.log").read_text())
