"""Folders and their files through the unmodified letta-client, and sources as older clients ask for them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any
from urllib.request import Request, urlopen

import httpx
import pytest

from letta_client import APIStatusError, ConflictError, Letta, NotFoundError, UnprocessableEntityError
from tests.servers import RunningServer

EMBEDDER = "builtin/use-multilingual"
TEXT = "Orion launches in May.\nThe budget is 5.\n" * 20
FILE_KEYS = [
    "source_id", "file_name", "original_file_name", "file_path", "file_type", "file_size", "file_creation_date",
    "file_last_modified_date", "processing_status", "error_message", "total_chunks", "chunks_embedded", "content", "id",
    "organization_id", "created_at", "updated_at",
]  # fmt: skip
FOLDER_KEYS = [
    "name", "description", "instructions", "metadata", "id", "embedding_config", "organization_id", "created_by_id",
    "last_updated_by_id", "created_at", "updated_at",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def embedder(server: RunningServer) -> None:
    """Wait until the embedder answers in time, so that each folder knows its dimension; no part of a record either."""
    number = 0
    while True:
        number += 1
        body = json.dumps({"name": f"warm-{number}", "embedding": EMBEDDER}).encode()
        headers = {"authorization": "Bearer x", "content-type": "application/json"}
        with urlopen(Request(f"{server.http_url}/v1/folders/", body, headers), timeout=30) as answer:
            made = json.load(answer)
        with urlopen(Request(f"{server.http_url}/v1/folders/{made['id']}", headers=headers, method="DELETE")):
            if made["embedding_config"]["embedding_dim"]:
                return


@pytest.fixture
def folder(client: Letta) -> Iterator[Any]:
    made = client.folders.create(name="docs", embedding=EMBEDDER, instructions="Read them.")
    yield made
    client.folders.delete(made.id)


def done(server: RunningServer, folder_id: str, file_id: str) -> dict[str, Any]:
    """Wait until a file is read and embedded; not by httpx, since how often it is asked is no part of a record."""
    request = Request(
        f"{server.http_url}/v1/folders/{folder_id}/files/{file_id}", headers={"authorization": "Bearer x"}
    )
    while True:
        with urlopen(request, timeout=10) as answer:
            found = dict(json.load(answer))
        if found["processing_status"] in ("completed", "error"):
            return found
        time.sleep(0.05)


def test_a_folder_lives_its_life(client: Letta, folder: Any) -> None:
    got = client.folders.retrieve(folder.id)
    changed = client.folders.update(folder.id, name="papers", description="What we wrote.")

    assert set(got.to_dict()) == set(FOLDER_KEYS)
    assert got == folder
    assert (changed.name, changed.description, changed.instructions) == ("papers", "What we wrote.", "Read them.")
    assert [each.id for each in client.folders.list(name="papers")] == [folder.id]
    assert client.folders.list(name="docs").items == []
    assert list(client.folders.agents.list(folder.id)) == []
    with pytest.raises(ConflictError):
        client.folders.create(name="papers", embedding=EMBEDDER)


def test_a_file_is_uploaded_read_and_deleted(client: Letta, server: RunningServer, folder: Any) -> None:
    sent = client.folders.files.upload(folder.id, file=("notes.txt", TEXT.encode(), "text/plain"))
    found = done(server, folder.id, str(sent.id))

    assert (found["file_name"], found["file_size"], found["file_type"]) == ("notes.txt", len(TEXT), "text/plain")
    assert (found["processing_status"], found["total_chunks"], found["chunks_embedded"]) == ("completed", 1, 1)
    assert list(found) == FILE_KEYS
    got = client.folders.files.retrieve(str(sent.id), folder_id=folder.id, include_content=True)
    assert got.content == TEXT
    assert [each.id for each in client.folders.files.list(folder.id)] == [sent.id]
    again = client.folders.files.upload(
        folder.id, file=("notes.txt", b"two"), duplicate_handling="suffix", name="notes.txt"
    )
    assert again.file_name == "notes_(1).txt"
    with pytest.raises(ConflictError):
        client.folders.files.upload(folder.id, file=("notes.txt", b"two"), duplicate_handling="error")
    assert client.folders.files.upload(folder.id, file=("notes.txt", b"2"), duplicate_handling="skip").id == sent.id
    done(server, folder.id, str(again.id))
    client.folders.files.delete(str(sent.id), folder_id=folder.id)
    with pytest.raises(NotFoundError):
        client.folders.files.retrieve(str(sent.id), folder_id=folder.id)
    assert [each.file_name for each in client.folders.files.list(folder.id)] == ["notes_(1).txt"]


def test_passages_of_a_folder(server: RunningServer, client: Letta, folder: Any) -> None:
    sent = client.folders.files.upload(folder.id, file=("notes.txt", TEXT.encode()))
    done(server, folder.id, str(sent.id))
    [passage] = httpx.get(f"{server.http_url}/v1/folders/{folder.id}/passages").json()

    assert (passage["source_id"], passage["file_id"], passage["archive_id"]) == (folder.id, sent.id, None)
    assert (passage["file_name"], passage["text"]) == ("docs/notes.txt", TEXT.strip())
    assert passage["embedding_config"]["handle"] == EMBEDDER


def test_what_no_folder_takes(client: Letta, folder: Any) -> None:
    unknown = "source-00000000-0000-4000-8000-000000000000"
    with pytest.raises(NotFoundError):
        client.folders.retrieve(unknown)
    with pytest.raises(NotFoundError):
        client.folders.files.upload(unknown, file=("a.txt", b"x"))
    with pytest.raises(UnprocessableEntityError):
        client.folders.files.upload(folder.id, file=("a.txt", b"x"), name="../a.txt")
    with pytest.raises(NotFoundError):
        client.folders.files.delete("file-00000000-0000-4000-8000-000000000000", folder_id=folder.id)


def test_sources_are_folders_of_older_clients(server: RunningServer) -> None:
    with httpx.Client(base_url=server.http_url) as http:
        config = {"embedding_endpoint_type": "builtin", "embedding_model": "use-multilingual", "handle": EMBEDDER}
        made = http.post(
            "/v1/sources/", json={"name": "old", "embedding_config": config | {"embedding_chunk_size": 200}}
        )
        source = made.json()
        path = f"/v1/sources/{source['id']}"

        assert list(source) == [*FOLDER_KEYS[:7], "vector_db_provider", *FOLDER_KEYS[7:]]
        assert (source["embedding_config"]["embedding_chunk_size"], source["metadata"]) == (200, None)
        assert http.get("/v1/sources/name/old").json() == source["id"]
        assert http.get("/v1/folders/name/old").json() == source["id"]
        assert http.get("/v1/sources/count").json() == 1
        assert source in http.get("/v1/sources/").json()
        assert http.get(path).json() == source
        assert http.patch(path, json={"instructions": "x"}).json()["vector_db_provider"] == "native"
        sent = http.post(f"{path}/upload", files={"file": ("a.txt", b"abc")}).json()
        told = http.get("/v1/sources/metadata", params={"include_detailed_per_source_metadata": True}).json()
        assert (told["total_sources"], told["total_files"], told["total_size"]) == (1, 1, 3)
        assert told["sources"][0]["files"] == [{"file_id": sent["id"], "file_name": "a.txt", "file_size": 3}]
        done(server, source["id"], sent["id"])
        [file] = http.get(f"{path}/files", params={"include_content": True}).json()
        assert file["content"] == "abc"
        assert http.get(f"{path}/files/{sent['id']}").json()["content"] is None
        assert (http.get(f"{path}/agents").json(), len(http.get(f"{path}/passages").json())) == ([], 1)
        gone = http.delete(f"{path}/{sent['id']}")
        assert (gone.status_code, gone.content) == (204, b"")
        last = http.delete(path)
        assert (last.status_code, last.json()) == (200, None)
        assert http.get(path).status_code == 404


def test_files_beyond_a_message_and_beyond_the_limit(client: Letta, server: RunningServer, folder: Any) -> None:
    large = client.folders.files.upload(folder.id, file=("large.bin", bytes(17 << 20)))
    found = done(server, folder.id, str(large.id))
    with pytest.raises(APIStatusError) as caught:
        client.folders.files.upload(folder.id, file=("larger.bin", bytes((50 << 20) + 1)), timeout=60)

    assert (found["file_size"], found["processing_status"]) == (17 << 20, "error")
    assert found["error_message"]
    assert caught.value.status_code == 413
    assert [each.file_name for each in client.folders.files.list(folder.id)] == ["large.bin"]
