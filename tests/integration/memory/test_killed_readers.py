"""A process is killed in the middle of a file; another one reads all of it, and every chunk is there once."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import httpx
import psycopg

from letta_common.values.ids import derived_id
from tests.callers import SCHEMAS
from tests.servers import letta_server

TEXT = "".join(f"Line {number} tells of the ship Orion and its crew.\n" for number in range(11_000))
BLOCKED = 400
"""Place of the chunk that cannot be written while the test holds it: the first of the third lot."""


def one(url: str, statement: str, *values: Any) -> Any:
    with psycopg.connect(url) as conn:
        return conn.execute(statement.encode(), values).fetchone()


def test_what_a_killed_process_began_is_read_whole_and_once(databases: Any) -> None:
    url = databases.clone(SCHEMAS)
    with psycopg.connect(url) as holder, letta_server(url) as first:
        folder, file_id = begin(first.http_url, holder)
        while one(url, "select count(*) from memory.passages where file_id = %s", file_id) != (BLOCKED,):
            time.sleep(0.02)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        holder.rollback()
    assert one(url, "select status, attempts, chunk_count from memory.files") == (2, 1, None)
    # The time in which the dead process might still have been heard of.
    with psycopg.connect(url) as conn:
        conn.execute("update memory.files set lease_until = now()")
    with letta_server(url) as second, httpx.Client(base_url=second.http_url, timeout=60) as http:
        path = f"/v1/folders/{folder}/files/{file_id}"
        while (file := http.get(path).json())["processing_status"] not in ("completed", "error"):
            time.sleep(0.2)
        text = http.get(path, params={"include_content": True}).json()["content"]

    places = one(
        url, "select count(*), count(distinct file_place), max(file_place) + 1 from memory.passages where not pending"
    )
    assert (file["processing_status"], text == TEXT) == ("completed", True)
    assert places == (file["total_chunks"],) * 3
    assert one(url, "select passage_count from memory.archives where of_folder") == (file["total_chunks"],)


def begin(http_url: str, holder: psycopg.Connection) -> tuple[str, str]:
    """Upload a file of which one chunk cannot be written yet; return the ids of its folder and its own."""
    with httpx.Client(base_url=http_url, timeout=60) as http:
        folder = http.post("/v1/folders/", json={"name": "docs"}).json()
        org, place = folder["organization_id"], folder["id"]
        file_id = derived_id("file", org, place, "key")
        chunk = derived_id("passage", org, file_id, str(BLOCKED))
        holder.execute(
            "insert into memory.passages (organization_id, archive_id, id, text, created_at, updated_at, scope, place) "
            "values (%s, %s, %s, '', now(), now(), 0, 0)",
            (org, place, chunk),
        )
        sent = http.post(
            f"/v1/folders/{place}/upload",
            files={"file": ("a.txt", TEXT.encode())},
            headers={"idempotency-key": "key"},
        )
        assert sent.json()["id"] == file_id
    return place, file_id
