"""Health follows the database: of each service over gRPC, and of the deployment over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from tests.callers import SCHEMAS
from tests.servers import RunningServer, letta_server
from tests.support.databases import Databases

SERVED = ("", "letta.agent.v1.AgentService", "letta.memory.v1.BlockService", "letta.auth.v1.APIKeyService")
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
PATIENCE_SECONDS = 60.0


@pytest.fixture(scope="module")
def own_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """A server that this module may end."""
    server = EmbeddedPostgres(tmp_path_factory.mktemp("pg") / "pg", PostgresOptions(durable=False, restart=False))
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def running(own_postgres: EmbeddedPostgres) -> Iterator[RunningServer]:
    url = Databases(own_postgres).clone(SCHEMAS)
    with letta_server(url, environment={"LETTA_HEALTH_SECONDS": "0.1"}) as server:
        yield server


def health(server: RunningServer) -> set[int]:
    with grpc.insecure_channel(server.grpc_address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        return {stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10).status for name in SERVED}


def ready(server: RunningServer) -> httpx.Response:
    return httpx.get(f"{server.http_url}/v1/ready/", timeout=10)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_health_goes_and_comes_with_the_database(own_postgres: EmbeddedPostgres, running: RunningServer) -> None:
    until(lambda: health(running) == {SERVING} and ready(running).status_code == 200)
    own_postgres.stop()
    until(lambda: health(running) == {NOT_SERVING})
    answer = ready(running)

    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["status"] == "not_serving"
    assert httpx.get(f"{running.http_url}/v1/health/", timeout=10).status_code == 200

    own_postgres.start()
    until(lambda: health(running) == {SERVING} and ready(running).status_code == 200)
    log = Path(running.home / "server.log").read_text()
    assert log.count("it is not serving") == len(SCHEMAS)
