"""The unmodified letta-client against a server of its own process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from letta_client import Letta
from letta_client.types import AgentState
from tests.servers import RunningServer, letta_server


@pytest.fixture(scope="module")
def server(databases) -> Iterator[RunningServer]:
    with letta_server(databases.clone(["auth", "agent", "memory", "tools", "llm"])) as running:
        yield running


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
