"""A process that is told to end while blocks are watched ends the streams, which go on elsewhere without a gap."""

from __future__ import annotations

import signal
from typing import Any

import grpc
import httpx

from letta.memory.v1.block_history_service_pb2 import WatchBlocksRequest
from letta.memory.v1.block_history_service_pb2_grpc import BlockHistoryServiceStub
from tests.callers import SCHEMAS
from tests.servers import letta_server

PATIENT = {"LETTA_DRAIN_SECONDS": "3600"}
"""What is in flight may take an hour to end, which the test does not have."""


def test_a_watch_ends_with_its_process_and_goes_on_at_another(databases: Any) -> None:
    url = databases.clone(SCHEMAS)
    with (
        letta_server(url, environment=PATIENT) as first,
        letta_server(url) as second,
        grpc.insecure_channel(first.grpc_address) as one,
        grpc.insecure_channel(second.grpc_address) as two,
        httpx.Client(base_url=second.http_url, timeout=60) as http,
    ):
        stream = BlockHistoryServiceStub(one).WatchBlocks(WatchBlocksRequest(), timeout=300)
        position = next(stream).position
        made = [write(http, "a")]
        while (event := next(stream)).written.block_id != made[0]:
            pass
        first.process.send_signal(signal.SIGTERM)
        code = None
        try:
            for last in stream:
                position = last.position
        except grpc.RpcError as error:
            code = error.code()
        ended = first.process.wait(300)
        made += [write(http, value) for value in "bc"]

        again = BlockHistoryServiceStub(two).WatchBlocks(WatchBlocksRequest(position=event.position), timeout=300)
        told = []
        while len(told) < 2:
            event = next(again)
            if event.HasField("written") and event.written.block_id in made:
                told.append(event.written.block_id)
        again.cancel()

    assert (code, ended) == (grpc.StatusCode.UNAVAILABLE, 0)
    assert (told, position != "") == (made[1:], True)


def write(http: httpx.Client, value: str) -> str:
    answer = http.post("/v1/blocks/", json={"label": "note", "value": value})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])
