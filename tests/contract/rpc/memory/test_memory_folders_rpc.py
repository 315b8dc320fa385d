"""FolderService."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import uuid4

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.memory.v1 import archive_pb2, archive_service_pb2, file_service_pb2, folder_pb2, passage_service_pb2
from letta.memory.v1 import folder_service_pb2 as pb
from letta_common.errors import (
    AlreadyExists,
    ArchiveNotFound,
    CursorNotFound,
    FileNotFound,
    FolderNotFound,
    IdempotencyConflict,
    InvalidArgument,
    ModelNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id


def name() -> str:
    return f"docs-{uuid4()}"


async def make(memory: Any, **more: Any) -> Any:
    request = pb.CreateFolderRequest(**{"name": name(), **more})
    return (await memory.folders.CreateFolder(request, timeout=10)).folder


async def fetch(memory: Any, folder_id: str) -> Any:
    return (await memory.folders.GetFolder(pb.GetFolderRequest(folder_id=folder_id), timeout=10)).folder


async def listed(memory: Any, **more: Any) -> list[str]:
    answer = await memory.folders.ListFolders(pb.ListFoldersRequest(**more), timeout=10)
    return [folder.id for folder in answer.folders]


async def delete(memory: Any, folder_id: str) -> None:
    await memory.folders.DeleteFolder(pb.DeleteFolderRequest(folder_id=folder_id), timeout=10)


async def test_a_folder_is_kept_as_it_was_made(memory: Any) -> None:
    made = await make(memory, description="d", instructions="i", metadata='{"a": 1}', embedding="test/small")

    assert (made.description, made.instructions, made.metadata) == ("d", "i", '{"a": 1}')
    assert (made.embedding_config.handle, made.embedding_config.embedding_dim) == ("test/small", 64)
    assert made.embedding_config.embedding_chunk_size == 300
    assert made.id.startswith("source-")
    assert await fetch(memory, made.id) == made


async def test_a_chunk_size_counts_however_it_is_said(memory: Any) -> None:
    said = await make(memory, embedding_chunk_size=100)
    older = pb.CreateFolderRequest(name=name())
    older.compat.embedding_config.handle = "test/small"
    older.compat.embedding_config.embedding_chunk_size = 200
    made = (await memory.folders.CreateFolder(older, timeout=10)).folder

    assert said.embedding_config.embedding_chunk_size == 100
    assert (made.embedding_config.handle, made.embedding_config.embedding_chunk_size) == ("test/small", 200)
    assert await fetch(memory, made.id) == made


async def test_a_name_is_taken_once_in_an_organization(memory: Any) -> None:
    made, other = await make(memory), await make(memory)
    with pytest.raises(AlreadyExists):
        await make(memory, name=made.name)
    change = pb.UpdateFolderRequest(folder_id=other.id, folder=folder_pb2.Folder(name=made.name))
    with pytest.raises(AlreadyExists):
        await memory.folders.UpdateFolder(change, timeout=10)
    with memory.actor(memory.BOB):
        assert (await make(memory, name=made.name)).name == made.name
    await delete(memory, made.id)
    assert (await make(memory, name=made.name)).id != made.id


async def test_create_twice_with_one_request_id(memory: Any) -> None:
    request_id, called = str(uuid4()), name()
    made = await make(memory, name=called, request_id=request_id)

    assert await make(memory, name=called, request_id=request_id) == made
    with pytest.raises(IdempotencyConflict):
        await make(memory, name=called, description="another", request_id=request_id)


async def test_what_cannot_be_made(memory: Any) -> None:
    with pytest.raises(ModelNotFound):
        await make(memory, embedding="test/nope")
    for wrong in ({"name": ""}, {"embedding_chunk_size": -1}, {"embedding_chunk_size": 8193}):
        with pytest.raises(ValidationFailed):
            await make(memory, **wrong)


async def test_a_mask_changes_and_clears(memory: Any) -> None:
    made = await make(memory, description="d", instructions="i")
    request = pb.UpdateFolderRequest(
        folder_id=made.id,
        folder=folder_pb2.Folder(instructions="j"),
        update_mask=FieldMask(paths=["instructions", "description"]),
    )
    changed = (await memory.folders.UpdateFolder(request, timeout=10)).folder

    assert (changed.instructions, changed.HasField("description"), changed.name) == ("j", False, made.name)
    assert await fetch(memory, made.id) == changed
    nameless = pb.UpdateFolderRequest(
        folder_id=made.id, folder=folder_pb2.Folder(), update_mask=FieldMask(paths=["name"])
    )
    with pytest.raises(InvalidArgument):
        await memory.folders.UpdateFolder(nameless, timeout=10)


async def test_folders_are_found_listed_and_counted(memory: Any) -> None:
    before = (await memory.folders.CountFolders(pb.CountFoldersRequest(), timeout=10)).count
    made = [await make(memory) for _ in range(3)]
    ids = [folder.id for folder in made]
    found = await memory.folders.GetFolderId(pb.GetFolderIdRequest(folder_name=made[1].name), timeout=10)

    assert found.folder_id == made[1].id
    assert await listed(memory, name=made[1].name) == [made[1].id]
    assert await listed(memory, after=ids[0]) == ids[1:]
    assert await listed(memory, before=ids[2], limit=1) == [ids[1]]
    assert await listed(memory, order=2, limit=3) == ids[::-1]
    assert (await memory.folders.CountFolders(pb.CountFoldersRequest(), timeout=10)).count == before + 3
    with pytest.raises(CursorNotFound):
        await listed(memory, after=new_id("archive"))
    with pytest.raises(FolderNotFound):
        await memory.folders.GetFolderId(pb.GetFolderIdRequest(folder_name=name()), timeout=10)


async def test_statistics_tell_of_each_folder_if_asked(memory: Any) -> None:
    made = await make(memory)
    told = await memory.folders.GetFolderStatistics(pb.GetFolderStatisticsRequest(include_files=True), timeout=10)
    short = await memory.folders.GetFolderStatistics(pb.GetFolderStatisticsRequest(), timeout=10)

    assert made.id in [folder.folder_id for folder in told.folders]
    assert (len(told.folders), len(short.folders)) == (told.folder_count, 0)
    assert short.folder_count == told.folder_count


async def test_a_folder_is_no_archive_to_callers(memory: Any) -> None:
    made = await make(memory)
    archives = await memory.archives.ListArchives(
        archive_service_pb2.ListArchivesRequest(name=made.name, limit=1000), timeout=10
    )

    assert list(archives.archives) == []
    with pytest.raises(ArchiveNotFound):
        await memory.passages.SearchPassages(
            passage_service_pb2.SearchPassagesRequest(archive_id=made.id, query="x"), timeout=10
        )


async def test_nothing_of_an_unknown_folder_is_told(memory: Any) -> None:
    made = await make(memory)
    with memory.actor(memory.BOB):
        foreign = (await make(memory)).id
    await delete(memory, made.id)
    for folder_id in (made.id, foreign, new_id("source")):
        for call, request in (
            (memory.folders.GetFolder, pb.GetFolderRequest(folder_id=folder_id)),
            (memory.folders.DeleteFolder, pb.DeleteFolderRequest(folder_id=folder_id)),
            (memory.folders.ListFolderAgentIds, pb.ListFolderAgentIdsRequest(folder_id=folder_id)),
            (memory.folders.ListFolderPassages, pb.ListFolderPassagesRequest(folder_id=folder_id)),
            (memory.folders.UpdateFolder, pb.UpdateFolderRequest(folder_id=folder_id, folder={"description": "x"})),
            (memory.files.ListFiles, file_service_pb2.ListFilesRequest(folder_id=folder_id)),
            (memory.files.GetFile, file_service_pb2.GetFileRequest(folder_id=folder_id, file_id=new_id("file"))),
            (memory.files.DeleteFile, file_service_pb2.DeleteFileRequest(folder_id=folder_id, file_id=new_id("file"))),
        ):
            with pytest.raises(FolderNotFound):
                await call(request, timeout=10)


async def test_nothing_of_an_unknown_file_is_told(memory: Any) -> None:
    folder_id, file_id = (await make(memory)).id, new_id("file")
    with pytest.raises(FileNotFound):
        await memory.files.GetFile(file_service_pb2.GetFileRequest(folder_id=folder_id, file_id=file_id), timeout=10)
    with pytest.raises(FileNotFound):
        await memory.files.DeleteFile(
            file_service_pb2.DeleteFileRequest(folder_id=folder_id, file_id=file_id), timeout=10
        )


async def test_another_embedder_embeds_the_chunks_of_a_folder_anew(memory: Any) -> None:
    made = await make(memory, embedding="test/words")
    sent = file_service_pb2.UploadFileRequest(folder_id=made.id)
    sent.file.file_name, sent.file.content, sent.file.size = "a.txt", b"an old automobile", 17

    async def stream() -> Any:
        yield sent

    await memory.files.UploadFile(stream(), timeout=10)
    await embedded(memory, made.id, 512)
    config = archive_pb2.EmbeddingConfig(handle="test/small", embedding_chunk_size=100)
    change = pb.UpdateFolderRequest(folder_id=made.id, folder=folder_pb2.Folder(embedding_config=config))
    changed = (await memory.folders.UpdateFolder(change, timeout=10)).folder

    assert (changed.embedding_config.handle, changed.embedding_config.embedding_chunk_size) == ("test/small", 100)
    await embedded(memory, made.id, 64)
    state = await memory.archives.GetArchiveEmbedding(
        archive_service_pb2.GetArchiveEmbeddingRequest(archive_id=made.id), timeout=10
    )
    assert (state.embedding.embedding, state.embedding.passage_count) == ("test/small", 1)
    for handle, error in (("test/none", ModelNotFound), ("", InvalidArgument)):
        config = archive_pb2.EmbeddingConfig(handle=handle, embedding_chunk_size=9000)
        change = pb.UpdateFolderRequest(folder_id=made.id, folder=folder_pb2.Folder(embedding_config=config))
        if handle:
            change.folder.embedding_config.embedding_chunk_size = 0
        with pytest.raises(error):
            await memory.folders.UpdateFolder(change, timeout=10)


async def embedded(memory: Any, folder_id: str, size: int) -> None:
    """Wait until the one chunk of a folder has a vector of this size."""
    request = passage_service_pb2.SearchPassagesRequest(folder_ids=[folder_id], query="car")
    async with asyncio.timeout(30):
        sizes: list[int] = []
        while sizes != [size]:
            found = await memory.passages.SearchPassages(request, timeout=10)
            sizes = [len(hit.passage.embedding) for hit in found.results]
