"""Conversations that begin with what another one has in context."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import sqlalchemy as sa

from letta.common.v1.message_pb2 import (
    MESSAGE_ROLE_SUMMARY,
    MESSAGE_ROLE_TOOL,
    Message,
    ToolCallContent,
    ToolReturnContent,
)
from letta.memory.v1.context_service_pb2 import ProvisionConversationRequest
from letta_common.errors import ConversationNotFound, MessageNotFound
from letta_common.values.ids import derived_id
from letta_common.values.times import time_of
from letta_postgres.connections import Connection

OPEN_CALL = "Error: the conversation was forked before this call was answered; whether it was made is not known here."
_CONTEXT = sa.text(
    "select memory.window_of(c) from memory.conversations c "
    "where c.organization_id = :org and c.id = :conversation and c.agent_id = :agent for key share"
)
_OWN_LABELS = sa.text(
    "select l.label from memory.conversation_blocks l "
    'where l.organization_id = :org and l.conversation_id = :conversation order by l.label collate "C"'
)
KEEP_SUMMARY = sa.text(
    "update memory.conversations c set summary_seq = (select max(m.seq) from memory.messages m "
    f"where m.organization_id = c.organization_id and m.conversation_id = c.id and m.role = {MESSAGE_ROLE_SUMMARY}) "
    "where c.organization_id = :org and c.id = :conversation"
)


async def context_copies(tx: Connection, org: str, new: ProvisionConversationRequest) -> list[Message]:
    """Return copies of what the source has in context, behind its system prompt, with ids that a repeat has too.

    Raises:
        ConversationNotFound: the agent has no such conversation.
        MessageNotFound: the last message to take is not in its context.
    """
    source = new.source_conversation_id
    row = (await tx.execute(_CONTEXT, {"org": org, "conversation": source, "agent": new.agent_id})).one_or_none()
    if row is None:
        raise ConversationNotFound(f"conversation {source} not found", conversation_id=source)
    # In a thread, as a context may have so many messages that others would wait.
    return await asyncio.to_thread(_copies, org, new, row[0])


async def own_labels(tx: Connection, org: str, conversation_id: str) -> list[str]:
    """Return the labels of which a conversation has blocks of its own."""
    return [row[0] for row in await tx.execute(_OWN_LABELS, {"org": org, "conversation": conversation_id})]


def _copies(org: str, new: ProvisionConversationRequest, bodies: Sequence[bytes]) -> list[Message]:
    messages = [Message.FromString(body) for body in bodies]
    if new.last_message_id:
        messages = messages[: _place_of(messages, new.last_message_id) + 1]
    copies = [_copy(org, new.conversation_id, message) for message in messages[1:]]
    return copies + _answers(org, new.conversation_id, copies)


def _place_of(messages: list[Message], message_id: str) -> int:
    for place, message in enumerate(messages):
        if message.id == message_id:
            return place
    text = f"message {message_id} is not in the context of the conversation; ask GetContext what is"
    raise MessageNotFound(text, message_id=message_id)


def _answers(org: str, conversation_id: str, copies: Sequence[Message]) -> list[Message]:
    """Return what answers the calls that nobody answers here: vendors refuse a transcript with an open one."""
    left: dict[str, ToolCallContent] = {}
    # In order, since some vendors give a later call the id of an earlier one.
    for part in (part for message in copies for part in message.parts):
        if part.HasField("tool_call"):
            left[part.tool_call.id] = part.tool_call
        elif part.HasField("tool_return"):
            left.pop(part.tool_return.tool_call_id, None)
    if not left:
        return []
    made = Message(id=derived_id("message", org, conversation_id, "open calls"), role=MESSAGE_ROLE_TOOL)
    made.created_at.FromDatetime(time_of(copies[-1].created_at) + timedelta(microseconds=1))
    for call in left.values():
        returned = ToolReturnContent(tool_call_id=call.id, name=call.name, content=OPEN_CALL, is_error=True)
        made.parts.add(tool_return=returned)
    return [made]


def _copy(org: str, conversation_id: str, message: Message) -> Message:
    message.id = derived_id("message", org, conversation_id, message.id)
    # The run is one of the source: lists of what runs and steps made show those messages alone.
    message.ClearField("run_id")
    message.ClearField("step_id")
    message.ClearField("otid")
    return message
