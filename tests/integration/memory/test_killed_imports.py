"""A process is killed in the middle of an import; another one goes on with it, and every passage is there once."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import psycopg

from letta_common.values.ids import derived_id
from tests.callers import SCHEMAS
from tests.servers import letta_server

ENTRIES = [{"key": f"entry-{number}", "text": f"Text {number}.", "tags": [f"t{number}"]} for number in range(1_000)]
BLOCKED = 450
"""An entry that cannot be written while the test holds it: one of the third message, of 200 each."""


def test_what_a_killed_process_began_to_import_goes_on(databases: Any) -> None:
    url = databases.clone(SCHEMAS)
    with psycopg.connect(url) as holder, letta_server(url) as first:
        with httpx.Client(base_url=first.http_url, timeout=60) as http:
            archive = http.post("/v1/archives/", json={"name": "notes"}).json()
        path = f"/v1/archives/{archive['id']}/passages"
        blocked = derived_id("passage", archive["organization_id"], archive["id"], "key", f"entry-{BLOCKED}")
        holder.execute(
            "insert into memory.passages (organization_id, archive_id, id, text, created_at, updated_at, scope, place) "
            "values (%s, %s, %s, '', now(), now(), 0, 0)",
            (archive["organization_id"], archive["id"], blocked),
        )
        sender = threading.Thread(target=send, args=(first.http_url + path, 0))
        sender.start()
        with httpx.Client(base_url=first.http_url, timeout=60) as http:
            while came(http, path)["received_count"] < 400:
                time.sleep(0.05)
        # The third message waits for the entry that is held.
        with psycopg.connect(url, autocommit=True) as conn:
            while not conn.execute("select from pg_locks where not granted").fetchall():
                time.sleep(0.05)
        os.kill(first.process.pid, signal.SIGKILL)
        first.process.wait()
        sender.join()
        holder.rollback()
    with letta_server(url) as second, httpx.Client(base_url=second.http_url, timeout=60) as http:
        left = came(http, path)
        send(second.http_url + path, left["received_count"])
        lines = http.get(f"{path}/export").text.splitlines()
        done = came(http, path)

    # The database may have brought the message to its end that the process had sent: whole, and counted.
    assert left in ({"received_count": whole, "written_count": whole} for whole in (400, 600))
    assert done == {"received_count": 1_000, "written_count": 1_000}
    got = [json.loads(line) for line in lines]
    assert [(each["text"], each["tags"]) for each in got] == [(each["text"], each["tags"]) for each in ENTRIES]


def send(path: str, offset: int) -> None:
    """Send what is left of the import, to a process that may die."""
    body = "\n".join(map(json.dumps, ENTRIES[offset:]))
    with suppress(httpx.TransportError):
        httpx.post(f"{path}/import", params={"import_id": "i", "offset": offset}, content=body, timeout=120)


def came(http: httpx.Client, path: str) -> dict[str, int]:
    answer = http.get(f"{path}/import", params={"import_id": "i"})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())
