"""A process is killed while it compares passages; another one goes on, and each suggestion is there once."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

import httpx
import psycopg

from tests.callers import SCHEMAS
from tests.servers import letta_server

TEXTS = ("Sam likes green tea.", "sam likes GREEN tea", "Sam sails boats.", "Sam sails, boats!")


def test_what_a_killed_process_began_to_compare_is_proposed_once(databases: Any) -> None:
    url = databases.clone(SCHEMAS)
    with psycopg.connect(url) as holder, letta_server(url) as first:
        # What is read after the claim waits for this.
        holder.execute("lock table memory.passage_digests in access exclusive mode")
        with httpx.Client(base_url=first.http_url, timeout=60) as http:
            archive_id = http.post("/v1/archives/", json={"name": "notes"}).json()["id"]
            for text in TEXTS:
                assert http.post(f"/v1/archives/{archive_id}/passages", json={"text": text}).status_code < 300
        with psycopg.connect(url, autocommit=True) as conn:
            while not conn.execute("select from memory.archive_reviews where leased_until > now()").fetchall():
                time.sleep(0.05)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        holder.rollback()
    with psycopg.connect(url) as conn:
        assert conn.execute("select place from memory.archive_reviews").fetchall() == [(0,)]
        # The time in which the dead process might still have been heard of.
        conn.execute("update memory.archive_reviews set leased_until = now()")
    with letta_server(url) as second, httpx.Client(base_url=second.http_url, timeout=60) as http:
        while len(found := http.get("/v1/memory-suggestions/", params={"archive_id": archive_id}).json()) < 2:
            time.sleep(0.2)
        with psycopg.connect(url, autocommit=True) as conn:
            while conn.execute("select from memory.archives where review_due").fetchall():
                time.sleep(0.05)
        again = http.get("/v1/memory-suggestions/", params={"archive_id": archive_id}).json()

    assert [each["id"] for each in again] == [each["id"] for each in found]
    assert {tuple(each["text"] for each in one["passages"]) for one in found} == {TEXTS[:2], TEXTS[2:]}
