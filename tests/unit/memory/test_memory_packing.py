"""What memory keeps beside a message: types and the text that search reads."""

from __future__ import annotations

from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.common.v1 import message_pb2 as pb
from letta.memory.v1 import block_pb2
from letta_common.errors import InvalidArgument
from letta_memory.domain.blocks import DEFAULT_LIMIT, Block
from letta_memory.servicers.packing import (
    SEARCH_LIMIT,
    TYPE_BITS,
    block_changes,
    new_message,
    pack_block,
    search_text,
    types_of,
    unpack_block,
)
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
    assert new_message(message).body == message.SerializeToString()
    message.ClearField(field)  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument):
        new_message(message)


def test_a_block_survives_packing() -> None:
    block = Block("block-1", "a", description="", hidden=False, tags=("x",), metadata='{"k": 1}')
    packed = pack_block(block)
    assert packed.HasField("description")
    assert not packed.HasField("project_id")
    assert unpack_block(packed).metadata == '{"k": 1}'
    assert unpack_block(block_pb2.Block(label="a")).limit == DEFAULT_LIMIT


@pytest.mark.parametrize(
    ("paths", "given", "expected"),
    [
        (["value"], {"value": "x", "label": "ignored"}, {"value": "x"}),
        (["description", "hidden"], {}, {"description": None, "hidden": None}),
        (["metadata", "tags"], {}, {"metadata": "{}", "tags": ()}),
        (["etag"], {"etag": "3"}, {}),
        ([], {"id": "x", "value": "v", "etag": "3"}, {"value": "v"}),
    ],
)
def test_masks(paths: list[str], given: dict[str, Any], expected: dict[str, Any]) -> None:
    assert expected == block_changes(block_pb2.Block(**given), FieldMask(paths=paths))


def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no field nope"):
        block_changes(block_pb2.Block(), FieldMask(paths=["nope"]))
