"""The unmodified letta-client against a server of its own process."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

import pytest

from letta_client import Letta
from letta_client.types import AgentState
from tests.rest_records import Record, compare, recording
from tests.servers import RunningServer

RENEW = "LETTA_RENEW_RECORDS"
"""Set it to keep what the REST answers now, where a change of it is meant."""


@pytest.fixture(autouse=True)
def rest_record(request: pytest.FixtureRequest) -> Iterator[Record]:
    """Hold what the REST answers during each test against what it answered before, byte by byte.

    A test marked `varies` is not held: its answers depend on which of two things comes first.
    """
    record = Record()
    with recording(record):
        yield record
    if record.calls and not request.node.get_closest_marker("varies"):
        name = re.sub(r"[^A-Za-z0-9_]+", "-", f"{request.module.__name__.rsplit('.', 1)[-1]}-{request.node.name}")
        compare(name.strip("-"), record, renew=bool(os.environ.get(RENEW)))


@pytest.fixture(scope="module")
def client(server: RunningServer) -> Iterator[Letta]:
    with Letta(base_url=server.http_url, api_key="unused", timeout=20, max_retries=0) as made:
        yield made


@pytest.fixture
def agent(client: Letta) -> Iterator[AgentState]:
    blocks = [{"label": "human", "value": ""}, {"label": "persona", "value": "I am brief."}]
    made = client.agents.create(model="builtin/rules", memory_blocks=blocks)
    yield made
    client.agents.delete(made.id)
