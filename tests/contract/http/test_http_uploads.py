"""Forms whose file goes on as it comes: what is held of them, what ends them, and how their senders are told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.contract.http.conftest import Front, front, local_channel
from tests.contract.http.test_bounds import PATIENCE, said, status
from tests.unit.transcode.toy import Toy

MB = 1 << 20
PATH = "/v1/folders/f-1/pieces"
HELD = 10 * MB  # what waits on the way: in this process, and in what HTTP/2 lets be under way


def head(length: int | None, path: str = PATH) -> bytes:
    size = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    kind = "content-type: multipart/form-data; boundary=x"
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{kind}\r\n{size}\r\n\r\n".encode()


def field(name: str, value: bytes = b"v") -> bytes:
    return b'--x\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % (name.encode(), value)


def file(name: str = "a.txt", content: bytes = b"text", key: str = "file", more: bytes = b"") -> bytes:
    said = f'--x\r\ncontent-disposition: form-data; name="{key}"; filename="{name}"\r\n'.encode()
    return said + more + b"\r\n" + content + b"\r\n"


END = b"--x--\r\n"


def scope(size: int) -> dict[str, Any]:
    headers = [(b"content-type", b"multipart/form-data; boundary=x"), (b"host", b"localhost")]
    return {
        **{"type": "http", "method": "POST", "path": PATH, "raw_path": PATH.encode(), "query_string": b""},
        "headers": [*headers, (b"content-length", str(size).encode())],
    }


async def test_of_a_large_file_little_is_held(served: Front, toy: Toy):
    size, chunk, given, answers, most = 48 * MB, bytes(64 << 10), 0, list[Any](), 0
    first, last = field("name", b"wait") + file(content=b"").removesuffix(b"\r\n"), b"\r\n" + END

    async def receive() -> dict[str, Any]:
        nonlocal given, most
        if not answers and given == 0:
            given += len(first)
            return {"type": "http.request", "body": first, "more_body": True}
        if given < size:
            given += len(chunk)
            most = max(most, given - toy.came)
            return {"type": "http.request", "body": chunk, "more_body": True}
        return {"type": "http.request", "body": last, "more_body": False}

    async def send(event: Any) -> None:
        answers.append(event)

    upload = asyncio.ensure_future(served.gateway.app(scope(size), receive, send))
    seen = -1
    while seen != given:  # until nothing goes on, as nobody reads
        seen = given
        await asyncio.sleep(0.2)
    assert not upload.done()
    toy.gate.set()
    await asyncio.wait_for(upload, PATIENCE)

    assert answers[0]["status"] == 200
    assert toy.came >= size - len(first)
    assert MB < most < HELD


async def test_a_name_is_refused_before_any_byte_of_the_file(served: Front):
    answer = await said(served.port, [head(MB), file("missing", b"").removesuffix(b"\r\n")])

    assert status(answer) == 404
    assert b"connection: close" in answer


@pytest.mark.parametrize("length", [20_000, None])
async def test_a_form_beyond_the_limit_is_413_before_the_rest(toy: Toy, length: int | None):
    async with front({"toy": local_channel(toy)}, max_form_bytes=10_000) as found:
        await found.gateway.ready()
        part = field("name", b"wait") + file(content=b"a" * 9_000)
        if length is None:
            part = b"%x\r\n%b\r\n2710\r\n%b\r\n" % (len(part), part, b"a" * 10_000)
        toy.gate.set()
        answer = await said(found.port, [head(length), part])

    assert status(answer) == 413
    assert b"connection: close" in answer
    assert not toy.sized


async def test_who_sends_all_the_same_reads_the_refusal(served: Front):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{served.port}", timeout=30) as client:

        async def body() -> AsyncIterator[bytes]:
            yield file("missing", b"").removesuffix(b"\r\n")
            for _ in range(300):
                yield bytes(64 << 10)

        kind = {"content-type": "multipart/form-data; boundary=x"}
        refused = await client.post(PATH, content=body(), headers=kind)
        again = await client.post(PATH, files={"file": ("a.txt", b"text")})

    assert (refused.status_code, refused.headers["connection"]) == (404, "close")
    assert (again.status_code, again.json()["size"]) == (200, 4)


BAD = {
    "two files": file() + file("b.txt") + END,
    "a field behind the file": file() + field("name") + END,
    "no end": file(),
    "an end in the file": file().removesuffix(b"xt\r\n"),
    "a large header": file(more=b"x-much: " + b"a" * MB + b"\r\n") + END,
    "a large name": file("a" * MB) + END,
    "many headers": file(more=b"x-a: b\r\n" * 50) + END,
    "many parts": file() + field("other") * 1001 + END,
    "a part without a name": file() + b"--x\r\ncontent-type: text/plain\r\n\r\nv\r\n" + END,
    "not base64": file(content=b"\xff\xfe!", more=b"content-transfer-encoding: base64\r\n") + END,
    "nothing": b"",
}


@pytest.mark.parametrize("body", BAD.values(), ids=BAD)
async def test_what_is_no_form_makes_no_file(client: httpx.AsyncClient, toy: Toy, body: bytes):
    answer = await client.post(PATH, content=body, headers={"content-type": "multipart/form-data; boundary=x"})

    assert answer.status_code == 422
    assert "form_invalid" in answer.json()["detail"]
    assert not toy.sized


async def test_fields_of_a_form_are_bounded_too(toy: Toy):
    async with front({"toy": local_channel(toy)}, max_body_bytes=10_000) as found:
        await found.gateway.ready()
        body = field("name", b"a" * 6_000) + field("other", b"a" * 6_000) + file() + END
        answer = await found.client.post(
            PATH, content=body, headers={"content-type": "multipart/form-data; boundary=x"}
        )

    assert answer.status_code == 413


async def test_parts_that_mean_nothing_are_left_out(client: httpx.AsyncClient, toy: Toy):
    body = file("b.bin", bytes(MB), "other") + file("..\\..\\up/a.txt") + field("more") + file(key="last") + END

    answer = await client.post(PATH, content=body, headers={"content-type": "multipart/form-data; boundary=x"})

    assert (answer.status_code, answer.json()["size"], answer.json()["file_name"]) == (200, 4, "a.txt")


@pytest.mark.parametrize(
    ("encoding", "content"), [("base64", b"dGV4dA=="), ("quoted-printable", b"t=65xt"), ("8bit", b"text")]
)
async def test_files_may_be_encoded(client: httpx.AsyncClient, toy: Toy, encoding: str, content: bytes):
    body = file(content=content, more=f"content-transfer-encoding: {encoding}\r\n".encode()) + END

    await client.post(PATH, content=body, headers={"content-type": "multipart/form-data; boundary=x"})

    assert toy.created[0].file.content == b"text"


async def test_a_body_that_stands_still_is_408_and_no_file(toy: Toy):
    async with front({"toy": local_channel(toy)}, body_seconds=0.3) as found:
        await found.gateway.ready()
        answer = await said(found.port, [head(MB), file()])
        await asyncio.wait_for(toy.ended.wait(), PATIENCE)

    assert status(answer) == 408
    assert not toy.sized


async def test_a_sender_that_goes_away_leaves_no_file(served: Front, toy: Toy):
    _, writer = await asyncio.open_connection("127.0.0.1", served.port)
    writer.write(head(MB) + file())
    await writer.drain()
    writer.close()
    await asyncio.wait_for(toy.ended.wait(), PATIENCE)

    assert not toy.sized


async def test_more_bytes_than_were_announced_are_no_part_of_the_form(served: Front, toy: Toy):
    body = file() + END
    answer = await said(served.port, [head(len(body) - 5) + body])

    assert status(answer) in (400, 422)  # what is behind it is no request
    assert not toy.sized
