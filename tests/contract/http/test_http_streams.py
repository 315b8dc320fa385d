"""Server-sent events, and clients that go away."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx

from tests.contract.http.conftest import Front
from tests.unit.transcode.toy import Toy

STREAM = "/v1/items/item-1/messages/stream"


def events(text: str) -> list[tuple[str, Any]]:
    """Return the name and the data of each event."""
    found: list[tuple[str, Any]] = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.split("\n"))
        data = lines["data"]
        found.append((lines.get("event", ""), data if data == "[DONE]" else json.loads(data)))
    return found


def note(word: str) -> dict[str, Any]:
    return {"id": "note-1", "message_type": "said_message", "content": word, "date": None}


STOP = {"message_type": "stop_reason", "stop_reason": "end_turn"}


async def test_a_stream_is_events_and_ends_with_done(client: httpx.AsyncClient):
    answer = await client.post(STREAM, json={"input": "a b"})

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert events(answer.text) == [("", note("a")), ("", note("b")), ("", STOP), ("", "[DONE]")]


async def test_a_flag_of_the_body_turns_a_call_into_a_stream(client: httpx.AsyncClient):
    path = "/v1/items/item-1/messages"

    whole = await client.post(path, json={"input": "a", "notes": [{"message_type": "system_message", "text": "s"}]})
    streamed = await client.post(path, json={"input": "a", "streaming": True})
    wrong = await client.post(path, json={"streaming": "yes"})

    assert [each["message_type"] for each in whole.json()["notes"]] == ["system_message", "said_message"]
    assert events(streamed.text) == [("", note("a")), ("", STOP), ("", "[DONE]")]
    assert wrong.status_code == 422


async def test_a_member_can_name_its_event(client: httpx.AsyncClient):
    answer = await client.post(STREAM, json={"input": "report"})

    assert events(answer.text)[1] == ("error", {"message_type": "error_message", "message": "the model refused"})


async def test_a_failure_before_the_first_event_is_an_http_error(client: httpx.AsyncClient):
    answer = await client.post(STREAM, json={"input": "fail first"})

    assert (answer.status_code, answer.json()) == (404, {"detail": "no such item"})


async def test_a_failure_in_the_middle_is_an_error_event(client: httpx.AsyncClient):
    answer = await client.post(STREAM, json={"input": "a break b"})

    assert answer.status_code == 200
    assert events(answer.text)[-2:] == [
        (
            "error",
            {
                "message_type": "error_message",
                "run_id": "run-1",
                "error_type": "conversation_busy",
                "message": "a run is busy",
                "detail": "a run is busy",
                "seq_id": None,
            },
        ),
        ("", "[DONE]"),
    ]


async def test_a_stream_without_events_is_empty(client: httpx.AsyncClient):
    answer = await client.post("/rpc/toy.v1.ItemService/Watch", json={})

    assert [data for _, data in events(answer.text)] == [{}, {"count": "1"}, {"count": "2"}]


async def test_a_client_that_leaves_a_stream_cancels_the_call(client: httpx.AsyncClient, toy: Toy):
    async with client.stream("POST", STREAM, json={"input": "hang"}) as answer:
        assert await anext(answer.aiter_lines())
        await toy.begun.wait()

    await asyncio.wait_for(toy.cancelled.wait(), 10)


async def test_a_client_that_leaves_a_call_cancels_it(client: httpx.AsyncClient, toy: Toy):
    call = asyncio.create_task(client.get("/v1/items/slow"))
    await toy.begun.wait()
    call.cancel()

    await asyncio.wait_for(toy.cancelled.wait(), 10)


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_let_go(served: Front):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(b"POST /v1/items/ HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\n{")
    await writer.drain()
    writer.close()
    await writer.wait_closed()

    assert (await served.client.get("/v1/items/count")).status_code == 200


async def test_many_streams_at_once_keep_their_own_events(client: httpx.AsyncClient):
    answers = await asyncio.gather(*(client.post(STREAM, json={"input": f"w{n} x{n}"}) for n in range(20)))

    for number, answer in enumerate(answers):
        assert [data["content"] for _, data in events(answer.text)[:2]] == [f"w{number}", f"x{number}"]
