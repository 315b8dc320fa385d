"""Agents taken out and made again through the unmodified letta-client: export_file and import_file."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from letta_client import APIStatusError, BadRequestError, Letta, NotFoundError, UnprocessableEntityError
from letta_client.types import AgentState
from tests.callers import PATIENCE

pytestmark = pytest.mark.varies  # a document holds times, and the ids of what is made differ
TOOL = 'def roll(sides: int) -> str:\n    """Roll.\n\n    Args:\n        sides: Sides.\n    """\n    return "4"\n'
HERE = Path(os.environ.get("LETTA_AGENT_FILES") or "/nonexistent")
"""A folder with agent files of other servers, which are not part of this repository."""
Document = dict[str, Any]


@pytest.fixture
def keeper(client: Letta) -> Iterator[AgentState]:
    """An agent with one of each, that was talked to."""
    tool = client.tools.upsert(source_code=TOOL, return_char_limit=300, tags=["dice"])
    folder = client.folders.create(name="handbook", description="How we work.", metadata={"shelf": "A4"})
    sent = client.folders.files.upload(folder.id, file=("rules.md", b"Be kind.\nBe brief.\n"))
    deadline = time.monotonic() + PATIENCE
    while client.folders.files.retrieve(sent.id or "", folder_id=folder.id).processing_status in ("pending", "parsing"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    made = client.agents.create(
        name="keeper",
        model="builtin/rules",
        system="Keep the lamp.",
        tags=["lamp", "主"],
        metadata={"floor": 3, "nested": {"a": [1, None, True]}},
        memory_blocks=[
            {"label": "human", "value": "Name: Sam.", "limit": 4000},
            {"label": "charter", "value": "Do not change.", "read_only": True, "metadata": {"year": 1887}},
        ],
        tool_ids=[tool.id],
        tool_rules=[{"type": "max_count_per_step", "tool_name": "roll", "max_count_limit": 2}],
        folder_ids=[folder.id],
        secrets={"LEDGER_KEY": "s3cr3t"},
        timezone="Europe/Amsterdam",
        max_files_open=3,
        model_settings={"provider_type": "openai", "temperature": 0.5},
    )
    client.agents.messages.create(made.id, messages=[{"role": "user", "content": 'CALL roll {"sides": 6}'}])
    yield made
    client.agents.delete(made.id)
    client.folders.delete(folder.id)


def taken(client: Letta, agent_id: str, **more: Any) -> Document:
    return json.loads(client.agents.export_file(agent_id, **more))


def put(client: Letta, document: Document | bytes, **more: Any) -> list[str]:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    return client.agents.import_file(file=("agent.af", data), **more).agent_ids


def small(**agent: Any) -> Document:
    """Return the least that a document has, with some of an agent."""
    empty: Document = {name: [] for name in ("groups", "blocks", "files", "sources", "tools", "mcp_servers")}
    return {**empty, "agents": [{"id": "agent-0", "name": "small", "model": "builtin/rules", **agent}]}


def message(number: int, role: str, text: str = "", **more: Any) -> Document:
    content = [{"type": "text", "text": text}] if text else []
    at = f"2026-01-02T03:04:{number:02}+00:00"
    return {"type": "message", "id": f"message-{number}", "role": role, "content": content, "created_at": at, **more}


def counts(client: Letta) -> tuple[int, int, int, int]:
    """Return how much there is of what an import makes."""
    tools = len(list(client.tools.list(limit=1000)))
    return (
        client.agents.list(limit=1000).items.__len__(),
        client.blocks.list(limit=1000).items.__len__(),
        tools,
        len(list(client.folders.list(limit=1000))),
    )


def test_a_document_has_all_of_an_agent_but_its_secrets(client: Letta, keeper: AgentState) -> None:
    document = taken(client, keeper.id)
    [agent] = document["agents"]
    assert (agent["id"], agent["name"], agent["system"]) == ("agent-0", "keeper", "Keep the lamp.")
    assert agent["llm_config"]["handle"] == agent["model"] == "builtin/rules"
    assert agent["secrets"] == agent["tool_exec_environment_variables"] == {"LEDGER_KEY": ""}
    assert "s3cr3t" not in json.dumps(document)
    assert {block["label"]: block["value"] for block in document["blocks"]} == {
        "charter": "Do not change.",
        "human": "Name: Sam.",
    }
    tools = {tool["name"]: tool for tool in document["tools"]}
    assert tools["roll"]["source_code"] == TOOL
    assert tools["open_files"]["source_code"] is None
    assert {tool["id"] for tool in document["tools"]} == {*agent["tool_ids"]}
    assert [(file["file_name"], file["content"]) for file in document["files"]] == [
        ("handbook/rules.md", "Be kind.\nBe brief.\n")
    ]
    assert [view["is_open"] for view in agent["files_agents"]] == [True]
    assert [each["role"] for each in agent["messages"]] == ["system", "user", "assistant", "tool", "assistant"]
    assert agent["in_context_message_ids"] == [each["id"] for each in agent["messages"]]
    [call] = agent["messages"][2]["tool_calls"]
    assert call == {"id": call["id"], "type": "function", "function": {"name": "roll", "arguments": '{"sides": 6}'}}
    [returned] = agent["messages"][3]["tool_returns"]
    assert (returned["status"], json.loads(returned["func_response"])["message"]) == ("success", "4")
    assert document["metadata"] == {"revision_id": "1c28e167b74f"}


def test_what_was_taken_out_is_made_again(client: Letta, keeper: AgentState) -> None:
    document = taken(client, keeper.id)
    [made] = put(client, document, secrets=json.dumps({"LEDGER_KEY": "new"}))
    include = ["agent.blocks", "agent.tools", "agent.sources", "agent.tags", "agent.secrets"]
    old, new = (client.agents.retrieve(each, include=include) for each in (keeper.id, made))  # type: ignore[arg-type]
    assert new.name == "keeper_copy"
    for name in ("system", "tags", "metadata", "tool_rules", "timezone", "max_files_open", "model", "model_settings"):
        assert getattr(new, name) == getattr(old, name), name
    assert {tool.name for tool in new.tools} == {tool.name for tool in old.tools}
    kept = ("label", "value", "limit", "read_only", "metadata", "description")
    blocks = [sorted([getattr(block, name) for name in kept] for block in each.blocks) for each in (old, new)]
    assert blocks[0] == blocks[1]
    assert {block.id for block in new.blocks}.isdisjoint({block.id for block in old.blocks})
    assert [(each.key, each.value) for each in new.secrets or []] == [("LEDGER_KEY", "new")]
    assert [folder.name for folder in new.sources] == ["handbook (2)"]
    shown = [list(client.agents.messages.list(each, limit=100, order="asc")) for each in (keeper.id, made)]
    assert [each.message_type for each in shown[1]] == [each.message_type for each in shown[0]]
    assert [each.date for each in shown[1]][1:] == [each.date for each in shown[0]][1:]
    again = taken(client, made)
    for each in (document, again):
        del each["created_at"], each["sources"], each["files"], each["agents"][0]["files_agents"]
        each["agents"][0]["name"] = ""
        each["tools"].sort(key=lambda tool: tool["name"])
        for place, tool in enumerate(each["tools"]):
            tool["id"] = f"tool-{place}"
        del each["agents"][0]["messages"][0], each["agents"][0]["tool_ids"]
    assert again == document
    client.agents.delete(made)
    client.folders.delete(new.sources[0].id)


def test_an_export_may_leave_messages_out(client: Letta, keeper: AgentState) -> None:
    [agent] = taken(client, keeper.id, scrub_messages=True)["agents"]
    assert (agent["messages"], agent["in_context_message_ids"]) == ([], [])
    conversation = client.conversations.create(agent_id=keeper.id)
    client.conversations.messages.create(
        conversation.id, messages=[{"role": "user", "content": "apart"}], streaming=False
    )
    [agent] = taken(client, keeper.id, conversation_id=conversation.id)["agents"]
    assert [each["role"] for each in agent["messages"]] == ["system", "user", "assistant"]
    with pytest.raises(BadRequestError):
        client.agents.export_file(keeper.id, use_legacy_format=True)
    with pytest.raises(NotFoundError):
        client.agents.export_file("agent-00000000-0000-4000-8000-000000000000")


def test_an_import_may_be_told_otherwise(client: Letta, keeper: AgentState) -> None:
    document = taken(client, keeper.id)
    document["agents"][0] |= {"model": None, "llm_config": {"handle": "nobody/none", "model": "none"}}
    with pytest.raises(NotFoundError, match="nobody/none"):
        put(client, document)
    [made] = put(client, document, model="builtin/rules", name="other", strip_messages=True)
    state = client.agents.retrieve(made)
    assert (state.name, state.model, len(state.message_ids or [])) == ("other", "builtin/rules", 1)
    [plain] = put(client, document, override_model_handle="builtin/rules", append_copy_suffix=False)
    assert client.agents.retrieve(plain).name == "keeper"
    for each in (made, plain):
        for folder in client.agents.folders.list(each):
            client.folders.delete(folder.id)
        client.agents.delete(each)


@pytest.mark.parametrize("overwrite", [True, False])
def test_tools_of_the_same_name_are_overwritten_or_used(client: Letta, keeper: AgentState, overwrite: bool) -> None:
    document = taken(client, keeper.id, scrub_messages=True)
    client.tools.upsert(source_code=TOOL.replace('"4"', '"5"'))
    [made] = put(client, document, override_existing_tools=overwrite)
    [tool] = [tool for tool in client.agents.tools.list(made, limit=50) if tool.name == "roll"]
    assert ('"4"' in (tool.source_code or "")) is overwrite
    for folder in client.agents.folders.list(made):
        client.folders.delete(folder.id)
    client.agents.delete(made)


def test_agents_share_the_blocks_that_they_shared(client: Letta) -> None:
    document = small(block_ids=["block-0", "block-1"])
    document["agents"].append({"id": "agent-1", "name": "second", "block_ids": ["block-1"], "model": "builtin/rules"})
    document["blocks"] = [{"id": f"block-{n}", "label": f"part{n}", "value": "x"} for n in (0, 1)]
    one, other = put(client, document)
    blocks = [{block.label: block.id for block in client.agents.blocks.list(each)} for each in (one, other)]
    assert blocks[0].keys() == {"part0", "part1"}
    assert blocks[1] == {"part1": blocks[0]["part1"]}
    for each in (one, other):
        client.agents.delete(each)


def test_a_repeat_makes_no_second_agent(client: Letta, keeper: AgentState) -> None:
    document, before = taken(client, keeper.id), counts(client)
    headers = {"Idempotency-Key": f"again-{keeper.id}"}
    first = put(client, document, extra_headers=headers)
    assert put(client, document, extra_headers=headers) == first
    assert counts(client) == (before[0] + 1, before[1] + 2, before[2], before[3] + 1)
    with pytest.raises(APIStatusError):
        put(client, document, name="another", extra_headers=headers)
    assert counts(client) == (before[0] + 1, before[1] + 2, before[2], before[3] + 1)
    client.folders.delete(next(iter(client.agents.folders.list(first[0]))).id)
    client.agents.delete(first[0])


def test_calls_that_nobody_answered_do_not_stay_open(client: Letta) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "roll", "arguments": "{}"}}
    lost = {"tool_call_id": "c9", "status": "success", "func_response": "lost"}
    [made] = put(
        client,
        small(
            messages=[
                message(0, "system", "old"),
                message(1, "tool", tool_call_id="c9", tool_returns=[lost]),
                message(2, "user", "roll"),
                message(3, "assistant", tool_calls=[call]),
                message(4, "user", "well?"),
                message(5, "approval", tool_calls=[{**call, "id": "c2"}]),
            ]
        ),
    )
    shown = list(client.agents.messages.list(made, limit=100, order="asc"))
    kinds = [each.message_type for each in shown]
    assert kinds[1:] == [
        "user_message",
        "tool_call_message",
        "tool_return_message",
        "user_message",
        "approval_request_message",
        "tool_return_message",
    ]
    assert [each.status for each in shown if each.message_type == "tool_return_message"] == ["error", "error"]
    answer = client.agents.messages.create(made, messages=[{"role": "user", "content": "go on"}])
    assert answer.stop_reason.stop_reason == "end_turn"
    client.agents.delete(made)


def test_what_nobody_here_executes_is_left_out_and_named(client: Letta) -> None:
    document = small(tool_ids=["tool-0", "tool-1"], group_ids=["group-0"])
    document["tools"] = [
        {"id": "tool-0", "name": "stock_of", "tool_type": "external_mcp", "metadata_": {"mcp": {"server_name": "x"}}},
        {"id": "tool-1", "name": "conversation_search", "tool_type": "letta_core"},
    ]
    document["mcp_servers"] = [
        {"id": "mcp_server-0", "server_type": "stdio", "server_name": "x", "stdio_config": {"command": "sh"}}
    ]
    document["groups"] = [{"id": "group-0", "agent_ids": ["agent-0"], "description": "crew"}]
    document["skills"] = [{"name": "survey", "files": {"SKILL.md": "Measure twice."}}]
    answer = client.agents.import_file(file=("agent.af", json.dumps(document).encode()))
    left = answer.to_dict()["omitted"]
    assert [line.split(":")[0] for line in left] == ["group-0", "tool stock_of"]
    [made] = answer.agent_ids
    assert [tool.name for tool in client.agents.tools.list(made)] == ["conversation_search"]
    assert [server.server_name for server in client.mcp_servers.list() if server.server_name == "x"] == []
    client.agents.delete(made)


def test_names_of_files_are_no_paths(client: Letta) -> None:
    document = small(source_ids=["source-0"])
    document["sources"] = [{"id": "source-0", "name": "papers"}]
    document["files"] = [
        {"id": "file-0", "source_id": "source-0", "file_name": "../../etc/cron.d/evil", "content": "one"},
        {"id": "file-1", "source_id": "source-0", "file_name": "C:\\papers\\two.pdf", "content": "two"},
    ]
    [made] = put(client, document)
    [folder] = client.agents.folders.list(made)
    assert {file.file_name for file in client.folders.files.list(folder.id)} == {"evil", "two.pdf"}
    client.agents.delete(made)
    client.folders.delete(folder.id)


EVIL = {"id": "tool-0", "name": "send_message", "source_code": 'def send_message(x: str):\n    """Evil."""\n'}
WRONG: dict[str, Document] = {
    "no agent": {**small(), "agents": []},
    "unknown kind": small(agent_type="quantum_agent"),
    "name of a wrong type": small(name=42),
    "name with slashes": small(name="../../x"),
    "role that is none": small(messages=[message(0, "wizard", "x")]),
    "unknown block": small(block_ids=["block-7"]),
    "unknown tool": small(tool_ids=["tool-404"]),
    "unknown folder": small(source_ids=["source-7"]),
    "unknown message": small(messages=[message(0, "user", "x")], in_context_message_ids=["message-777"]),
    "message twice": small(messages=[message(0, "user", "x"), message(0, "user", "x")]),
    "message without time": small(messages=[{**message(0, "user", "x"), "created_at": "yesterday"}]),
    "block twice": {**small(), "blocks": [{"id": "block-0", "label": "a", "value": ""}] * 2},
    "unknown time zone": small(timezone="Atlantis/Middle"),
    "unknown embedder": small(embedding="nobody/none"),
    "tool of the deployment's": {**small(tool_ids=["tool-0"]), "tools": [EVIL]},
    "source that is none": {**small(tool_ids=["tool-0"]), "tools": [{**EVIL, "name": "x", "source_code": "def ("}]},
    "file of no folder": {**small(), "files": [{"id": "file-0", "source_id": "source-1", "content": "x"}]},
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_wrong_is_refused_as_a_whole(client: Letta, what: str) -> None:
    before = counts(client)
    with pytest.raises((BadRequestError, NotFoundError, UnprocessableEntityError, APIStatusError)) as caught:
        put(client, WRONG[what])
    assert 400 <= caught.value.status_code < 500
    assert counts(client) == before


def test_what_fails_late_is_taken_back(client: Letta) -> None:
    document, before = small(block_ids=["block-0"], source_ids=["source-0"]), counts(client)
    document["agents"].append({"id": "agent-1", "name": "late", "block_ids": ["block-1"], "model": "builtin/rules"})
    document["blocks"] = [
        {"id": "block-0", "label": "fits", "value": "x"},
        {"id": "block-1", "label": "full", "value": "xx", "limit": 1},
    ]
    document["sources"] = [{"id": "source-0", "name": "taken back"}]
    with pytest.raises(APIStatusError) as caught:
        put(client, document)
    assert 400 <= caught.value.status_code < 500
    assert counts(client) == before


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b"null", b'{"agents": 5}', b"\xff\xfe", b'{"agents":' + b"[" * 5000]
)
def test_what_is_no_document_is_refused(client: Letta, data: bytes) -> None:
    with pytest.raises(UnprocessableEntityError):
        put(client, data)


@pytest.mark.parametrize("path", sorted(HERE.glob("*.af")), ids=lambda path: path.name)
def test_files_of_other_servers(client: Letta, path: Path) -> None:
    """Those called `broken` and `legacy` are refused; agents of all others can be talked to and taken out."""
    if path.name.startswith(("broken-", "legacy-")) and path.name != "broken-history.af":
        with pytest.raises(UnprocessableEntityError):
            put(client, path.read_bytes(), model="builtin/rules", embedding="builtin/use-multilingual")
        return
    for made in put(client, path.read_bytes(), model="builtin/rules", embedding="builtin/use-multilingual"):
        answer = client.agents.messages.create(made, messages=[{"role": "user", "content": "hello"}], max_steps=3)
        assert answer.messages
        assert taken(client, made)["agents"][0]["messages"]
