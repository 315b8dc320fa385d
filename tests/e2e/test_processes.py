"""Every service in a process of its own; each is killed in turn."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator

import grpc
import httpx
import pytest

from letta.agent.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from tests.callers import SCHEMAS
from tests.servers import RunningServer, letta_server
from tests.support.process_trees import descendants, forked_from, is_running, origins

SERVICES = ("memory", "tools", "llm_gateway", "agent", "auth", "gateway")
RECOVERY_SECONDS = 60.0
INSERT = 'CALL memory_insert {{"label": "human", "new_string": "{}"}}'
TYPED = {404, 409, 429, 502, 503, 504}


@pytest.fixture(scope="module")
def up(databases) -> Iterator[RunningServer]:
    variables = {"LETTA_AGENT_LEASE_MS": "2000", "LETTA_AGENT_DISPATCH_SECONDS": "0.2"}
    with letta_server(databases.clone(SCHEMAS), command="up", environment=variables) as running:
        wait_until_ready(running)
        yield running


@pytest.fixture(scope="module")
def http(up) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=up.http_url, timeout=60) as client:
        yield client


def wait_until_ready(up: RunningServer) -> None:
    """Wait until the gateway has seen every service."""
    end = time.monotonic() + RECOVERY_SECONDS
    while True:
        try:
            answer = httpx.get(f"{up.http_url}/v1/ready", timeout=5)
            if answer.status_code == 200:
                return
            said = answer.text
        except httpx.TransportError as error:
            said = repr(error)
        assert time.monotonic() < end, said
        time.sleep(0.05)


def children(up: RunningServer) -> dict[str, int]:
    """Return the process of each service; none while there is no process that they fork from, or two."""
    found = origins(up.process.pid)
    names = {f"letta_{service}"[:15]: service for service in SERVICES}
    return {names[name]: pid for pid, name in forked_from(found[0]) if name in names} if len(found) == 1 else {}


def kill(up: RunningServer, service: str) -> int:
    pid = children(up)[service]
    os.kill(pid, signal.SIGKILL)
    return pid


def test_a_conversation_crosses_every_service(http):
    agent_id = new_agent(http)
    told = say(http, agent_id, INSERT.format("Likes tea."))
    assert told.status_code == 200, told.text
    assert "tool_return_message" in told.text
    assert "Likes tea." in read(http, f"/v1/agents/{agent_id}/core-memory/blocks/human").text


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_and_nothing_acknowledged_is_lost(up, http, service):
    agent_id = new_agent(http)
    assert say(http, agent_id, INSERT.format("Before.")).status_code == 200
    before = kill(up, service)
    odd, end, number, acknowledged = [], time.monotonic() + RECOVERY_SECONDS, 0, []
    while True:
        number += 1
        text = f"After {number}."
        try:
            answer = say(http, agent_id, text)
        except httpx.TransportError as error:
            if service != "gateway":
                odd.append((0, repr(error)))
        else:
            if answer.status_code == 200:
                acknowledged.append(text)
                if children(up).get(service, before) != before:
                    break
            elif answer.status_code not in TYPED or not isinstance(answer.json(), dict):
                odd.append((answer.status_code, answer.text))
        assert time.monotonic() < end, (odd, (up.home / "server.log").read_text()[-2000:])
        time.sleep(0.05)

    assert odd == []
    assert say(http, agent_id, INSERT.format("Afterwards.")).status_code == 200
    said = [m["content"] for m in history(http, agent_id) if m["message_type"] == "user_message"]
    assert [text for text in said if text in acknowledged] == acknowledged
    block = read(http, f"/v1/agents/{agent_id}/core-memory/blocks/human").json()["value"]
    assert (block.count("Before."), block.count("Afterwards.")) == (1, 1)


def test_services_come_back_after_the_process_they_forked_from_is_killed(up, http):
    before = children(up)
    (origin,) = origins(up.process.pid)
    agent_id = new_agent(http)
    os.kill(origin, signal.SIGKILL)
    end = time.monotonic() + RECOVERY_SECONDS
    while origins(up.process.pid) in ([], [origin]) or children(up).keys() != set(SERVICES):
        assert time.monotonic() < end, (up.home / "server.log").read_text()[-2000:]
        time.sleep(0.05)
    assert not set(before.values()) & set(children(up).values())
    wait_until_ready(up)
    assert say(http, agent_id, INSERT.format("After all.")).status_code == 200


@pytest.mark.parametrize("service", ["memory", "llm_gateway", "tools", "auth"])
def test_over_grpc_a_missing_service_is_unavailable_and_then_there_again(up, http, service):
    agent_id = new_agent(http)
    before = kill(up, service)
    codes, end = set(), time.monotonic() + RECOVERY_SECONDS
    with grpc.insecure_channel(up.grpc_address) as channel:
        stub = run_service_pb2_grpc.RunServiceStub(channel)
        request = run_service_pb2.SendMessageRequest(agent_id=agent_id, run=run_pb2.RunRequest(input_text="Hi!"))
        while True:
            try:
                stub.SendMessage(request, timeout=30)
                if children(up).get(service, before) != before:
                    break
            except grpc.RpcError as error:
                codes.add(error.code())
            assert time.monotonic() < end, codes
            time.sleep(0.05)
    assert codes <= {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.ABORTED}, codes


def test_killing_each_service_under_load_loses_and_doubles_nothing(up, http):
    agents = [new_agent(http) for _ in range(4)]
    sent: dict[str, list[tuple[str, int]]] = {agent_id: [] for agent_id in agents}
    stop = threading.Event()

    def talk(agent_id: str) -> None:
        with httpx.Client(base_url=up.http_url, timeout=60) as client:
            number = 0
            while not stop.is_set():
                number += 1
                text = f"Message {number}."
                try:
                    status = say(client, agent_id, text).status_code
                except httpx.TransportError:
                    status = 0
                sent[agent_id].append((text, status))
                time.sleep(0.02)

    threads = [threading.Thread(target=talk, args=(agent_id,)) for agent_id in agents]
    for thread in threads:
        thread.start()
    for service in ("memory", "agent", "llm_gateway"):
        marks = {agent_id: len(answers) for agent_id, answers in sent.items()}
        kill(up, service)
        end = time.monotonic() + RECOVERY_SECONDS
        while not all(200 in [status for _, status in sent[agent_id][marks[agent_id] + 1 :]] for agent_id in agents):
            if time.monotonic() > end:
                break
            time.sleep(0.1)
    stop.set()
    for thread in threads:
        thread.join()
    wait_until_ready(up)
    for agent_id in agents:
        settle(http, agent_id)
        said = [m["content"] for m in history(http, agent_id) if m["message_type"] == "user_message"]
        acknowledged = [text for text, status in sent[agent_id] if status == 200]
        assert acknowledged
        assert [text for text in said if text in acknowledged] == acknowledged
        assert len(said) == len(set(said))
        assert set(said) <= {text for text, _ in sent[agent_id]}


def test_killing_the_parent_ends_every_service(databases):
    with letta_server(databases.clone(SCHEMAS), command="up") as running:
        wait_until_ready(running)
        left = list(children(running).values())
        left += [pid for service in left for pid in descendants(service)]
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait(10)
        end = time.monotonic() + RECOVERY_SECONDS
        while left := [pid for pid in left if is_running(pid)]:
            assert time.monotonic() < end, left
            time.sleep(0.1)


def test_an_end_asked_for_during_the_start_leaves_nothing(databases):
    with letta_server(databases.clone(SCHEMAS), command="up", healthy=False) as running:
        log = running.home / "server.log"
        while "starting the services" not in log.read_text():
            assert running.process.poll() is None, log.read_text()
            time.sleep(0.01)
        left = [running.process.pid, *descendants(running.process.pid)]
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(RECOVERY_SECONDS) == 0
        end = time.monotonic() + RECOVERY_SECONDS
        while left := [pid for pid in left if is_running(pid)]:
            assert time.monotonic() < end, left
            time.sleep(0.05)
        assert "error" not in log.read_text()


def test_the_end_leaves_nothing_running(up):
    """Comes last: it ends the services of this module."""
    begun = children(up)
    assert set(begun) == set(SERVICES)
    left = [*begun.values(), *(pid for service in begun.values() for pid in descendants(service))]
    up.process.send_signal(signal.SIGTERM)
    assert up.process.wait(RECOVERY_SECONDS) == 0
    end = time.monotonic() + RECOVERY_SECONDS
    while left := [pid for pid in left if is_running(pid)]:
        assert time.monotonic() < end, left
        time.sleep(0.1)


def new_agent(http: httpx.Client) -> str:
    body = {"model": "builtin/rules", "memory_blocks": [{"label": "human", "value": ""}]}
    end = time.monotonic() + RECOVERY_SECONDS
    while (answer := http.post("/v1/agents/", json=body)).status_code != 200:
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)
    return str(answer.json()["id"])


def say(http: httpx.Client, agent_id: str, text: str) -> httpx.Response:
    return http.post(f"/v1/agents/{agent_id}/messages", json={"input": text})


def settle(http: httpx.Client, agent_id: str) -> None:
    """Wait until an agent is in no run."""
    end = time.monotonic() + RECOVERY_SECONDS
    while found := read(http, "/v1/runs/active", agent_id=agent_id).json():
        assert time.monotonic() < end, json.dumps(found)
        time.sleep(0.1)


def history(http: httpx.Client, agent_id: str) -> list[dict[str, object]]:
    found = read(http, f"/v1/agents/{agent_id}/messages", order="asc", limit=1000)
    return list(found.json())


def read(http: httpx.Client, path: str, **query: str | int) -> httpx.Response:
    """Read something; the gateway may find out a moment later than others that a service is back."""
    end = time.monotonic() + RECOVERY_SECONDS
    while (answer := http.get(path, params=query)).status_code == 503:
        assert time.monotonic() < end, answer.text
        time.sleep(0.1)
    assert answer.status_code == 200, answer.text
    return answer
