"""How often a response is written to the socket: what is ready leaves together, and nothing waits for what is not."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from letta_gateway.joined_writes import LARGEST, JoinedHttp, JoinedWrites
from tests.contract.http.conftest import front, local_channel
from tests.unit.transcode.toy import Toy

STREAM = "/v1/items/item-1/messages/stream"


class Transport(asyncio.Transport):
    """Keeps what is written; written to a transport beneath, when there is one."""

    def __init__(self, beneath: Any = None) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.beneath = beneath

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))
        if self.beneath is not None:
            self.beneath.write(data)

    def is_closing(self) -> bool:
        return self.closed if self.beneath is None else self.beneath.is_closing()

    def close(self) -> None:
        self.closed = True
        if self.beneath is not None:
            self.beneath.close()

    def __getattribute__(self, name: str) -> Any:
        beneath = object.__getattribute__(self, "__dict__").get("beneath")
        if beneath is None or name in {"written", "beneath", "closed", "write", "is_closing", "close"}:
            return object.__getattribute__(self, name)
        return getattr(beneath, name)


@pytest.fixture
def sockets(monkeypatch: pytest.MonkeyPatch) -> list[Transport]:
    """What HTTP connections write to their sockets, a transport each."""
    made: list[Transport] = []
    begin = JoinedHttp.connection_made

    def counted(self: JoinedHttp, transport: Any) -> None:
        made.append(Transport(transport))
        begin(self, made[-1])

    monkeypatch.setattr(JoinedHttp, "connection_made", counted)
    return made


async def test_a_response_is_written_at_once(sockets: list[Transport], client: httpx.AsyncClient):
    assert (await client.get("/v1/health/")).status_code == 200
    assert (await client.get("/nothing")).status_code == 404

    [socket] = sockets
    assert [piece.count(b"HTTP/1.1") for piece in socket.written] == [1, 1]
    assert socket.written[0].endswith(b"}")


async def test_events_that_are_ready_leave_together(sockets: list[Transport], toy: Toy):
    words = " ".join(f"w{number}" for number in range(200))

    async with front({"toy": local_channel(toy)}) as found:
        await found.gateway.ready()
        answer = await found.client.post(STREAM, json={"input": words})

    events = answer.text.count("data: ")
    assert events == 202
    assert len(sockets[0].written) < events / 3


async def test_writes_of_a_turn_leave_at_its_end():
    transport = Transport()
    joined = JoinedWrites(transport)

    joined.write(b"a")
    joined.write(b"b")
    assert transport.written == []
    await asyncio.sleep(0)
    assert transport.written == [b"ab"]

    joined.write(b"c")
    await asyncio.sleep(0)
    assert transport.written == [b"ab", b"c"]


async def test_much_does_not_wait_for_the_end():
    transport = Transport()
    joined = JoinedWrites(transport)

    joined.write(b"a")
    joined.write(b"b" * LARGEST)
    assert [len(piece) for piece in transport.written] == [LARGEST + 1]
    await asyncio.sleep(0)
    assert len(transport.written) == 1


async def test_a_connection_closes_behind_what_was_written():
    transport = Transport()
    joined = JoinedWrites(transport)

    joined.write(b"bye")
    joined.close()
    assert transport.written == [b"bye"]
    assert transport.closed

    joined.write(b"too late")
    await asyncio.sleep(0)
    assert transport.written == [b"bye"]
