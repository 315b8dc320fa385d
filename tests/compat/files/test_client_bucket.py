"""Files whose bytes are in a bucket by setting, through the unmodified letta-client."""

from __future__ import annotations

import time

import pytest

from letta_client import Letta
from tests.callers import PATIENCE, SCHEMAS
from tests.servers import letta_server
from tests.support.buckets import storage
from tests.support.databases import Databases

pytestmark = pytest.mark.varies


def test_a_file_goes_to_the_bucket_and_leaves_it(databases: Databases) -> None:
    with storage() as bucket, letta_server(databases.clone(SCHEMAS), environment=bucket.environment) as server:
        client = Letta(base_url=server.http_url, api_key="unused", timeout=60, max_retries=0)
        folder = client.folders.create(name="library")
        sent = client.folders.files.upload(folder.id, file=("tide.txt", b"High at six.\n" * 50_000))
        assert sum(bucket.objects().values()) == 650_000
        deadline = time.monotonic() + PATIENCE
        while client.folders.files.retrieve(str(sent.id), folder_id=folder.id).processing_status in (
            "pending",
            "parsing",
        ):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        found = client.folders.files.retrieve(str(sent.id), folder_id=folder.id, include_content=True)
        assert found.content == "High at six.\n" * 50_000
        client.folders.delete(folder.id)
        while bucket.objects():
            assert time.monotonic() < deadline
            time.sleep(0.05)
