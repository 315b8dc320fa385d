"""`letta server` in a process of its own, for the tests of a module."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.servers import RunningServer, letta_server
from tests.support.databases import SCHEMAS, Databases


@pytest.fixture(scope="module")
def server(databases: Databases) -> Iterator[RunningServer]:
    with letta_server(databases.clone(tuple(SCHEMAS))) as running:
        yield running


@pytest.fixture(scope="module")
def http(server: RunningServer) -> Iterator[httpx.Client]:
    """Call the server's REST."""
    with httpx.Client(base_url=server.http_url, timeout=20) as client:
        yield client
