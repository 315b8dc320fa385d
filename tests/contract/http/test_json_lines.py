"""Streams as JSON lines: bodies that are handed on as they come, and answers a line for each item."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.contract.http.conftest import Front
from tests.unit.transcode.toy import Toy

TAKE, GIVE = "/v1/items/item-1/notes/import", "/v1/items/item-1/notes/export"
LINES = {"content-type": "application/x-ndjson"}


def line(text: str) -> bytes:
    return json.dumps({"message_type": "said_message", "content": text}).encode() + b"\n"


async def take(client: httpx.AsyncClient, content: Any, path: str = TAKE, **more: Any) -> httpx.Response:
    return await client.post(path, content=content, headers=LINES, **more)


def detail(answer: httpx.Response) -> str:
    return str(answer.json()["detail"])


async def test_lines_travel_as_the_items_of_some_messages(client: httpx.AsyncClient, toy: Toy) -> None:
    body = b"\n".join([b"".join(line(str(number)) for number in range(450)), b"", b"  ", line("last").strip()])

    answer = await take(client, body, params={"copies": 3})

    assert answer.json() == {"counts": [0, 200, 200, 51], "item_id": "item-1", "copies": 3}
    texts = [note.said_message.text for request in toy.created for note in request.notes]
    assert texts == [*map(str, range(450)), "last"]


async def test_long_lines_travel_alone(client: httpx.AsyncClient, toy: Toy) -> None:
    answer = await take(client, b"".join(line(letter * 600_000) for letter in "ab"))

    assert answer.json()["counts"] == [0, 1, 1]


async def test_a_body_without_a_line_is_one_message(client: httpx.AsyncClient, toy: Toy) -> None:
    assert (await take(client, b"\n \n")).json()["counts"] == [0]


async def test_lines_are_handed_on_before_the_last_one_came(client: httpx.AsyncClient, toy: Toy) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"".join(line(str(number)) for number in range(200))
        await toy.begun.wait()
        yield line("more")[:9]
        yield line("more")[9:]

    assert (await take(client, body())).json()["counts"] == [0, 200, 1]


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b"{nothing}\n", "'loc': ('body', 201)"),
        (b'{"message_type": "never"}\n', "'loc': ('body', 201"),
        (b'"text"\n', "'loc': ('body', 201"),
    ],
)
async def test_a_line_that_cannot_be_read_is_named_and_those_before_are_handed_on(
    client: httpx.AsyncClient, toy: Toy, bad: bytes, why: str
) -> None:
    answer = await take(client, line("a") * 201 + bad + line("b"))

    assert answer.status_code == 422
    assert why in detail(answer)
    assert [len(request.notes) for request in toy.created] == [0, 200]


async def test_a_line_has_a_limit_and_the_body_has_none(client: httpx.AsyncClient, toy: Toy) -> None:
    refused = await take(client, line("a" * (9 << 20)))
    toy.forget()

    async def body() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield line("b" * 500_000)

    taken = await take(client, body())

    assert refused.status_code == 413
    assert sum(taken.json()["counts"]) == 30


async def test_a_refusal_of_the_server_is_an_http_error(client: httpx.AsyncClient, toy: Toy) -> None:
    answer = await take(client, line("a") * 10_000, "/v1/items/missing/notes/import")

    assert (answer.status_code, answer.json()) == (404, {"detail": "no such item"})


async def test_another_type_than_lines_is_415(client: httpx.AsyncClient, toy: Toy) -> None:
    answer = await client.post(TAKE, content=line("a"), headers={"content-type": "text/plain"})

    assert (answer.status_code, toy.created) == (415, [])


async def test_a_client_that_goes_away_ends_the_stream(served: Front, toy: Toy) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    sent = line("a") * 200
    head = f"POST {TAKE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(sent) * 2}\r\n\r\n"
    writer.write(head.encode() + sent)
    while len(toy.created) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
    writer.close()
    again = await served.client.get(GIVE)

    assert again.status_code == 200
    assert [len(request.notes) for request in toy.created] == [0, 200]


async def test_answers_are_a_line_for_each_item(client: httpx.AsyncClient) -> None:
    answer = await client.get(GIVE)
    empty = await client.get("/v1/items/empty/notes/export")

    assert (answer.headers["content-type"], empty.text) == ("application/x-ndjson", "")
    assert [json.loads(text)["content"] for text in answer.text.splitlines()] == [f"{number}\n" for number in range(4)]


async def test_a_failure_in_the_middle_is_the_last_line(client: httpx.AsyncClient) -> None:
    answer = await client.get("/v1/items/busy/notes/export")
    *items, last = map(json.loads, answer.text.splitlines())

    assert (len(items), list(last)) == (2, ["error"])
    assert "a run is busy" in str(last)


async def test_the_document_says_lines(client: httpx.AsyncClient) -> None:
    paths = (await client.get("/openapi.json")).json()["paths"]

    assert list(paths["/v1/items/{item_id}/notes/import"]["post"]["requestBody"]["content"]) == [LINES["content-type"]]
    give = paths["/v1/items/{item_id}/notes/export"]["get"]["responses"]["200"]["content"]
    assert list(give) == [LINES["content-type"]]
