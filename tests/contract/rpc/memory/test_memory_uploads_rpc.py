"""FileService.UploadFile: bytes in a stream become a file, whole or not at all."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any
from uuid import uuid4

import grpc.aio
import pytest

from letta.jsonmap.v1.uploaded_file_pb2 import UploadedFile
from letta.memory.v1 import file_pb2, folder_service_pb2
from letta.memory.v1 import file_service_pb2 as pb
from letta_common.errors import (
    AlreadyExists,
    AppError,
    ChecksumMismatch,
    CursorNotFound,
    FileNotFound,
    FolderNotFound,
    IdempotencyConflict,
    InvalidArgument,
    PayloadTooLarge,
    StaleEtag,
    UnsupportedMediaType,
    ValidationFailed,
)
from letta_common.values.ids import new_id
from letta_memory.domain.uploads import PART_BYTES

SIZE = 3 * PART_BYTES + 17
DATA = bytes(number % 251 for number in range(SIZE))


async def folder(memory: Any) -> str:
    request = folder_service_pb2.CreateFolderRequest(name=f"docs-{uuid4()}")
    return str((await memory.folders.CreateFolder(request, timeout=10)).folder.id)


def messages(folder_id: str, data: bytes, *, step: int = 100_000, **more: Any) -> Iterator[pb.UploadFileRequest]:
    """Yield the messages of an upload."""
    called, kind = more.pop("file_name", "notes.txt"), more.pop("content_type", "text/plain")
    size = more.pop("size", len(data) + more.get("offset", 0))
    for start in range(0, len(data) or 1, step):
        file = UploadedFile(file_name=called, content_type=kind, content=data[start : start + step], size=size)
        yield pb.UploadFileRequest(folder_id=folder_id, file=file, **more)


async def upload(memory: Any, folder_id: str, data: bytes = DATA, **more: Any) -> Any:
    return (await memory.files.UploadFile(messages(folder_id, data, **more), timeout=30)).file


async def came(memory: Any, folder_id: str, request_id: str) -> Any:
    return await memory.files.GetUpload(pb.GetUploadRequest(folder_id=folder_id, request_id=request_id), timeout=10)


async def names(memory: Any, folder_id: str) -> list[str]:
    answer = await memory.files.ListFiles(pb.ListFilesRequest(folder_id=folder_id, order=1), timeout=10)
    return [file.name for file in answer.files]


async def cut_off(memory: Any, folder_id: str, *parts: bytes, **more: Any) -> None:
    """Send some of an upload and go away."""
    sent = asyncio.Event()

    async def some() -> AsyncIterator[pb.UploadFileRequest]:
        for part in parts:
            for message in messages(folder_id, part, size=SIZE, **more):
                yield message
        sent.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(memory.files.UploadFile(some(), timeout=30))
    await sent.wait()
    wanted = sum(map(len, parts)) // PART_BYTES * PART_BYTES + more.get("offset", 0)
    while (await came(memory, folder_id, more["request_id"])).received_bytes < wanted:
        assert not call.done(), call.exception()
        await asyncio.sleep(0.01)
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)


async def test_what_was_sent_is_a_file(memory: Any) -> None:
    place = await folder(memory)
    made = await upload(memory, place, content_type="text/plain; charset=utf-8")

    assert (made.folder_id, made.name, made.original_name, made.media_type) == (
        place,
        "notes.txt",
        "notes.txt",
        "text/plain",
    )
    assert (made.size_bytes, made.sha256) == (SIZE, hashlib.sha256(DATA).hexdigest())
    assert made.status in (file_pb2.FILE_STATUS_PENDING, file_pb2.FILE_STATUS_PARSING)
    assert (made.organization_id, made.created_by_id) == ("org-a", "user-ann")
    assert await names(memory, place) == ["notes.txt"]


async def test_an_empty_file_is_a_file(memory: Any) -> None:
    made = await upload(memory, await folder(memory), b"")

    assert (made.size_bytes, made.sha256) == (0, hashlib.sha256(b"").hexdigest())


@pytest.mark.parametrize(
    ("file_name", "kept"),
    [("../../etc/passwd", "passwd"), ("C:\\docs\\a.txt", "a.txt"), ("/abs/b.md", "b.md"), ("ä ö.txt", "ä ö.txt")],
)
async def test_a_name_loses_its_directories(memory: Any, file_name: str, kept: str) -> None:
    made = await upload(memory, await folder(memory), b"x", file_name=file_name)

    assert (made.name, made.original_name) == (kept, kept)


@pytest.mark.parametrize(
    "more",
    [
        {"file_name": ""},
        {"file_name": ".."},
        {"file_name": "a/"},
        {"name": "../a"},
        {"name": "a\\b"},
        {"file_name": "a\nb"},
        {"file_name": "ä" * 128},
        {"name": "."},
    ],
)
async def test_what_is_no_name_is_refused(memory: Any, more: Any) -> None:
    place = await folder(memory)
    if more != {"file_name": "a/"}:
        with pytest.raises(InvalidArgument):
            await upload(memory, place, b"x", **more)
        assert await names(memory, place) == []


@pytest.mark.parametrize(
    ("name", "kind", "refused"),
    [
        ("a.png", "", True),
        ("a", "video/mp4; codecs=x", True),
        ("a.mp3", "application/octet-stream", True),
        ("a.svg", "image/svg+xml", False),
        ("a.ts", "video/mp2t", False),
        ("a.png", "text/plain", False),
    ],
)
async def test_what_has_no_text_is_refused_before_its_bytes(memory: Any, name: str, kind: str, refused: bool) -> None:
    place = await folder(memory)

    async def first() -> AsyncIterator[pb.UploadFileRequest]:
        file = UploadedFile(file_name=name, content_type=kind)
        yield pb.UploadFileRequest(folder_id=place, file=file)
        if refused:
            await asyncio.Event().wait()

    with pytest.raises(UnsupportedMediaType if refused else InvalidArgument):
        await memory.files.UploadFile(first(), timeout=30)
    assert await names(memory, place) == []


async def test_another_name_and_the_type_of_it(memory: Any) -> None:
    made = await upload(
        memory, await folder(memory), b"x", file_name="a.md", name="b.md", content_type="application/octet-stream"
    )

    assert (made.name, made.original_name, made.media_type) == ("b.md", "a.md", "text/markdown")


async def test_what_becomes_of_a_name_that_is_taken(memory: Any) -> None:
    place = await folder(memory)
    first = await upload(memory, place, b"one")
    same = await upload(memory, place, b"two", duplicate_handling=pb.DUPLICATE_HANDLING_SKIP)
    with pytest.raises(AlreadyExists):
        await upload(memory, place, b"two", duplicate_handling=pb.DUPLICATE_HANDLING_ERROR)
    second, third = await upload(memory, place, b"two"), await upload(memory, place, b"three")

    assert (same.id, same.size_bytes) == (first.id, 3)
    assert [second.name, third.name, third.original_name] == ["notes_(1).txt", "notes_(2).txt", "notes.txt"]
    other = await upload(memory, place, b"new", duplicate_handling=pb.DUPLICATE_HANDLING_REPLACE)
    assert other.name == "notes.txt"
    assert await names(memory, place) == ["notes_(1).txt", "notes_(2).txt", "notes.txt"]
    with pytest.raises(FileNotFound):
        await memory.files.GetFile(pb.GetFileRequest(folder_id=place, file_id=first.id), timeout=10)


@pytest.mark.parametrize("policy", [pb.DUPLICATE_HANDLING_SUFFIX, pb.DUPLICATE_HANDLING_REPLACE])
async def test_uploads_of_one_name_at_once(memory: Any, policy: Any) -> None:
    place = await folder(memory)
    made = await asyncio.gather(
        *(upload(memory, place, bytes([number]) * PART_BYTES, duplicate_handling=policy) for number in range(4))
    )
    left = await names(memory, place)

    assert len({file.id for file in made}) == 4
    assert len(left) == len(set(left)) == (4 if policy == pb.DUPLICATE_HANDLING_SUFFIX else 1)


async def test_a_wrong_checksum_leaves_nothing(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    with pytest.raises(ChecksumMismatch):
        await upload(memory, place, sha256="0" * 64, request_id=key)
    assert await names(memory, place) == []
    assert await came(memory, place, key) == pb.GetUploadResponse()
    made = await upload(memory, place, sha256=hashlib.sha256(DATA).hexdigest().upper(), request_id=str(uuid4()))
    assert made.size_bytes == SIZE
    with pytest.raises(ValidationFailed):
        await upload(memory, place, sha256="abc")


async def test_an_upload_that_broke_off_goes_on(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    await cut_off(memory, place, DATA[: 2 * PART_BYTES + 5], request_id=key)
    told = await came(memory, place, key)
    assert (told.received_bytes, told.file_id, await names(memory, place)) == (2 * PART_BYTES, "", [])
    with pytest.raises(InvalidArgument):
        await upload(memory, place, DATA[5:], request_id=key, offset=5)
    with pytest.raises(IdempotencyConflict):
        await upload(memory, place, DATA, request_id=key, file_name="other.txt")

    made = await upload(memory, place, DATA[told.received_bytes :], request_id=key, offset=told.received_bytes)

    assert (made.size_bytes, made.sha256) == (SIZE, hashlib.sha256(DATA).hexdigest())
    assert (await came(memory, place, key)).file_id == made.id
    again = await upload(memory, place, DATA, request_id=key)
    assert (again.id, await names(memory, place)) == (made.id, ["notes.txt"])


async def test_a_stream_that_ends_early_is_no_file(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    for more in ({"size": SIZE + 1}, {"size": None}, {"size": SIZE + 1, "request_id": key}):
        with pytest.raises(InvalidArgument) as caught:
            await upload(memory, place, DATA, **more)
        assert caught.value.metadata["field"] == "file.size"
    assert (await names(memory, place), (await came(memory, place, key)).received_bytes) == ([], 3 * PART_BYTES)
    with pytest.raises(InvalidArgument):
        await upload(memory, place, DATA, size=SIZE - 1, request_id=key)
    assert await came(memory, place, key) == pb.GetUploadResponse()


async def test_an_upload_may_begin_anew(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    await cut_off(memory, place, b"y" * PART_BYTES, request_id=key)

    made = await upload(memory, place, DATA, request_id=key)

    assert made.sha256 == hashlib.sha256(DATA).hexdigest()


async def test_the_stream_that_came_last_goes_on_alone(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    more: asyncio.Queue[bytes] = asyncio.Queue()

    async def slow() -> AsyncIterator[pb.UploadFileRequest]:
        while part := await more.get():
            for message in messages(place, part, request_id=key, size=SIZE):
                yield message

    first = asyncio.ensure_future(memory.files.UploadFile(slow(), timeout=30))
    await more.put(b"y" * PART_BYTES)
    while (await came(memory, place, key)).received_bytes < PART_BYTES:
        assert not first.done(), first.exception()
        await asyncio.sleep(0.01)
    made = await upload(memory, place, DATA, request_id=key)
    await more.put(b"z" * PART_BYTES)
    await more.put(b"")
    with pytest.raises(StaleEtag):
        await first

    assert made.sha256 == hashlib.sha256(DATA).hexdigest()
    assert await names(memory, place) == ["notes.txt"]


async def test_a_key_makes_anew_once_its_file_is_deleted(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    made = await upload(memory, place, request_id=key)
    await memory.files.DeleteFile(pb.DeleteFileRequest(folder_id=place, file_id=made.id), timeout=10)

    assert await names(memory, place) == []
    assert (await upload(memory, place, b"x", request_id=key)).size_bytes == 1


async def test_a_file_has_a_largest_size(memory: Any) -> None:
    place, key = await folder(memory), str(uuid4())
    with pytest.raises(PayloadTooLarge):
        await upload(memory, place, b"x" * (memory.FILE_BYTES + 1), request_id=key)
    assert await came(memory, place, key) == pb.GetUploadResponse()
    assert (await upload(memory, place, b"x" * memory.FILE_BYTES)).size_bytes == memory.FILE_BYTES


async def test_what_no_folder_takes(memory: Any) -> None:
    place = await folder(memory)
    with memory.actor(memory.BOB), pytest.raises(FolderNotFound):
        await upload(memory, place)
    with memory.actor(memory.BOB), pytest.raises(FolderNotFound):
        await came(memory, place, "x")
    with pytest.raises(InvalidArgument):
        await memory.files.UploadFile(iter(()), timeout=10)
    with pytest.raises(ValidationFailed):
        await memory.files.UploadFile(iter([pb.UploadFileRequest(folder_id=place)]), timeout=10)
    mixed = [*messages(place, b"x"), *messages(new_id("source"), b"y")]
    with pytest.raises(InvalidArgument):
        await memory.files.UploadFile(iter(mixed), timeout=10)
    assert await names(memory, place) == []


async def test_a_folder_that_is_deleted_meanwhile_takes_nothing(memory: Any) -> None:
    place = await folder(memory)

    async def late() -> AsyncIterator[pb.UploadFileRequest]:
        for message in messages(place, b"x" * PART_BYTES):
            yield message
        await memory.folders.DeleteFolder(folder_service_pb2.DeleteFolderRequest(folder_id=place), timeout=10)

    with pytest.raises((AppError, grpc.aio.AioRpcError)) as caught:
        await memory.files.UploadFile(late(), timeout=10)
    assert isinstance(caught.value, FolderNotFound)


async def test_files_are_listed_by_time(memory: Any) -> None:
    place = await folder(memory)
    ids = [(await upload(memory, place, b"x")).id for _ in range(3)]

    async def listed(**more: Any) -> list[str]:
        answer = await memory.files.ListFiles(pb.ListFilesRequest(folder_id=place, **more), timeout=10)
        return [file.id for file in answer.files]

    assert await listed() == ids[::-1]
    assert await listed(order=1, after=ids[0], limit=1) == [ids[1]]
    assert await listed(before=ids[0], limit=1) == [ids[1]]
    await memory.files.DeleteFile(pb.DeleteFileRequest(folder_id=place, file_id=ids[1]), timeout=10)
    assert await listed(after=ids[1]) == [ids[0]]
    with pytest.raises(CursorNotFound):
        await listed(after=new_id("source"))


async def download(memory: Any, folder_id: str, file_id: str) -> list[bytes]:
    request = pb.DownloadFileRequest(folder_id=folder_id, file_id=file_id)
    return [answer.content async for answer in memory.files.DownloadFile(request, timeout=10)]


@pytest.mark.parametrize("size", [0, 1, PART_BYTES, PART_BYTES + 1, SIZE])
async def test_a_file_comes_back_as_it_was_sent(memory: Any, size: int) -> None:
    place = await folder(memory)
    made = await upload(memory, place, DATA[:size])
    got = await download(memory, place, made.id)

    assert b"".join(got) == DATA[:size]
    assert len(got) == max(1, -(-size // PART_BYTES))
    with pytest.raises(FileNotFound):
        await download(memory, place, new_id("file"))
    with pytest.raises(FolderNotFound):
        await download(memory, new_id("source"), made.id)
    with memory.actor(memory.BOB), pytest.raises(FolderNotFound):
        await download(memory, place, made.id)


async def test_what_is_stored_is_told_to_its_organization(memory: Any) -> None:
    async def stored() -> Any:
        return await memory.files.GetFileStorage(pb.GetFileStorageRequest(), timeout=10)

    place, before = await folder(memory), (await stored()).size_bytes
    made = await upload(memory, place)
    with memory.actor(memory.BOB):
        assert (await stored()).size_bytes == 0
    assert (await stored()).size_bytes - before == SIZE
    assert not (await stored()).HasField("limit_bytes")
    await memory.files.DeleteFile(pb.DeleteFileRequest(folder_id=place, file_id=made.id), timeout=10)
    assert (await stored()).size_bytes == before


async def test_a_caller_that_goes_away_without_a_key_leaves_nothing(memory: Any) -> None:
    place, begun = await folder(memory), asyncio.Event()
    before = (await memory.files.GetFileStorage(pb.GetFileStorageRequest(), timeout=10)).size_bytes

    async def some() -> AsyncIterator[pb.UploadFileRequest]:
        for message in messages(place, DATA, size=2 * SIZE):
            yield message
        begun.set()
        await asyncio.Event().wait()

    call = asyncio.ensure_future(memory.files.UploadFile(some(), timeout=30))
    await begun.wait()
    call.cancel()
    while (await memory.files.GetFileStorage(pb.GetFileStorageRequest(), timeout=10)).size_bytes != before:  # noqa: ASYNC110
        await asyncio.sleep(0.01)
