"""Several processes that serve everything on the same ports."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import psutil
import pytest

from letta_auth.domain.api_keys import PREFIX
from tests.callers import SCHEMAS
from tests.servers import RunningServer, free_port, letta_server
from tests.support.process_trees import descendants, forked_from, is_running, origins

WORKERS = 2
SECONDS = 60.0


@pytest.fixture(scope="module")
def server(databases) -> Iterator[RunningServer]:
    with letta_server(databases.clone(SCHEMAS), workers=WORKERS) as running:
        wait_for_workers(running)
        yield running


def workers(running: RunningServer) -> set[int]:
    """Return the workers that listen for HTTP."""
    return {
        pid
        for origin in origins(running.process.pid)
        for pid, name in forked_from(origin)
        if name.startswith("letta_worker") and has_socket(pid, psutil.CONN_LISTEN, running.http_port)
    }


def has_socket(pid: int, status: str, port: int) -> bool:
    try:
        sockets = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return False
    return any(one.status == status and one.laddr[1] == port for one in sockets)


def wait_for_workers(running: RunningServer, but: Collection[int] = ()) -> set[int]:
    """Wait until all workers listen and none of them is one of `but`."""
    end = time.monotonic() + SECONDS
    while len(found := workers(running).difference(but)) < WORKERS:
        assert time.monotonic() < end, (running.home / "server.log").read_text()[-2000:]
        time.sleep(0.05)
    return found


def reach_all(running: RunningServer, stack: ExitStack) -> list[httpx.Client]:
    """Open connections until every worker has one; return a client for each connection."""
    clients: list[httpx.Client] = []
    for _ in range(200):
        clients.append(stack.enter_context(httpx.Client(base_url=running.http_url, timeout=60)))
        assert clients[-1].get("/v1/health/").status_code == 200
        if all(has_socket(pid, psutil.CONN_ESTABLISHED, running.http_port) for pid in workers(running)):
            return clients
    raise AssertionError("some worker gets no connection")


def test_every_worker_serves_what_any_of_them_was_told(server):
    with ExitStack() as stack:
        clients = reach_all(server, stack)
        agent_id = new_agent(clients[0])
        for number, client in enumerate(clients):
            answer = client.post(f"/v1/agents/{agent_id}/messages", json={"input": f"Message {number}."})
            assert answer.status_code == 200, answer.text
        told = [said(client, agent_id) for client in clients]
    assert told == [[f"Message {number}." for number in range(len(clients))]] * len(clients)


def test_a_killed_worker_comes_back_and_nothing_acknowledged_is_lost(server):
    before = workers(server)
    with httpx.Client(base_url=server.http_url, timeout=60) as client:
        agents = [new_agent(client) for _ in range(4)]
    acknowledged: dict[str, list[str]] = {agent_id: [] for agent_id in agents}
    stop = threading.Event()

    def talk(agent_id: str) -> None:
        number = 0
        while not stop.is_set():
            number += 1
            try:
                answer = httpx.post(
                    f"{server.http_url}/v1/agents/{agent_id}/messages", json={"input": f"Message {number}."}, timeout=60
                )
            except httpx.TransportError:
                continue
            if answer.status_code == 200:
                acknowledged[agent_id].append(f"Message {number}.")

    killed = min(before)
    with ExitStack() as stack:
        for agent_id in agents:
            thread = threading.Thread(target=talk, args=(agent_id,))
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        os.kill(killed, signal.SIGKILL)
        wait_for_workers(server, {killed})
        marks = {agent_id: len(texts) for agent_id, texts in acknowledged.items()}
        end = time.monotonic() + SECONDS
        while any(len(texts) < marks[agent_id] + 2 for agent_id, texts in acknowledged.items()):
            assert time.monotonic() < end, acknowledged
            time.sleep(0.05)

    assert before - {killed} < workers(server)
    with httpx.Client(base_url=server.http_url, timeout=60) as client:
        for agent_id, texts in acknowledged.items():
            kept = said(client, agent_id)
            assert [text for text in kept if text in texts] == texts
            assert len(kept) == len(set(kept))


def test_a_second_server_on_their_ports_is_refused(server):
    ports = ["--port", str(server.http_port), "--grpc-port", str(server.grpc_port)]
    for more in ([], ["--workers", "2"]):
        done = subprocess.run(
            [sys.executable, "-m", "letta_cli", "server", "--dev", *ports, *more],
            env=os.environ | {"LETTA_HOME": str(server.home)},
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
        )
        assert done.returncode == 1
        assert f"cannot listen on 127.0.0.1:{server.grpc_port}: another program listens there" in done.stderr


def test_one_service_has_no_workers():
    command = [sys.executable, "-m", "letta_cli", "server", "memory", "--workers", "2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=SECONDS)
    assert (done.returncode, "--workers goes with all services" in done.stderr) == (1, True)


def test_the_first_key_is_made_once_and_each_worker_is_watched_on_a_port_of_its_own(databases):
    first = free_port()
    variables = {"LETTA_METRICS_BIND": f"127.0.0.1:{first}"}
    with letta_server(databases.clone(SCHEMAS), dev=False, workers=WORKERS, environment=variables) as running:
        wait_for_workers(running)
        for place in range(WORKERS):
            assert "python_info" in httpx.get(f"http://127.0.0.1:{first + place}/metrics").text
        end = time.monotonic() + SECONDS
        while not (keys := re.findall(rf"{PREFIX}\w+", (running.home / "server.log").read_text())):
            assert time.monotonic() < end, "no worker tells the first key"
            time.sleep(0.05)
        assert len(keys) == 1
        found = httpx.get(f"{running.http_url}/v1/agents/", headers={"Authorization": f"Bearer {keys[0]}"})
        assert found.status_code == 200, found.text


def test_the_end_leaves_nothing_running(server):
    """Comes last: it ends the workers of this module."""
    left = descendants(server.process.pid)
    assert workers(server) <= set(left)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(SECONDS) == 0
    end = time.monotonic() + SECONDS
    while left := [pid for pid in left if is_running(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.1)
    assert "Traceback" not in Path(server.home / "server.log").read_text()


def new_agent(client: httpx.Client) -> str:
    answer = client.post("/v1/agents/", json={"model": "builtin/rules", "memory_blocks": []})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def said(client: httpx.Client, agent_id: str) -> list[str]:
    found = client.get(f"/v1/agents/{agent_id}/messages", params={"order": "asc", "limit": 1000})
    assert found.status_code == 200, found.text
    return [one["content"] for one in found.json() if one["message_type"] == "user_message"]
