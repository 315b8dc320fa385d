"""A process is killed while it corrects a block: that is done whole or not at all, and a repeat does it once."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import psycopg
import pytest

from tests.callers import SCHEMAS
from tests.servers import letta_server

ABOUT, CORRECTED = "Name: Sam\nFavorite color: blue", "Name: Sam\nFavorite color: green"
REVISIONS = "select version, suggestion_id from memory.block_history where block_id = %s order by version"
WAITING = (
    "select {} from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' "
    "and query like '%%decide_suggestion%%'"
)


@pytest.mark.parametrize("whole", [True, False], ids=["the database goes on", "the database gives up too"])
def test_a_correction_that_a_killed_process_began_is_made_once(databases: Any, whole: bool) -> None:
    url = databases.clone(SCHEMAS)
    with psycopg.connect(url) as holder, letta_server(url) as first:
        block_id, suggestion_id = propose(first.http_url)
        # The block is written before its revision, which waits for this.
        holder.execute("lock table memory.block_history in exclusive mode")
        path = f"/v1/memory-suggestions/{suggestion_id}/accept"
        sender = threading.Thread(target=accept, args=(first.http_url + path,))
        sender.start()
        with psycopg.connect(url, autocommit=True) as conn:
            while not conn.execute(WAITING.format("1").encode()).fetchall():
                time.sleep(0.05)
            os.kill(first.process.pid, signal.SIGKILL)
            first.process.wait()
            sender.join()
            if not whole:
                conn.execute(WAITING.format("pg_terminate_backend(pid)").encode())
            holder.rollback()
            while conn.execute(WAITING.format("1").encode()).fetchall():
                time.sleep(0.05)
            found = state(conn, block_id, suggestion_id)
    with letta_server(url) as second, httpx.Client(base_url=second.http_url, timeout=60) as http:
        answers = [http.post(path) for _ in range(2)]
        with psycopg.connect(url, autocommit=True) as conn:
            done = state(conn, block_id, suggestion_id)

    corrected = (CORRECTED, "accepted", [(1, None), (2, suggestion_id)])
    assert found == (corrected if whole else (ABOUT, "open", [(1, None)]))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert done == corrected


def propose(http_url: str) -> tuple[str, str]:
    """Let a user say otherwise than a block; return the ids of the block and of the suggestion."""
    with httpx.Client(base_url=http_url, timeout=60) as http:
        blocks = [{"label": "human", "value": ABOUT}]
        agent = http.post("/v1/agents/", json={"model": "builtin/echo", "memory_blocks": blocks}).json()
        said = http.post(f"/v1/agents/{agent['id']}/messages", json={"input": "My favorite color is green."})
        assert said.status_code == 200, said.text
        while not (found := http.get("/v1/memory-suggestions/", params={"agent_id": agent["id"]}).json()):
            time.sleep(0.1)
        return found[0]["block_id"], found[0]["id"]


def accept(url: str) -> None:
    """Accept a suggestion at a process that dies."""
    with suppress(httpx.TransportError):
        httpx.post(url, timeout=120)


def state(conn: psycopg.Connection[Any], block_id: str, suggestion_id: str) -> tuple[Any, ...]:
    """Return what became of a block and of a suggestion."""
    value = conn.execute("select value from memory.blocks where id = %s", (block_id,)).fetchone()
    decided = conn.execute("select state from memory.suggestions where id = %s", (suggestion_id,)).fetchone()
    assert value
    assert decided
    return value[0], {1: "open", 2: "accepted"}[decided[0]], conn.execute(REVISIONS.encode(), (block_id,)).fetchall()
