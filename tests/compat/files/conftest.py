"""What tests of files share."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from letta_client import Letta
from letta_client.types import AgentState, Folder
from tests.callers import PATIENCE

Put = Callable[..., Any]


@pytest.fixture
def folder(client: Letta) -> Iterator[Folder]:
    made = client.folders.create(name="library")
    yield made
    client.folders.delete(made.id)


@pytest.fixture
def put(client: Letta) -> Put:
    """Return what uploads a file and waits until it is read, or embedded or failed if that is asked for."""

    def upload(folder: Folder, called: str, data: bytes | str, *, until: str = "read", **more: Any) -> Any:
        content = data.encode() if isinstance(data, str) else data
        sent = client.folders.files.upload(folder.id, file=(called, content), **more)
        ends = {"read": ("embedding", "completed"), "embedded": ("completed",), "failed": ("error",)}[until]
        deadline = time.monotonic() + PATIENCE
        while True:
            found = client.folders.files.retrieve(str(sent.id), folder_id=folder.id, include_content=True)
            if found.processing_status in ends:
                return found
            assert found.processing_status != "error", found.error_message
            assert time.monotonic() < deadline, found.processing_status
            time.sleep(0.02)

    return upload


@pytest.fixture
def call(client: Letta) -> Callable[..., str]:
    """Return what lets an agent's model call a tool, and returns what it reads of that."""

    def said(agent: AgentState, tool: str, arguments: str) -> str:
        answer = client.agents.messages.create(agent.id, input=f"CALL {tool} {arguments}")
        [returned] = [each for each in answer.messages if each.message_type == "tool_return_message"]
        return str(returned.tool_return)

    return said
