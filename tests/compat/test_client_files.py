"""Folders and files of agents through the unmodified letta-client."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from letta_client import APIStatusError, Letta, NotFoundError
from letta_client.types import AgentState, Folder
from tests.callers import PATIENCE

pytestmark = pytest.mark.varies  # an embedder that does not answer yet leaves a new folder without one
READING = {"open_files", "grep_files", "semantic_search_files"}


@pytest.fixture
def folder(client: Letta) -> Iterator[Folder]:
    made = client.folders.create(name="handbook", description="How we work.", instructions="Quote it.")
    yield made
    client.folders.delete(made.id)


def put(client: Letta, folder: Folder, name: str) -> str:
    """Upload a file, and wait until its text was read."""
    sent = client.folders.files.upload(folder.id, file=(name, b"Be kind.\nBe brief.\n"))
    assert sent.id
    deadline = time.monotonic() + PATIENCE
    while True:
        status = client.folders.files.retrieve(sent.id, folder_id=folder.id).processing_status
        if status in ("embedding", "completed"):
            return sent.id
        assert status in ("pending", "parsing")
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_folder_is_attached_and_detached(client: Letta, agent: AgentState, folder: Folder) -> None:
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    assert [each.id for each in client.agents.folders.list(agent.id)] == [folder.id]
    assert {tool.name for tool in client.agents.tools.list(agent.id, limit=50)} >= READING
    assert list(client.folders.agents.list(folder.id)) == [agent.id]
    state = client.agents.retrieve(agent.id, include=["agent.sources", "agent.tools"])
    assert [each.id for each in state.sources] == [folder.id]
    client.agents.folders.detach(folder.id, agent_id=agent.id)
    assert list(client.agents.folders.list(agent.id)) == []
    assert not READING & {tool.name for tool in client.agents.tools.list(agent.id, limit=50)}


def test_files_are_opened_and_closed(client: Letta, agent: AgentState, folder: Folder) -> None:
    ids = [put(client, folder, name) for name in ("a.md", "b.md", "c.md")]
    client.agents.update(agent.id, max_files_open=2)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    page = client.agents.files.list(agent.id, order="asc")
    assert [(file.file_id, file.file_name, file.is_open) for file in page.files] == [
        (ids[0], "handbook/a.md", True),
        (ids[1], "handbook/b.md", True),
        (ids[2], "handbook/c.md", False),
    ]
    assert page.files[0].visible_content == "[Viewing file start (out of 2 lines)]\n1: Be kind.\n2: Be brief."
    assert page.has_more is False
    assert [file.file_id for file in client.agents.files.list(agent.id, limit=1)] == ids[::-1]
    assert client.agents.files.open(ids[2], agent_id=agent.id) == ["handbook/a.md"]
    client.agents.files.close(ids[2], agent_id=agent.id)
    assert [file.file_id for file in client.agents.files.list(agent.id, is_open=True)] == [ids[1]]
    assert client.agents.files.close_all(agent.id) == ["handbook/b.md"]
    with pytest.raises(NotFoundError):
        client.agents.files.open("file-00000000-0000-4000-8000-000000000000", agent_id=agent.id)


def test_an_agent_is_made_with_folders(client: Letta, folder: Folder) -> None:
    put(client, folder, "a.md")
    made = client.agents.create(model="builtin/rules", memory_blocks=[], folder_ids=[folder.id])
    try:
        assert [each.id for each in made.sources] == [folder.id]
        [block] = made.memory.file_blocks or []
        assert (block.label, block.is_open, block.value) == (
            "handbook/a.md",
            True,
            "[Viewing file start (out of 2 lines)]\n1: Be kind.\n2: Be brief.",
        )
        window = client.get(f"/v1/agents/{made.id}/context", cast_to=dict[str, object])
        assert "<instructions>Quote it.</instructions>" in str(window["directories"])
    finally:
        client.agents.delete(made.id)
    with pytest.raises(APIStatusError) as refused:
        client.agents.create(model="builtin/rules", folder_ids=["source-00000000-0000-4000-8000-000000000000"])
    assert refused.value.status_code == 404


def test_a_model_reads_what_it_opens(client: Letta, agent: AgentState, folder: Folder) -> None:
    put(client, folder, "a.md")
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    asked = 'CALL open_files {"file_requests": [{"file_name": "handbook/a.md", "offset": 1, "length": 1}]}'
    answer = client.agents.messages.create(agent.id, input=asked)
    [returned] = [message for message in answer.messages if message.message_type == "tool_return_message"]
    assert returned.tool_return == "* Opened handbook/a.md (lines 2-2)"
    [file] = client.agents.files.list(agent.id)
    assert file.visible_content == "[Viewing lines 2 to 2 (out of 2 lines)]\n2: Be brief."
