"""What memory keeps beside a message: types and the text that search reads."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from letta.common.v1 import message_pb2 as pb
from letta.memory.v1.block_pb2 import Block
from letta_common.actor import Actor
from letta_common.errors import InvalidArgument
from letta_memory.domain.blocks import DEFAULT_LIMIT, new_block
from letta_memory.domain.messages import SEARCH_LIMIT, TYPE_BITS, search_text, types_of
from letta_memory.store.provisions import message_columns
from letta_memory.store.rows import block_of, block_values
from letta_messages.rendering import expand, expand_for_list, type_of

_TEXT = pb.ContentPart(text=pb.TextContent(text="hello"))
_CALL = pb.ContentPart(tool_call=pb.ToolCallContent(id="c", name="add", input='{"a": 1}'))
_SAY = pb.ContentPart(tool_call=pb.ToolCallContent(id="c", name="send_message", input='{"message": "x"}'))
_RETURN = pb.ContentPart(tool_return=pb.ToolReturnContent(tool_call_id="c", content="two"))
_THOUGHT = pb.ContentPart(reasoning=pb.ReasoningContent(reasoning="hm"))
_HIDDEN = pb.ContentPart(redacted_reasoning=pb.RedactedReasoningContent(data="d"))
_ANSWER = pb.Approval(approval_return=pb.ApprovalReturn(tool_call_id="c", approve=True))
MESSAGES = [
    pb.Message(role=pb.MESSAGE_ROLE_SYSTEM, parts=[_TEXT]),
    pb.Message(role=pb.MESSAGE_ROLE_USER, parts=[_TEXT]),
    pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, parts=[_THOUGHT, _HIDDEN, _TEXT, _CALL]),
    pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, parts=[_CALL]),
    pb.Message(role=pb.MESSAGE_ROLE_ASSISTANT, parts=[_SAY]),
    pb.Message(role=pb.MESSAGE_ROLE_TOOL, parts=[_RETURN]),
    pb.Message(role=pb.MESSAGE_ROLE_APPROVAL, parts=[_TEXT, _CALL]),
    pb.Message(role=pb.MESSAGE_ROLE_APPROVAL, approvals=[_ANSWER]),
    pb.Message(role=pb.MESSAGE_ROLE_SUMMARY, parts=[_TEXT]),
]


@pytest.mark.parametrize("message", MESSAGES, ids=range(len(MESSAGES)))
def test_the_bits_are_the_types_that_clients_may_see(message: pb.Message) -> None:
    shown = [*expand(message), *expand_for_list(message), *expand(message, send_tool=None)]
    expected = 0
    for one in shown:
        expected |= TYPE_BITS[type_of(one)]
    assert expected == types_of(message)


def test_bits_fit_the_column() -> None:
    assert sum(TYPE_BITS.values()) < 2**31
    assert len(set(TYPE_BITS.values())) == len(TYPE_BITS)


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (MESSAGES[0], ""),
        (MESSAGES[1], "hello"),
        (MESSAGES[2], 'hello\nadd {"a": 1}'),
        (MESSAGES[5], "two"),
        (pb.Message(role=pb.MESSAGE_ROLE_USER, parts=[_TEXT], is_automated=True), ""),
    ],
)
def test_what_search_reads(message: pb.Message, text: str) -> None:
    assert text == search_text(message)


def test_long_texts_and_zero_bytes() -> None:
    long = pb.Message(
        role=pb.MESSAGE_ROLE_USER, parts=[pb.ContentPart(text=pb.TextContent(text="a\0b" + "x" * 2 * SEARCH_LIMIT))]
    )
    assert search_text(long).startswith("abxx")
    assert len(search_text(long)) < SEARCH_LIMIT + 1


@pytest.mark.parametrize("field", ["id", "created_at"])
def test_a_message_needs_id_and_time(field: str) -> None:
    message = pb.Message(id="message-1", role=pb.MESSAGE_ROLE_USER)
    message.created_at.GetCurrentTime()
    assert message_columns([message])["bodies"] == [message.SerializeToString()]
    message.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        message_columns([message])


def test_a_new_block_has_what_its_caller_may_set() -> None:
    given = Block(label="a", description="", hidden=False, tags=["x"], id="block-of-others", created_by_id="somebody")
    made = new_block(Actor("org-a", "user-ann"), "block-1", given, datetime(2026, 1, 2, tzinfo=UTC))
    assert (made.id, made.created_by_id, made.version, made.etag) == ("block-1", "user-ann", 1, "1")
    assert (made.limit, made.metadata, list(made.tags)) == (DEFAULT_LIMIT, "{}", ["x"])
    assert made.HasField("description")
    assert made.HasField("hidden")
    assert not made.HasField("project_id")


def test_a_block_is_its_row() -> None:
    given = Block(label="a", value="v", description="", hidden=False, tags=["x"], metadata='{"k": 1}')
    made = new_block(Actor("org-a", "user-ann"), "block-1", given, datetime(2026, 1, 2, tzinfo=UTC))
    values = block_values(made)
    assert (values["char_limit"], values["project_id"], values["description"]) == (DEFAULT_LIMIT, None, "")
    assert block_of(tuple(values.values())) == made
