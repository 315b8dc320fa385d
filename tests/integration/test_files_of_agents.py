"""Agents that read files: what their models are shown of folders, and what they find."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from tests.callers import IMPATIENT, SCHEMAS, Api, calling, environment, orphans, serving, texts, until
from tests.fakes.openai_server import OpenAIServer
from tests.fakes.wire import Say
from tests.support.databases import Databases

FORTY = "Orion launches in May.\nThe budget is 5.\n" * 20
READING = {"open_files", "grep_files", "semantic_search_files"}


class Desk:
    """Agents, their folders and their model."""

    def __init__(self, api: Api, openai: OpenAIServer, url: str) -> None:
        self.api, self.openai, self.url = api, openai, url

    async def folder(self, **more: Any) -> dict[str, Any]:
        made = await self.api.http.post("/v1/folders/", json={"name": f"docs-{uuid4()}", **more})
        assert made.status_code == 200, made.text
        return dict(made.json())

    async def put(self, folder: dict[str, Any], name: str, text: str = FORTY, **more: Any) -> str:
        """Upload a file, and wait until its text was read."""
        path, given = f"/v1/folders/{folder['id']}", {"file": (name, text.encode(), "text/plain")}
        sent = await self.api.http.post(f"{path}/upload", files=given, params={"name": name, **more})
        assert sent.status_code == 200, sent.text
        file_id = str(sent.json()["id"])

        async def status() -> Any:
            return (await self.api.http.get(f"{path}/files/{file_id}")).json()["processing_status"]

        state = await until(status, lambda found: found not in ("pending", "parsing"))
        assert state in ("embedding", "completed")
        return file_id

    async def attach(self, agent_id: str, folder: dict[str, Any], verb: str = "attach") -> dict[str, Any]:
        answer = await self.api.http.patch(f"/v1/agents/{agent_id}/folders/{verb}/{folder['id']}")
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def call(self, agent_id: str, name: str, **arguments: Any) -> str:
        """Let the model call a tool; return what it reads of it."""
        self.openai.requests.clear()
        self.openai.say(Say(calls=[(name, arguments)]))
        await self.api.say(agent_id, "Go on.")
        return str(self.asked()[-1]["messages"][-1]["content"])

    async def shown(self, agent_id: str, text: str = "Well?") -> list[str]:
        """Send a message; return the system prompts of its steps."""
        self.openai.requests.clear()
        await self.api.say(agent_id, text)
        return [str(body["messages"][0]["content"]) for body in self.asked()]

    def asked(self) -> list[dict[str, Any]]:
        return [request.body for request in self.openai.requests if request.body and "messages" in request.body]


@pytest.fixture(scope="module")
async def desk(databases: Databases, openai: OpenAIServer, anthropic: Any) -> AsyncIterator[Desk]:
    url = databases.clone(SCHEMAS)
    variables = {**IMPATIENT, **environment(openai, anthropic), "LETTA_AGENT_SWEEP_SECONDS": "0.2"}
    async with serving(url, environment=variables) as server, calling(server) as api:
        yield Desk(api, openai, url)


def directories(prompt: str) -> str:
    found = re.search(r"<directories>.*</directories>", prompt, re.S)
    return found[0] if found else ""


async def tools_of(desk: Desk, agent_id: str) -> set[str]:
    return {tool["name"] for tool in (await desk.api.http.get(f"/v1/agents/{agent_id}/tools?limit=50")).json()}


async def test_a_model_is_shown_its_directories(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder(description="What we know.", instructions="Quote it.")
    await desk.put(folder, "notes.txt", "Orion.\nMay.")
    await desk.put(folder, 'a "b".txt', "x")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]], max_files_open=1)
    [prompt] = await desk.shown(agent_id)
    name = folder["name"]
    view = "[Viewing file start (out of 2 lines)]\n1: Orion.\n2: May."
    assert directories(prompt) == "\n".join(
        (
            "<directories>",
            "<file_limits>",
            "- current_files_open=1",
            "- max_files_open=1",
            "</file_limits>",
            f'<directory name="{name}">',
            "<description>What we know.</description>",
            "<instructions>Quote it.</instructions>",
            f'<file status="open" name="{name}/notes.txt">',
            "<metadata>",
            "- read_only=true",
            f"- chars_current={len(view)}",
            "- chars_limit=25000",
            "</metadata>",
            "<value>",
            view,
            "</value>",
            "</file>",
            f'<file status="closed" name=\'{name}/a "b".txt\'></file>',
            "</directory>",
            "</directories>",
        )
    )
    assert prompt.index("<memory_metadata>") > prompt.index("</directories>")
    assert {tool["function"]["name"] for tool in desk.asked()[-1]["tools"]} >= READING


async def test_a_model_reads_a_file_to_its_end(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    lines = [f"Fact {number}: it is so." for number in range(1, 301)]
    await desk.put(folder, "facts.txt", "\n".join(lines))
    agent_id = await desk.api.agent(folder_ids=[folder["id"]], per_file_view_window_char_limit=2_000)
    name, offset, read = f"{folder['name']}/facts.txt", 0, []
    for _ in range(20):
        openai.say(Say(calls=[("open_files", {"file_requests": [{"file_name": name, "offset": offset}]})]))
        prompt = (await desk.shown(agent_id))[-1]
        read += re.findall(r"^\d+: (Fact \d+: it is so\.)$", directories(prompt), re.M)
        more = re.search(r"at offset (\d+) to read on", prompt)
        if not more:
            break
        offset = int(more[1])
    assert read == lines
    assert orphans(await desk.api.history(agent_id)) == []


async def test_tools_come_with_the_first_folder_and_go_with_the_last(desk: Desk, openai: OpenAIServer) -> None:
    one, two = await desk.folder(), await desk.folder()
    agent_id = await desk.api.agent()
    before = await tools_of(desk, agent_id)
    assert not before & READING
    state = await desk.attach(agent_id, one)
    assert [source["id"] for source in state["sources"]] == [one["id"]]
    assert state["sources"][0]["vector_db_provider"] == "native"
    assert {tool["name"] for tool in state["tools"]} == before | READING
    await desk.attach(agent_id, two)
    await desk.attach(agent_id, two)
    state = await desk.attach(agent_id, one, "detach")
    assert {tool["name"] for tool in state["tools"]} == before | READING
    state = await desk.attach(agent_id, two, "detach")
    assert (state["sources"], {tool["name"] for tool in state["tools"]}) == ([], before)
    assert directories((await desk.shown(agent_id))[0]) == ""


async def test_calls_open_close_and_evict(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    for name in "abc":
        await desk.put(folder, name)
    agent_id = await desk.api.agent(folder_ids=[folder["id"]], max_files_open=2)
    a, b, c = (f"{folder['name']}/{name}" for name in "abc")
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": c, "offset": 0, "length": 5}])
    assert said == f"* Opened {c} (lines 1-5)\nClosed to make room, as used longest ago: {a}"
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": b}], close_all_others=True)
    assert said == f"* Opened {b}\nClosed 1 other files: {c}"
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": "nothing"}])
    assert said.startswith("there is no file nothing; the files are: ")
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": each} for each in (a, b, c)])
    assert said.startswith("at most 2 files")
    assert "file_name" in await desk.call(agent_id, "open_files", file_requests=[{"file_name": "x" * 2_000}])
    for bad in ([], "x" * 3, [{"file_name": a, "offset": -1}], [{"file_name": a, "length": 0}], [{"offset": 1}]):
        assert (
            "open_files()" in (said := await desk.call(agent_id, "open_files", file_requests=bad)) or "no file" in said
        )
    files = (await desk.api.http.get(f"/v1/agents/{agent_id}/files", params={"is_open": True})).json()["files"]
    assert [file["file_name"] for file in files] == [b]


async def test_lines_are_found_page_by_page(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    await desk.put(folder, "a.txt")
    await desk.put(folder, "b.md", "one\nORION rises\nlast")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]])
    a, b = f"{folder['name']}/a.txt", f"{folder['name']}/b.md"
    said = await desk.call(agent_id, "grep_files", pattern="orion")
    assert said.startswith(
        f"Found 21 total matches across 2 files (showing matches 1-20 of 21)\n{'=' * 80}\n"
        f"- {a}: 20 matches\n- {b}: 1 match\n\n=== {a}:1 ===\n> 1: Orion launches in May.\n  2: The budget is 5.\n"
    )
    assert said.endswith("call grep_files again with offset=20.")
    said = await desk.call(agent_id, "grep_files", pattern="orion", offset=20, context_lines=0)
    assert "(showing matches 21-21 of 21)" in said
    assert said.endswith(f"\n\n=== {b}:2 ===\n> 2: ORION rises")
    said = await desk.call(agent_id, "grep_files", pattern="orion", include="*.md")
    assert said.startswith("Found 1 total matches across 1 file (showing matches 1-1 of 1)")
    assert await desk.call(agent_id, "grep_files", pattern="vega") == "No line matches 'vega' in 2 files."
    assert "cannot be read" in await desk.call(agent_id, "grep_files", pattern="(")


async def test_chunks_are_found(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder(embedding_chunk_size=8)  # tokens: a line, but not two
    await desk.put(folder, "a.txt", "Orion launches in May.\nThe budget is 5.")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]])
    said = await desk.call(agent_id, "semantic_search_files", query="budget", limit=1)
    head, rule, _, title, text = said.split("\n")[:5]
    assert (head, rule) == ("Found 1 semantic matches in 1 file for query: 'budget'", "=" * 80)
    assert re.fullmatch(rf"=== {folder['name']}/a.txt \(passage #2\) \(score: \d\.\d{{3}}\) ===", title)
    assert text == "The budget is 5."


async def test_a_prompt_stays_the_same_while_nothing_changes(desk: Desk, openai: OpenAIServer) -> None:
    """Vendors' caches hold a prompt up to its first byte that differs."""
    folder = await desk.folder()
    await desk.put(folder, "a")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]])
    prompts = []
    for number in range(4):
        openai.requests.clear()
        if number == 2:
            openai.say(Say(calls=[("grep_files", {"pattern": "budget"})]))
        await desk.api.say(agent_id, f"Turn {number}")
        prompts += [body["messages"] for body in desk.asked()]
    sections = {re.sub(r"<memory_metadata>.*", "", messages[0]["content"], flags=re.S) for messages in prompts}
    assert len(sections) == 1
    assert "<directories>" in sections.pop()
    for before, after in pairwise(prompts):
        assert after[1 : len(before)] == before[1:]
    await desk.put(folder, "b")
    [changed] = await desk.shown(agent_id)
    assert f'name="{folder["name"]}/b"' in changed


async def test_what_changes_is_seen_by_the_next_step(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder(description="Before.")
    await desk.put(folder, "a")
    one, other = [await desk.api.agent(folder_ids=[folder["id"]]) for _ in range(2)]
    await desk.shown(one)
    await desk.shown(other)
    await desk.api.http.patch(f"/v1/folders/{folder['id']}", json={"description": "After."})
    await desk.api.http.patch(f"/v1/agents/{one}/files/close-all")
    [first], [second] = await desk.shown(one), await desk.shown(other)
    assert "<description>After.</description>" in first
    assert ('status="open"' in first, 'status="open"' in second) == (False, True)
    openai.say(Say(calls=[("open_files", {"file_requests": [{"file_name": f"{folder['name']}/a"}]})]))
    before, after = await desk.shown(one)
    assert ('status="open"' in before, 'status="open"' in after) == (False, True)
    await desk.api.http.delete(f"/v1/folders/{folder['id']}")
    assert [directories(prompt) for prompt in await desk.shown(one)] == [""]


async def test_a_file_that_is_replaced_while_it_is_open_is_read_anew(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    old = await desk.put(folder, "a.txt", "Old one.\nOld two.")
    await desk.put(folder, "b.txt", "Another.")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]], max_files_open=1)
    name = f"{folder['name']}/a.txt"
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": name, "offset": 1}])
    assert said.startswith(f"* Opened {name} (lines 2-end)")
    assert "2: Old two." in directories((await desk.shown(agent_id))[0])
    new = await desk.put(folder, "a.txt", "New.", duplicate_handling="replace")
    assert new != old
    section = directories((await desk.shown(agent_id))[0])
    assert ("Old" in section, section.count(f'name="{name}"')) == (False, 1)
    assert "[Viewing file start (out of 1 lines)]\n1: New." in section
    assert "Old" not in await desk.call(agent_id, "grep_files", pattern="old|new")
    gone = await desk.api.http.patch(f"/v1/agents/{agent_id}/files/{old}/open")
    assert gone.status_code == 404
    said = await desk.call(agent_id, "open_files", file_requests=[{"file_name": name, "offset": 1}])
    assert said.startswith(f"{name} has 1 lines")


async def test_limits_have_effect(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    for name in "ab":
        await desk.put(folder, name)
    agent_id = await desk.api.agent(folder_ids=[folder["id"]])
    changed = await desk.api.http.patch(
        f"/v1/agents/{agent_id}", json={"max_files_open": 1, "per_file_view_window_char_limit": 200}
    )
    assert changed.status_code == 200, changed.text
    [prompt] = await desk.shown(agent_id)
    assert ("- current_files_open=1" in prompt, "- max_files_open=1" in prompt) == (True, True)
    assert "- chars_limit=200" in prompt


async def test_folders_are_replaced_as_a_set(desk: Desk, openai: OpenAIServer) -> None:
    one, two = await desk.folder(), await desk.folder()
    agent_id = await desk.api.agent(source_ids=[one["id"]])
    changed = await desk.api.http.patch(f"/v1/agents/{agent_id}", json={"folder_ids": [two["id"]]})
    assert [source["id"] for source in changed.json()["sources"]] == [two["id"]]
    assert await tools_of(desk, agent_id) >= READING
    changed = await desk.api.http.patch(f"/v1/agents/{agent_id}", json={"folder_ids": []})
    assert changed.json()["sources"] == []
    assert not await tools_of(desk, agent_id) & READING
    refused = await desk.api.http.post(
        "/v1/agents/", json={"model": "openai/gpt-4o-mini", "folder_ids": [f"source-{uuid4()}"]}
    )
    assert refused.status_code == 404


@pytest.mark.parametrize("place", ["folders", "sources"])
async def test_tools_go_with_a_last_folder_that_is_deleted(desk: Desk, openai: OpenAIServer, place: str) -> None:
    one, two = await desk.folder(), await desk.folder()
    alone, both, other = (
        await desk.api.agent(folder_ids=[one["id"]]),
        await desk.api.agent(folder_ids=[one["id"], two["id"]]),
        await desk.api.agent(folder_ids=[two["id"]]),
    )
    gone = await desk.api.http.delete(f"/v1/{place}/{one['id']}")
    assert (gone.status_code, gone.json()) == (200, None)
    assert [await tools_of(desk, agent_id) & READING for agent_id in (alone, both, other)] == [
        set(),
        READING,
        READING,
    ]
    await desk.shown(alone)
    assert not {tool["function"]["name"] for tool in desk.asked()[-1].get("tools", [])} & READING
    again = await desk.api.http.delete(f"/v1/{place}/{one['id']}")
    assert again.status_code == 404
    await desk.attach(alone, two)
    assert await tools_of(desk, alone) >= READING


async def test_tools_that_stand_where_a_process_died_go_later(desk: Desk, openai: OpenAIServer) -> None:
    """What was done of a deletion when whoever did it died: the folder is gone, and the tools are still there."""
    folder = await desk.folder()
    left = [await desk.api.agent(folder_ids=[folder["id"]]) for _ in range(3)]
    with psycopg.connect(desk.url, autocommit=True) as conn:
        conn.execute("delete from memory.folder_agents where folder_id = %s", [folder["id"]])

    async def tools() -> list[set[str]]:
        return [await tools_of(desk, agent_id) & READING for agent_id in left]

    await until(tools, lambda found: found == [set()] * 3)

    def losses() -> int:
        with psycopg.connect(desk.url) as conn:
            return int(conn.execute("select count(*) from memory.folder_losses").fetchall()[0][0])

    async def kept() -> int:
        return losses()

    await until(kept, lambda number: number == 0)


async def test_folders_that_come_and_go_at_once_leave_what_fits(desk: Desk, openai: OpenAIServer) -> None:
    folders = [await desk.folder() for _ in range(6)]
    stays = await desk.folder()
    kept, emptied = await desk.api.agent(), await desk.api.agent()
    for folder in folders:
        await desk.attach(kept, folder)
        await desk.attach(emptied, folder)
    await asyncio.gather(
        *(desk.api.http.delete(f"/v1/folders/{folder['id']}") for folder in folders), desk.attach(kept, stays)
    )
    assert [await tools_of(desk, agent_id) & READING for agent_id in (kept, emptied)] == [READING, set()]


async def test_a_tool_is_called_outside_of_a_run(desk: Desk, openai: OpenAIServer) -> None:
    folder = await desk.folder()
    await desk.put(folder, "a")
    agent_id = await desk.api.agent(folder_ids=[folder["id"]])
    name = f"{folder['name']}/a"
    args = {"file_requests": [{"file_name": name, "offset": 2, "length": 1}]}
    answer = await desk.api.http.post(f"/v1/agents/{agent_id}/tools/open_files/run", json={"args": args})
    assert answer.json()["func_return"] == f"* Opened {name} (lines 3-3)"
    listed = (await desk.api.http.get(f"/v1/agents/{agent_id}/files")).json()
    assert (listed["files"][0]["start_line"], listed["files"][0]["end_line"]) == (3, 3)
    window = (await desk.api.http.get(f"/v1/agents/{agent_id}/context")).json()
    assert window["directories"].startswith("<directories>")
    assert window["num_tokens_directories"] > 0
    assert texts((await desk.api.say(agent_id, "Well?"))["messages"], "assistant_message")
