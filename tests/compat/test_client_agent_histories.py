"""Messages of agent files, whoever wrote them: what the unmodified letta-client shows of them after an import."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from letta.agent.v1 import bundle_service_pb2, bundle_service_pb2_grpc
from letta_client import ConflictError, Letta, UnprocessableEntityError
from tests.callers import PATIENCE
from tests.compat.test_client_agent_files import TOOL, Document, counts, message, put, small, taken
from tests.servers import RunningServer

pytestmark = pytest.mark.varies  # times and ids differ
Shown = list[tuple[str, Any]]
Import = Callable[..., Shown]


def call(call_id: str, **more: Any) -> Document:
    return {"id": call_id, "type": "function", "function": {"name": "roll", "arguments": "{}"}, **more}


def returned(call_id: str, text: str = "4") -> Document:
    return {"tool_call_id": call_id, "status": "success", "func_response": text}


@pytest.fixture
def imported(client: Letta) -> Iterator[Import]:
    """Import messages of an agent that then answers; return what is shown of them, less the prompt."""
    made: list[str] = []

    def bring(*messages: Document, **agent: Any) -> Shown:
        [agent_id] = put(client, small(messages=list(messages), **agent))
        made.append(agent_id)
        shown = [*client.agents.messages.list(agent_id, limit=100, order="asc")][1:]
        answer = client.agents.messages.create(agent_id, messages=[{"role": "user", "content": "go on"}])
        assert answer.stop_reason.stop_reason == "end_turn"
        return [(each.message_type, _said(each)) for each in shown]

    yield bring
    for agent_id in made:
        client.agents.delete(agent_id)


def _said(shown: Any) -> Any:
    match shown.message_type:
        case "tool_call_message" | "approval_request_message":
            return [each.tool_call_id for each in shown.tool_calls]
        case "tool_return_message":
            return [(each.tool_call_id, each.status, each.tool_return) for each in shown.tool_returns]
        case "approval_response_message":
            return [(each.tool_call_id, each.to_dict().get("approve")) for each in shown.approvals]
        case "reasoning_message":
            return (shown.reasoning, shown.source)
    return shown.content


def test_a_call_is_there_once_however_often_a_document_says_it(imported: Import) -> None:
    noted = [{"type": "tool_call", "id": "c1", "name": "roll", "input": {}}]
    assert imported(
        message(1, "assistant", tool_calls=[call("c1"), call("c1")]),
        message(2, "tool", tool_returns=[returned("c1"), returned("c1", "5")]),
        message(3, "assistant", tool_calls=[call("c1")]) | {"content": noted},
        message(4, "tool") | {"content": [{"type": "tool_return", "tool_call_id": "c1", "content": "6"}]},
    ) == [
        ("tool_call_message", ["c1"]),
        ("tool_return_message", [("c1", "success", "4")]),
        ("tool_call_message", ["c1"]),
        ("tool_return_message", [("c1", "success", "6")]),
    ]


def test_only_models_call_and_only_tools_return(imported: Import) -> None:
    back = {"type": "tool_return", "tool_call_id": "c2", "content": "4"}
    shown = imported(
        message(1, "user", "words", tool_calls=[call("c1")]),
        message(2, "assistant", tool_calls=[call("c2")]),
        message(3, "user") | {"content": [{"type": "text", "text": "more"}, back]},
    )
    assert [kind for kind, _ in shown] == ["user_message", "tool_call_message", "tool_return_message", "user_message"]
    assert (shown[0][1], shown[2][1][0][1], shown[3][1]) == ("words", "error", "more")


def test_each_call_is_answered_once_by_whoever_answered_first(imported: Import) -> None:
    yes, no = ({"type": "approval", "tool_call_id": "c1", "approve": each} for each in (True, False))
    assert imported(
        message(1, "approval", approvals=[yes]),
        message(2, "approval", tool_calls=[call("c1"), call("c2")]),
        message(3, "approval", approvals=[{**no, "tool_call_id": "message-2"}, yes, no]),
        message(4, "approval", approvals=[no]),
        message(5, "tool", tool_returns=[returned("c1"), returned("c2", "denied")]),
    ) == [
        ("approval_request_message", ["c1", "c2"]),
        ("approval_response_message", [("c1", True), ("c2", False)]),
        ("tool_return_message", [("c1", "success", "4"), ("c2", "success", "denied")]),
    ]


def test_what_a_client_made_of_a_call_is_its_return(client: Letta, imported: Import) -> None:
    packed = json.dumps({"status": "OK", "message": "open", "time": "2026-11-30 03:09:38 AM CET+0100"})
    document = small(
        messages=[
            message(1, "approval", tool_calls=[call("c1")]),
            message(2, "approval", approvals=[returned("c1", packed) | {"stdout": ["creak"], "stderr": []}]),
            message(3, "assistant", "It is open."),
        ]
    )
    [made] = put(client, document)
    shown = [*client.agents.messages.list(made, order="asc")][1:]
    assert [each.message_type for each in shown] == [
        "approval_request_message",
        "approval_response_message",
        "tool_return_message",
        "assistant_message",
    ]
    [answer], [back] = shown[1].approvals, shown[2].tool_returns
    for each in (answer, back):
        assert (each.tool_call_id, each.status, each.tool_return, each.stdout) == ("c1", "success", "open", ["creak"])
    [again] = taken(client, made)["agents"][0]["messages"][2]["approvals"]
    assert (again["func_response"], again["stdout"]) == ("open", ["creak"])
    client.agents.delete(made)


def test_a_request_closes_the_calls_before_it(imported: Import) -> None:
    shown = imported(
        message(1, "assistant", tool_calls=[call("c1")]),
        message(2, "approval", tool_calls=[call("c2")]),
        message(3, "tool", tool_returns=[returned("c1")]),
        message(4, "tool", tool_returns=[returned("c2")]),
    )
    assert [(kind, said[0][0]) for kind, said in shown] == [
        ("tool_call_message", "c"),
        ("tool_return_message", "c1"),
        ("approval_request_message", "c"),
        ("tool_return_message", "c2"),
    ]


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+00:00", "9999-12-31T23:59:59.999999+00:00"])
def test_calls_are_closed_at_the_ends_of_time(imported: Import, at: str) -> None:
    shown = imported(message(1, "assistant", tool_calls=[call("c1")]) | {"created_at": at})
    assert [kind for kind, _ in shown] == ["tool_call_message", "tool_return_message"]


def test_arguments_that_are_no_json_are_told_to_the_model(imported: Import) -> None:
    odd = call("c1") | {"function": {"name": "roll", "arguments": "{oops"}}
    shown = imported(message(1, "assistant", tool_calls=[odd]), message(2, "tool", tool_returns=[returned("c1")]))
    assert [kind for kind, _ in shown] == ["tool_call_message", "tool_return_message"]


def test_messages_are_in_the_order_of_the_context(imported: Import) -> None:
    said = [message(n, "user", f"{n}") for n in range(1, 4)]
    shown = imported(message(0, "system", "old"), *said, in_context_message_ids=["message-0", "message-3", "message-1"])
    assert shown == [("user_message", "3"), ("user_message", "1")]


def test_words_of_older_servers_are_unpacked(imported: Import) -> None:
    packed = [{"type": kind, "message": "hello", "time": "x"} for kind in ("user_message", "system_alert", ["list"])]
    texts = [json.dumps(each) for each in packed]
    shown = imported(*(message(n, "user", text) for n, text in enumerate(texts, 1)))
    assert [said for _, said in shown] == ["hello", *texts[1:]]


@pytest.mark.parametrize("kind", ["memgpt_agent", "memgpt_v2_agent", "react_agent", "workflow_agent", None])
def test_what_stands_beside_a_call_is_a_thought_where_agents_speak_by_calls(imported: Import, kind: str | None) -> None:
    spoken = {"name": "send_message", "arguments": '{"message": "Hi."}'}
    shown = imported(
        message(1, "assistant", "Greet them.", tool_calls=[call("c1", function=spoken)]),
        message(2, "tool", tool_returns=[returned("c1")]),
        message(3, "assistant", "Alone."),
        agent_type=kind,
    )
    thought = ("reasoning_message", ("Greet them.", "non_reasoner_model"))
    assert shown[0] == (thought if kind else ("assistant_message", "Greet them."))
    assert ("assistant_message", "Alone.") in shown


def test_signatures_of_calls_are_kept(client: Letta) -> None:
    noted = [{"type": "tool_call", "id": "c1", "name": "roll", "input": {}, "signature": "c2lnbmVk"}]
    asked = message(1, "assistant", tool_calls=[call("c1")]) | {"content": noted}
    [made] = put(client, small(messages=[asked, message(2, "tool", tool_returns=[returned("c1")])]))
    document = taken(client, made)
    [again] = put(client, document)
    for each in (document, taken(client, again)):
        [kept] = each["agents"][0]["messages"][1]["content"]
        assert (kept["id"], kept["signature"]) == ("c1", "c2lnbmVk")
    for agent_id in (made, again):
        client.agents.delete(agent_id)


def test_a_long_name_is_still_one_after_it_got_longer(client: Letta) -> None:
    [made] = put(client, small(name="n" * 512))
    [again] = put(client, taken(client, made))
    assert client.agents.retrieve(again).name == f"{'n' * 507}_copy"
    for agent_id in (made, again):
        client.agents.delete(agent_id)


BLOCKS = [{"id": f"block-{n}", "label": "same", "value": f"{n}"} for n in (0, 1)]
TOOLS = [{"id": f"tool-{n}", "name": "twice", "source_code": TOOL.replace("roll", "twice")} for n in (0, 1)]
FULL = {"id": "block-0", "label": "full", "value": "xx", "limit": 1}
LEFT: dict[str, Document] = {
    "two blocks of a label": {**small(block_ids=["block-0", "block-1"]), "blocks": BLOCKS},
    "own block of a label": {**small(block_ids=["block-0"], memory_blocks=[BLOCKS[1]]), "blocks": [BLOCKS[0]]},
    "two tools of a name": {**small(tool_ids=["tool-0", "tool-1"]), "tools": TOOLS},
    "name of a tool": {**small(), "tools": [{"id": "tool-0", "name": "m" * 300, "tool_type": "external_mcp"}]},
    "name of a file": {
        **small(),
        "sources": [{"id": "source-0", "name": "left behind"}],
        "files": [{"id": f"file-{n}", "source_id": "source-0", "file_name": n, "content": "x"} for n in ("a.md", "..")],
    },
}


@pytest.mark.parametrize("what", LEFT)
def test_what_contradicts_itself_is_refused_as_a_whole(client: Letta, what: str) -> None:
    before = counts(client)
    with pytest.raises(UnprocessableEntityError):
        put(client, LEFT[what])
    assert counts(client) == before


def test_blocks_within_an_agent_are_taken_back(client: Letta) -> None:
    document, before = small(memory_blocks=[{"label": "mine", "value": "x"}]), counts(client)
    document["agents"].append({"id": "agent-1", "name": "late", "block_ids": ["block-0"], "model": "builtin/rules"})
    with pytest.raises(Exception, match="its limit is 1"):
        put(client, {**document, "blocks": [FULL]})
    assert counts(client) == before


def test_a_history_is_longer_than_a_message_may_be(client: Letta) -> None:
    text, lines = "lantern " * 2_500, "A line of a book.\n" * 20_000
    document = small(messages=[message(n, "user", text) for n in range(20)], source_ids=["source-0"])
    document["sources"] = [{"id": "source-0", "name": "books"}]
    document["files"] = [{"id": "file-0", "source_id": "source-0", "file_name": "book.txt", "content": lines}]
    [made] = put(client, document)
    shown = [*client.agents.messages.list(made, limit=100, order="asc")][1:]
    assert [each.content for each in shown] == [text] * 20  # type: ignore[union-attr]
    [folder] = client.agents.folders.list(made)
    [file] = client.folders.files.list(folder.id)
    assert file.file_size == len(lines)
    [again] = put(client, taken(client, made, scrub_messages=False))
    for agent_id in (made, again):
        client.agents.delete(agent_id)
    parts = [{"type": "text", "text": "x" * 130_000}] * 2
    with pytest.raises(UnprocessableEntityError, match="260,"):
        put(client, small(messages=[message(1, "user") | {"content": parts}]))


def test_a_key_of_another_document_changes_no_tool(client: Letta) -> None:
    tool = {"id": "tool-0", "name": "keyed", "source_code": TOOL.replace("roll", "keyed")}
    document, headers = {**small(tool_ids=["tool-0"]), "tools": [tool]}, {"Idempotency-Key": "keyed"}
    [made] = put(client, document, extra_headers=headers)
    other = {**document, "tools": [tool | {"source_code": tool["source_code"].replace('"4"', '"5"')}]}
    with pytest.raises(ConflictError):
        put(client, other, extra_headers=headers)
    assert [each.source_code for each in client.agents.tools.list(made)] == [tool["source_code"]]
    client.agents.delete(made)


def test_what_was_made_when_the_time_is_over_is_taken_back(client: Letta, server: RunningServer) -> None:
    request, before = bundle_service_pb2.ImportAgentsRequest(), counts(client)
    request.bundle.agents.add(id="agent-0", name="late", model="builtin/rules")
    request.bundle.sources.add(id="source-0", name="late")
    for n in range(1000):
        request.bundle.files.add(id=f"file-{n}", source_id="source-0", file_name=f"{n}.md", content="x")
    with grpc.insecure_channel(server.grpc_address) as channel, pytest.raises(grpc.RpcError) as caught:
        bundle_service_pb2_grpc.BundleServiceStub(channel).ImportAgents(request, timeout=0.6)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED  # type: ignore[attr-defined]
    end = time.monotonic() + PATIENCE
    while counts(client) != before:
        assert time.monotonic() < end
        time.sleep(0.05)
