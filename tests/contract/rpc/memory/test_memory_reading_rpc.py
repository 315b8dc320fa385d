"""Files are read in the background: their text, their chunks, and what becomes of those that cannot be read."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from letta.memory.v1 import file_pb2, folder_service_pb2
from letta.memory.v1 import file_service_pb2 as pb
from tests.contract.rpc.memory.test_memory_uploads_rpc import folder, names, upload

DONE = {file_pb2.FILE_STATUS_COMPLETED, file_pb2.FILE_STATUS_FAILED}


async def fetch(memory: Any, file: Any, **more: Any) -> Any:
    request = pb.GetFileRequest(folder_id=file.folder_id, file_id=file.id, **more)
    return (await memory.files.GetFile(request, timeout=10)).file


async def settled(memory: Any, file: Any, wanted: Any = DONE) -> Any:
    """Wait until a file is read and embedded, or cannot be."""
    async with asyncio.timeout(120):  # only so that a fault is told and does not hang
        while (now := await fetch(memory, file)).status not in wanted:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return now


async def chunks(memory: Any, folder_id: str, **more: Any) -> list[Any]:
    request = folder_service_pb2.ListFolderPassagesRequest(folder_id=folder_id, **{"order": 1, **more})
    return list((await memory.folders.ListFolderPassages(request, timeout=10)).passages)


async def read(memory: Any, data: bytes, **more: Any) -> Any:
    return await settled(memory, await upload(memory, await folder(memory), data, **more))


async def test_a_text_becomes_chunks_with_vectors(memory: Any) -> None:
    text = "".join(f"Line {number} tells of the ship Orion.\n" for number in range(200))
    made = await read(memory, text.encode())
    found = await chunks(memory, made.folder_id)

    assert (made.status, made.error) == (file_pb2.FILE_STATUS_COMPLETED, "")
    assert made.chunk_count == made.embedded_chunk_count == len(found) > 3
    assert max(len(passage.text) for passage in found) <= 1200
    assert (await fetch(memory, made, include_content=True)).content == text
    assert "".join(passage.text + "\n" for passage in found) == text
    assert {(p.file_id, p.folder_id, p.HasField("archive_id")) for p in found} == {(made.id, made.folder_id, False)}
    assert {passage.file_name.rpartition("/")[2] for passage in found} == {"notes.txt"}
    assert all(passage.embedding for passage in found)
    places = [json.loads(passage.metadata) for passage in found]
    assert places[0]["first_line"] == 1
    assert [place["first_line"] for place in places[1:]] == [place["last_line"] + 1 for place in places[:-1]]


async def test_chunks_are_paged(memory: Any) -> None:
    made = await read(memory, b"One line of some length, again and again.\n" * 200)
    found = [passage.id for passage in await chunks(memory, made.folder_id)]

    assert [passage.id for passage in await chunks(memory, made.folder_id, after=found[0], limit=2)] == found[1:3]
    assert [passage.id for passage in await chunks(memory, made.folder_id, order=2)] == found[::-1]


async def test_an_empty_file_is_complete(memory: Any) -> None:
    made = await read(memory, b"")

    assert (made.status, made.chunk_count, made.embedded_chunk_count) == (file_pb2.FILE_STATUS_COMPLETED, 0, 0)
    assert (await fetch(memory, made, include_content=True)).content == ""


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Grüße\r\nan alle\r\n".encode("utf-16"), "Grüße\nan alle\n"),
        (b"a\xff\xfeb\n" * 20, None),
        (b"nul\0here\n", None),
    ],
)
async def test_odd_bytes_are_text_or_refused(memory: Any, data: bytes, text: str | None) -> None:
    made = await read(memory, data)
    content = (await fetch(memory, made, include_content=True)).content

    assert "\0" not in content
    if text is not None:
        assert content == text
    assert (made.status == file_pb2.FILE_STATUS_FAILED) is bool(made.error)


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("picture", b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ("broken.pdf", b"%PDF-1.7\n1 0 obj\n"),
        ("a.zip", b"PK\x03\x04xx"),
    ],
)
async def test_what_cannot_be_read_says_why(memory: Any, name: str, data: bytes) -> None:
    made = await read(memory, data, file_name=name, content_type="")

    assert made.status == file_pb2.FILE_STATUS_FAILED
    assert made.error
    assert not made.HasField("chunk_count")
    assert await chunks(memory, made.folder_id) == []


async def test_without_an_embedder_chunks_wait_and_are_there(memory: Any) -> None:
    place = await folder(memory)
    memory.embedder.down = True
    try:
        made = await upload(memory, place, b"Nobody embeds this.\n")
        waiting = await settled(memory, made, {file_pb2.FILE_STATUS_EMBEDDING})
        found = await chunks(memory, place)
        while not (waiting := await fetch(memory, made)).error:  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    finally:
        memory.embedder.down = False
    assert (waiting.chunk_count, waiting.embedded_chunk_count, waiting.error) == (1, 0, "the embedder is down")
    assert [(passage.text, len(passage.embedding)) for passage in found] == [("Nobody embeds this.", 0)]
    done = await settled(memory, made)
    assert (done.status, done.embedded_chunk_count, done.error) == (file_pb2.FILE_STATUS_COMPLETED, 1, "")


async def test_a_deleted_file_takes_its_chunks_with_it(memory: Any) -> None:
    made = await read(memory, b"Some text.\n")
    other = await settled(memory, await upload(memory, made.folder_id, b"Other text.\n", file_name="other.txt"))
    await memory.files.DeleteFile(pb.DeleteFileRequest(folder_id=made.folder_id, file_id=made.id), timeout=10)

    assert [passage.file_id for passage in await chunks(memory, made.folder_id)] == [other.id]
    assert await names(memory, made.folder_id) == ["other.txt"]


async def test_texts_of_a_list_are_given_if_asked(memory: Any) -> None:
    made = await read(memory, b"One.\n")
    await settled(memory, await upload(memory, made.folder_id, b"Two.\n", file_name="b.txt"))
    request = pb.ListFilesRequest(folder_id=made.folder_id, order=1, include_content=True)
    with_texts = (await memory.files.ListFiles(request, timeout=10)).files
    request.include_content = False
    without = (await memory.files.ListFiles(request, timeout=10)).files

    assert [file.content for file in with_texts] == ["One.\n", "Two.\n"]
    assert [file.HasField("content") for file in without] == [False, False]
