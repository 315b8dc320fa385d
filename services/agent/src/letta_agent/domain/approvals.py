"""Tool calls that wait for a person or for the client, and their answers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from letta.common.v1 import message_pb2
from letta_agent.domain.peers import Message
from letta_common.letta_messages import text_of

ToolReturnContent = message_pb2.ToolReturnContent
DENIED = "Error: request to call tool denied."
_ROLE = message_pb2.MessageRole


@dataclass(frozen=True, slots=True)
class Pending:
    """The message whose calls waited, and the returns that its answers settle."""

    message: Message
    answers: Mapping[str, ToolReturnContent]


def pending(messages: Sequence[bytes]) -> Pending | None:
    """Return the calls that an approval at the end of a context answers; None when there are none."""
    answers: Message | None = None
    for data in reversed(messages):
        message = Message.FromString(data)
        if message.role != _ROLE.MESSAGE_ROLE_APPROVAL:
            if answers is None and message.role == _ROLE.MESSAGE_ROLE_USER:
                continue
            return None
        if message.approvals and answers is None:
            answers = message
        elif answers is not None and not message.approvals:
            return Pending(message, _returns(message, answers))
        else:
            return None
    return None


def _returns(asked: Message, answered: Message) -> dict[str, ToolReturnContent]:
    names = {part.tool_call.id: part.tool_call.name for part in asked.parts if part.HasField("tool_call")}
    found: dict[str, ToolReturnContent] = {}
    for approval in answered.approvals:
        if approval.HasField("tool_return"):
            given = approval.tool_return
            found[given.tool_call_id] = ToolReturnContent(
                tool_call_id=given.tool_call_id,
                name=names.get(given.tool_call_id, ""),
                content=_content(given),
                is_error=given.status == message_pb2.TOOL_RETURN_STATUS_ERROR,
                stdout=given.stdout,
                stderr=given.stderr,
            )
        elif not approval.approval_return.approve:
            reason = approval.approval_return.reason
            denied = f"{DENIED} User reason: {reason}" if reason else DENIED
            call_id = approval.approval_return.tool_call_id
            found[call_id] = ToolReturnContent(
                tool_call_id=call_id, name=names.get(call_id, ""), content=denied, is_error=True
            )
    return found


def _content(given: message_pb2.ToolReturn) -> str:
    if given.HasField("text"):
        return given.text
    return text_of(Message(parts=given.parts.parts)) if given.HasField("parts") else json.dumps(None)
