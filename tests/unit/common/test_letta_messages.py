"""Expansion of stored messages into the messages that clients see."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from letta.common.v1 import letta_message_pb2 as shown_pb
from letta.common.v1 import message_pb2 as pb
from letta_messages.rendering import expand, expand_for_list, part_otid, text_of, type_of

ID = "message-b84bac69-842d-4073-89a1-84931c9f3df6"
ASSISTANT, TOOL = pb.MESSAGE_ROLE_ASSISTANT, pb.MESSAGE_ROLE_TOOL


def stored(role: Any, *parts: pb.ContentPart, **more: Any) -> pb.Message:
    message = pb.Message(id=ID, role=role, parts=parts, **more)
    message.created_at.FromDatetime(datetime(2026, 11, 22, 16, 8, 43, 123456, tzinfo=UTC))
    return message


def words(text: str) -> pb.ContentPart:
    return pb.ContentPart(text=pb.TextContent(text=text))


def call(name: str, arguments: str, id: str = "call-1") -> pb.ContentPart:
    return pb.ContentPart(tool_call=pb.ToolCallContent(id=id, name=name, input=arguments))


def test_parts_share_the_id_and_differ_in_otid() -> None:
    message = stored(
        ASSISTANT,
        pb.ContentPart(reasoning=pb.ReasoningContent(is_native=True, reasoning="hm", signature="s")),
        words("Done."),
        call("add", '{"a": 1}'),
        call("add", '{"a": 2}', "call-2"),
        run_id="run-1",
        step_id="step-1",
    )
    shown = expand(message)
    assert [type_of(one) for one in shown] == ["reasoning_message", "assistant_message", "tool_call_message"]
    assert [f"b84bac69-842d-4073-89a1-84931c9f3d8{index}" for index in range(3)] == [one.otid for one in shown]
    assert {(ID, "run-1", "step-1", message.created_at.seconds)} == {
        (one.id, one.run_id, one.step_id, one.date.seconds) for one in shown
    }
    assert (
        shown[0].reasoning_message.source,
        shown[0].reasoning_message.reasoning,
        shown[0].reasoning_message.signature,
    ) == (shown_pb.REASONING_SOURCE_REASONER_MODEL, "hm", "s")
    calls = shown[2].tool_call_message
    assert [one.tool_call_id for one in calls.tool_calls.tool_calls] == ["call-1", "call-2"]
    assert calls.tool_call == calls.tool_calls.tool_calls[0]
    assert not any(one.HasField(name) for one in shown for name in ("name", "sender_id", "is_err", "seq_id"))


@pytest.mark.parametrize(
    ("part", "kind", "fields"),
    [
        (
            pb.ContentPart(reasoning=pb.ReasoningContent(reasoning="x")),
            "reasoning_message",
            {"source": shown_pb.REASONING_SOURCE_NON_REASONER_MODEL, "reasoning": "x"},
        ),
        (
            pb.ContentPart(
                summarized_reasoning=pb.SummarizedReasoningContent(
                    summary=[pb.ReasoningSummary(text="a"), pb.ReasoningSummary(text="b")], encrypted_content="e"
                )
            ),
            "reasoning_message",
            {"source": shown_pb.REASONING_SOURCE_REASONER_MODEL, "reasoning": "a\n\nb", "signature": "e"},
        ),
        (
            pb.ContentPart(redacted_reasoning=pb.RedactedReasoningContent(data="d")),
            "hidden_reasoning_message",
            {"state": shown_pb.HIDDEN_REASONING_STATE_REDACTED, "hidden_reasoning": "d"},
        ),
        (
            pb.ContentPart(omitted_reasoning=pb.OmittedReasoningContent()),
            "hidden_reasoning_message",
            {"state": shown_pb.HIDDEN_REASONING_STATE_OMITTED},
        ),
    ],
)
def test_kinds_of_reasoning(part: pb.ContentPart, kind: str, fields: dict[str, Any]) -> None:
    (shown,) = expand(stored(ASSISTANT, part))
    body = getattr(shown, kind)
    assert fields == {name: getattr(body, name) for name in fields}
    assert body.HasField("hidden_reasoning") == ("hidden_reasoning" in fields) if kind.startswith("hidden") else True


def test_empty_words_and_summaries_show_nothing() -> None:
    empty = pb.ContentPart(summarized_reasoning=pb.SummarizedReasoningContent())
    assert expand(stored(ASSISTANT, words(""), empty)) == []
    assert expand(stored(pb.MESSAGE_ROLE_UNSPECIFIED, words("x"))) == []


def test_user_content_is_text_or_parts() -> None:
    (plain,) = expand(stored(pb.MESSAGE_ROLE_USER, words("hi"), otid="o", sender_id="agent-1", name="Bob"))
    image = pb.ContentPart(image=pb.ImageContent(source=pb.ImageSource(url=pb.UrlImage(url="https://x/y.png"))))
    (mixed,) = expand(stored(pb.MESSAGE_ROLE_USER, words("see"), image))
    (nothing,) = expand(stored(pb.MESSAGE_ROLE_USER))
    assert (plain.user_message.text, plain.otid, plain.sender_id, plain.name) == ("hi", "o", "agent-1", "Bob")
    assert [words("see"), image] == list(mixed.user_message.parts.parts)
    assert not mixed.HasField("otid")
    assert nothing.user_message.WhichOneof("content") == "text"


def test_system_text_and_failures() -> None:
    (shown,) = expand(stored(pb.MESSAGE_ROLE_SYSTEM, words("a"), words("b"), is_err=True))
    assert (shown.system_message.content, shown.is_err, shown.HasField("otid")) == ("a\nb", True, False)
    assert text_of(stored(pb.MESSAGE_ROLE_USER, words("a"), call("x", "{}"), words("b"))) == "a\nb"


def test_tool_returns_are_one_message() -> None:
    parts = [
        pb.ContentPart(
            tool_return=pb.ToolReturnContent(tool_call_id=id, content=text, is_error=bad, name="add", stdout=["x"])
        )
        for id, text, bad in (("c1", "1", False), ("c2", "no", True))
    ]
    (shown,) = expand(stored(TOOL, *parts))
    body = shown.tool_return_message
    assert (
        shown.name,
        body.tool_return,
        body.status,
        body.tool_call_id,
        list(body.stdout),
    ) == ("add", "1", pb.TOOL_RETURN_STATUS_SUCCESS, "c1", ["x"])
    assert [(one.text, one.status) for one in body.tool_returns] == [("1", 1), ("no", 2)]
    assert shown.otid == "b84bac69-842d-4073-89a1-84931c9f3d80"
    assert expand(stored(TOOL)) == []


def test_a_request_for_approval_has_its_id_as_otid() -> None:
    thought, asked = expand(stored(pb.MESSAGE_ROLE_APPROVAL, words("I need this."), call("danger", "{}")))
    assert (type_of(thought), type_of(asked)) == ("assistant_message", "approval_request_message")
    assert (asked.otid, asked.approval_request_message.tool_call.name) == (ID, "danger")
    assert thought.otid.endswith("80")


def test_an_answer_to_a_request_for_approval() -> None:
    answer = pb.Approval(approval_return=pb.ApprovalReturn(tool_call_id="c", approve=False, reason="no"))
    (shown,) = expand(
        stored(pb.MESSAGE_ROLE_APPROVAL, approvals=[answer], approval_request_id="message-1", otid="mine")
    )
    body = shown.approval_response_message
    assert (body.approve, body.reason, body.approval_request_id, shown.otid) == (False, "no", "message-1", "mine")
    result = pb.Approval(tool_return=pb.ToolReturn(tool_call_id="c", text="x"))
    (shown,) = expand(stored(pb.MESSAGE_ROLE_APPROVAL, approvals=[result]))
    assert not shown.approval_response_message.HasField("approve")


def test_a_summary_reads_as_user_in_lists() -> None:
    message = stored(
        pb.MESSAGE_ROLE_SUMMARY, words("so far"), compaction_stats=pb.CompactionStats(messages_count_before=9)
    )
    (shown,) = expand(message)
    (listed,) = expand_for_list(message)
    assert (shown.summary_message.summary, shown.summary_message.compaction_stats.messages_count_before) == (
        "so far",
        9,
    )
    assert ("so far", shown.otid) == (listed.user_message.text, listed.otid)
    assert expand(stored(ASSISTANT, words("x"))) == expand_for_list(stored(ASSISTANT, words("x")))


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ('{"message": "hello"}', "assistant_message"),
        ('{"message": 5}', "tool_call_message"),
        ("[1]", "tool_call_message"),
        ("{broken", "tool_call_message"),
    ],
)
def test_the_message_tool_is_speech(arguments: str, kind: str) -> None:
    (shown,) = expand(stored(ASSISTANT, call("send_message", arguments)))
    assert kind == type_of(shown)
    (shown,) = expand(stored(ASSISTANT, call("send_message", arguments)), send_tool=None)
    assert type_of(shown) == "tool_call_message"
    (shown,) = expand(stored(ASSISTANT, call("say", '{"text": "hi"}')), send_tool=("say", "text"))
    assert shown.assistant_message.text == "hi"


def test_that_something_was_said_is_not_shown_again_as_what_a_tool_returned() -> None:
    def returned(name: str, *, failed: bool = False) -> pb.ContentPart:
        content = pb.ToolReturnContent(tool_call_id=name, name=name, content="Sent.", is_error=failed)
        return pb.ContentPart(tool_return=content)

    assert expand(stored(TOOL, returned("send_message"))) == []
    (shown,) = expand(stored(TOOL, returned("send_message"), returned("add")))
    assert [one.tool_call_id for one in shown.tool_return_message.tool_returns] == ["add"]
    assert len(expand(stored(TOOL, returned("send_message", failed=True)))) == 1
    assert len(expand(stored(TOOL, returned("send_message")), send_tool=None)) == 1
    assert expand(stored(TOOL, returned("say")), send_tool=("say", "text")) == []


def test_an_otid_needs_no_uuid() -> None:
    assert part_otid("message-x", 3) == "message-x:3"
    assert part_otid(ID, 5).endswith("85")
