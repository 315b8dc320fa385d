"""Between the contract's messages and the domain's values."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from google.protobuf.field_mask_pb2 import FieldMask

from letta.common.v1 import letta_message_pb2, message_pb2
from letta.memory.v1 import block_pb2
from letta_common.errors import InvalidArgument
from letta_common.values.masks import changed_paths, changed_values
from letta_common.values.times import stamp_of, time_of
from letta_memory.domain.blocks import DEFAULT_LIMIT, Block
from letta_memory.domain.contexts import FLAG_AUTOMATED, FLAG_ERROR, NewMessage
from letta_messages.rendering import SEND_MESSAGE

SEARCH_LIMIT = 8_000
"""Characters of a message that search reads."""

_Role = message_pb2.MessageRole
_KINDS = letta_message_pb2.LettaMessage.DESCRIPTOR.oneofs_by_name["message"].fields
TYPE_BITS: dict[str, int] = {kind.name: 1 << place for place, kind in enumerate(_KINDS)}
"""Bit of each `message_type` in the column `types`."""
_ROLE_BITS: dict[int, int] = {
    _Role.MESSAGE_ROLE_SYSTEM: TYPE_BITS["system_message"],
    _Role.MESSAGE_ROLE_USER: TYPE_BITS["user_message"],
    _Role.MESSAGE_ROLE_TOOL: TYPE_BITS["tool_return_message"],
    _Role.MESSAGE_ROLE_SUMMARY: TYPE_BITS["summary_message"] | TYPE_BITS["user_message"],
}
_PART_BITS = {
    "text": TYPE_BITS["assistant_message"],
    "reasoning": TYPE_BITS["reasoning_message"],
    "summarized_reasoning": TYPE_BITS["reasoning_message"],
    "redacted_reasoning": TYPE_BITS["hidden_reasoning_message"],
    "omitted_reasoning": TYPE_BITS["hidden_reasoning_message"],
}
_SET = FieldMask()
"""Names no field: each that is set."""
_OPTIONAL_BLOCK_FIELDS = tuple(
    field.name for field in block_pb2.Block.DESCRIPTOR.fields if field.has_presence and field.message_type is None
)


def new_messages(messages: Iterable[message_pb2.Message]) -> tuple[NewMessage, ...]:
    """Unpack messages to append. Raises InvalidArgument when one has no id or time."""
    return tuple(new_message(message) for message in messages)


def new_message(message: message_pb2.Message) -> NewMessage:
    """Unpack a message to append. Raises InvalidArgument when it has no id or time."""
    if not message.id or not message.HasField("created_at"):
        raise InvalidArgument("each message needs an id and created_at", field="messages")
    return NewMessage(
        id=message.id,
        role=message.role,
        types=types_of(message),
        created_at=time_of(message.created_at),
        body=message.SerializeToString(),
        flags=(FLAG_ERROR if message.is_err else 0) | (FLAG_AUTOMATED if message.is_automated else 0),
        run_id=message.run_id,
        step_id=message.step_id,
        group_id=message.group_id,
        search=search_text(message),
    )


def with_text(body: bytes, text: str) -> bytes:
    """Return a serialized message with another text in place of its parts."""
    message = message_pb2.Message.FromString(body)
    del message.parts[:]
    message.parts.append(message_pb2.ContentPart(text=message_pb2.TextContent(text=text)))
    return message.SerializeToString()


def types_of(message: message_pb2.Message) -> int:
    """Return the bits of the message types that clients see of a message."""
    bits = _ROLE_BITS.get(message.role)
    if bits is not None:
        return bits
    if message.approvals:
        return TYPE_BITS["approval_response_message"]
    bits = 0
    asks = message.role == _Role.MESSAGE_ROLE_APPROVAL
    for part in message.parts:
        if part.HasField("tool_call"):
            said = not asks and part.tool_call.name == SEND_MESSAGE[0]
            bits |= TYPE_BITS["approval_request_message" if asks else "tool_call_message"]
            bits |= TYPE_BITS["assistant_message"] if said else 0
        else:
            bits |= _PART_BITS.get(part.WhichOneof("part") or "", 0)
    return bits


def search_text(message: message_pb2.Message) -> str:
    """Return what search reads of a message: nothing of instructions and of notices by the system."""
    if message.role == _Role.MESSAGE_ROLE_SYSTEM or message.is_automated:
        return ""
    texts = []
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "text":
            texts.append(part.text.text)
        elif kind == "tool_call":
            texts.append(f"{part.tool_call.name} {part.tool_call.input}")
        elif kind == "tool_return":
            texts.append(part.tool_return.content)
    return "\n".join(texts)[:SEARCH_LIMIT].replace("\0", "")


def pack_block(block: Block) -> block_pb2.Block:
    """Pack a block."""
    packed = block_pb2.Block(
        id=block.id,
        label=block.label,
        value=block.value,
        limit=block.limit,
        read_only=block.read_only,
        metadata=block.metadata,
        tags=block.tags,
        is_template=block.is_template,
        version=block.version,
        etag=str(block.version),
        created_at=stamp_of(block.created_at),
        updated_at=stamp_of(block.updated_at),
    )
    for name in _OPTIONAL_BLOCK_FIELDS:
        if (value := getattr(block, name)) is not None:
            setattr(packed, name, value)
    return packed


def unpack_block(packed: block_pb2.Block) -> Block:
    """Unpack a block that a caller wants made or changed; output-only fields are left out."""
    optional = [name for name in changed_paths(packed, _SET) if name in _OPTIONAL_BLOCK_FIELDS]
    given = {name: getattr(packed, name) for name in optional}
    return Block(
        id="",
        label=packed.label,
        value=packed.value,
        limit=packed.limit or DEFAULT_LIMIT,
        read_only=packed.read_only,
        metadata=packed.metadata or "{}",
        tags=tuple(packed.tags),
        is_template=packed.is_template,
        **given,
    )


def block_changes(packed: block_pb2.Block, mask: FieldMask) -> dict[str, Any]:
    """Return the fields that a mask names, with their new values. Raises InvalidArgument for an unknown path."""
    given = unpack_block(packed)
    values = changed_values(packed, mask)
    return {name: None if value is None else getattr(given, name) for name, value in values.items()}
