"""What agents and their callers do with files, through the unmodified letta-client."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from letta_client import Letta
from letta_client.types import AgentState, Folder
from tests.compat.files.conftest import Put

pytestmark = pytest.mark.varies
READING = {"open_files", "grep_files", "semantic_search_files"}
Call = Callable[..., str]
TEN = "".join(f"Line {number}.\n" for number in range(1, 11))


def tools_of(client: Letta, agent: AgentState) -> set[str]:
    return {str(tool.name) for tool in client.agents.tools.list(agent.id, limit=50)} & READING


def open_names(client: Letta, agent: AgentState) -> list[str]:
    return [str(file.file_name) for file in client.agents.files.list(agent.id, is_open=True, order="asc")]


def opening(*requests: dict[str, Any], **more: Any) -> str:
    return json.dumps({"file_requests": list(requests), **more})


def test_tools_come_with_the_first_folder_and_go_with_the_last(
    client: Letta, agent: AgentState, folder: Folder
) -> None:
    other = client.folders.create(name="attic")
    assert tools_of(client, agent) == set()
    for each in (folder, other):
        client.agents.folders.attach(each.id, agent_id=agent.id)
        assert tools_of(client, agent) == READING
    client.agents.folders.detach(folder.id, agent_id=agent.id)
    assert tools_of(client, agent) == READING
    client.agents.folders.detach(other.id, agent_id=agent.id)
    assert tools_of(client, agent) == set()
    client.folders.delete(other.id)


def test_files_that_are_there_are_opened_when_a_folder_is_attached(
    client: Letta, agent: AgentState, folder: Folder, put: Put
) -> None:
    for name in ("a.txt", "b.txt"):
        put(folder, name, TEN)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    assert open_names(client, agent) == ["library/a.txt", "library/b.txt"]
    put(folder, "c.txt", TEN)
    assert open_names(client, agent) == ["library/a.txt", "library/b.txt", "library/c.txt"]
    client.agents.folders.detach(folder.id, agent_id=agent.id)
    assert not client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks


def test_an_agent_that_is_made_with_folders_sees_their_files(client: Letta, folder: Folder, put: Put) -> None:
    put(folder, "a.txt", TEN)
    made = client.agents.create(model="builtin/rules", memory_blocks=[], source_ids=[folder.id])
    assert (tools_of(client, made), open_names(client, made)) == (READING, ["library/a.txt"])
    client.agents.delete(made.id)
    assert list(client.folders.agents.list(folder.id)) == []
    assert [file.file_name for file in client.folders.files.list(folder.id)] == ["a.txt"]


def test_a_view_has_a_range_and_says_of_how_many_lines(
    client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call
) -> None:
    put(folder, "a.txt", TEN)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    name = "library/a.txt"
    said = call(agent, "open_files", opening({"file_name": name, "offset": 4, "length": 3}))
    assert said == f"* Opened {name} (lines 5-7)"
    [file] = client.agents.files.list(agent.id)
    assert (file.start_line, file.end_line) == (5, 7)
    assert file.visible_content == "[Viewing lines 5 to 7 (out of 10 lines)]\n5: Line 5.\n6: Line 6.\n7: Line 7."
    [block] = client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks or []
    assert block.value == file.visible_content
    assert call(agent, "open_files", opening({"file_name": name})) == f"* Opened {name}"
    [file] = client.agents.files.list(agent.id)
    assert str(file.visible_content).startswith("[Viewing file start (out of 10 lines)]\n1: Line 1.\n")
    said = call(agent, "open_files", opening({"file_name": name, "offset": 10}))
    assert f"{name} has 10 lines" in said
    said = call(agent, "open_files", opening({"file_name": "library/b.txt"}))
    assert "there is no file library/b.txt; the files are: library/a.txt" in said


def test_a_view_ends_at_its_limit(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    put(folder, "a.txt", TEN * 20)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    client.agents.update(agent.id, per_file_view_window_char_limit=200)
    [file] = client.agents.files.list(agent.id)
    assert len(str(file.visible_content)) <= 200
    [block] = client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks or []
    assert block.limit == 200
    client.agents.update(agent.id, per_file_view_window_char_limit=20_000)
    [file] = client.agents.files.list(agent.id)
    assert len(str(file.visible_content)) > 1_000


def test_files_that_were_used_longest_ago_are_closed_for_others(
    client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call
) -> None:
    ids = {name: put(folder, name, TEN).id for name in ("a", "b", "c", "d")}
    client.agents.update(agent.id, max_files_open=3)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    assert open_names(client, agent) == ["library/a", "library/b", "library/c"]
    # Used again, so that it is not the one used longest ago.
    assert client.agents.files.open(ids["a"], agent_id=agent.id) == []
    assert client.agents.files.open(ids["d"], agent_id=agent.id) == ["library/b"]
    said = call(agent, "open_files", opening({"file_name": "library/b"}))
    assert said.endswith("Closed to make room, as used longest ago: library/c")
    assert open_names(client, agent) == ["library/a", "library/b", "library/d"]
    said = call(agent, "open_files", opening(*({"file_name": f"library/{name}"} for name in "abcd")))
    assert "at most 3 files may be open at once" in said
    client.agents.update(agent.id, max_files_open=1)
    assert open_names(client, agent) == ["library/b"]


def test_others_are_closed_when_that_is_asked_for(
    client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call
) -> None:
    for name in ("a", "b", "c"):
        put(folder, name, TEN)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    said = call(agent, "open_files", opening({"file_name": "library/b"}, close_all_others=True))
    assert said == "* Opened library/b\nClosed 2 other files: library/a, library/c"
    assert open_names(client, agent) == ["library/b"]


def test_all_files_are_closed_at_once(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    for name in ("a", "b", "c"):
        put(folder, name, TEN)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    assert sorted(client.agents.files.close_all(agent.id)) == ["library/a", "library/b", "library/c"]
    assert client.agents.files.close_all(agent.id) == []
    assert {
        block.value for block in client.agents.retrieve(agent.id, include=["agent.blocks"]).memory.file_blocks or []
    } <= {""}
    assert len(list(client.agents.files.list(agent.id, is_open=False))) == 3


def test_lines_are_found_by_an_expression(
    client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call
) -> None:
    put(folder, "a.txt", TEN)
    put(folder, "b.md", "before\nORION rises\nafter\n")
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    said = call(agent, "grep_files", '{"pattern": "orion"}')
    assert said.startswith("Found 1 total matches across 1 file (showing matches 1-1 of 1)")
    assert "=== library/b.md:2 ===\n  1: before\n> 2: ORION rises\n  3: after" in said
    said = call(agent, "grep_files", json.dumps({"pattern": r"^line (2|3)\.$", "context_lines": 0}))
    assert ("> 2: Line 2." in said, "> 3: Line 3." in said, "Line 4" in said) == (True, True, False)
    said = call(agent, "grep_files", '{"pattern": "o", "include": "*.md", "context_lines": 0}')
    assert ("library/b.md" in said, "library/a.txt" in said) == (True, False)
    assert "No line matches 'nowhere' in 2 files." in call(agent, "grep_files", '{"pattern": "nowhere"}')
    assert call(agent, "grep_files", '{"pattern": "("}').startswith("the pattern cannot be read: missing )")


def test_many_matches_come_twenty_at_a_time(
    client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call
) -> None:
    put(folder, "a.txt", "hit\n" * 50)
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    seen, offset = 0, 0
    while True:
        said = call(agent, "grep_files", json.dumps({"pattern": "hit", "offset": offset, "context_lines": 0}))
        seen += said.count("> ")
        if "call grep_files again with offset=" not in said:
            break
        offset = int(said.rpartition("offset=")[2].rstrip("."))
    assert (seen, offset) == (50, 40)


def test_passages_are_found_by_meaning(client: Letta, agent: AgentState, folder: Folder, put: Put, call: Call) -> None:
    put(folder, "pets.txt", "The cat sleeps on the sofa all day.", until="embedded")
    put(folder, "money.txt", "The budget of the launch is five thousand euros.", until="embedded")
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    said = call(agent, "semantic_search_files", '{"query": "how much does the start cost", "limit": 1}')
    assert "=== library/money.txt (passage #1) (score: " in said
    assert "pets.txt" not in said
    client.agents.folders.detach(folder.id, agent_id=agent.id)
    client.agents.tools.attach(
        next(tool.id for tool in client.tools.list(name="semantic_search_files")), agent_id=agent.id
    )
    assert "money" not in call(agent, "semantic_search_files", '{"query": "start cost"}')


def test_what_another_agent_opens_stays_closed(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    file = put(folder, "a", TEN)
    other = client.agents.create(model="builtin/rules", memory_blocks=[], folder_ids=[folder.id])
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    client.agents.files.close(file.id, agent_id=agent.id)
    assert (open_names(client, agent), open_names(client, other)) == ([], ["library/a"])
    client.agents.delete(other.id)


def test_pages_of_the_files_of_an_agent(client: Letta, agent: AgentState, folder: Folder, put: Put) -> None:
    ids = [put(folder, f"{number}.txt", TEN).id for number in range(5)]
    client.agents.folders.attach(folder.id, agent_id=agent.id)
    first = client.agents.files.list(agent.id, order="asc", limit=2)
    assert ([file.file_id for file in first.files], first.has_more) == (ids[:2], True)
    assert [file.file_id for file in client.agents.files.list(agent.id, order="asc", limit=2)] == ids
