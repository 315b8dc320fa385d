"""What a run is asked to do: from the words of a request to messages."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from letta.agent.v1 import run_pb2
from letta.common.v1 import message_pb2
from letta_agent.domain.journal.records import StoredInput
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.models import ContentPart
from letta_common.errors import InvalidArgument, ValidationFailed
from letta_common.values.ids import new_id

_ROLE = message_pb2.MessageRole
MANNERS = ("streaming", "stream_tokens", "include_pings", "background")
"""How an answer is wanted, which makes no other request."""


def read_input(request: run_pb2.RunRequest, now: datetime) -> StoredInput:
    """Return the messages that a request sends. Raises ValidationFailed and InvalidArgument."""
    given = request.WhichOneof("input")
    if bool(request.messages) == bool(given):
        why = "Messages must not be empty" if not given else "Send either messages or input, not both"
        raise ValidationFailed(why, messages=why)
    if given:
        part = [_text(request.input_text)] if given == "input_text" else list(request.input_parts.parts)
        return StoredInput(messages=[_message(_ROLE.MESSAGE_ROLE_USER, part, now)])
    messages = [message for item in request.messages for message in _read(item, now)]
    answers = [message for message in messages if message.role == _ROLE.MESSAGE_ROLE_APPROVAL]
    # Vendors want the returns of calls right behind them, before anything else is said.
    if answers and messages[0] is not answers[0]:
        raise InvalidArgument("answers to a request for approval come first", field="messages")
    return StoredInput(messages=messages)


def answers_in(given: StoredInput) -> tuple[tuple[str, str], ...] | None:
    """Return what an input answers, calls or messages that made calls, each with its answer; None if it is none."""
    answers = [message for message in given.messages if message.role == _ROLE.MESSAGE_ROLE_APPROVAL]
    # Sorted and without repeats, so that the same answers in another order are known as the same.
    return tuple(sorted({pair for message in answers for pair in _answered(message)})) if answers else None


def _read(item: run_pb2.InputMessage, now: datetime) -> Iterator[Message]:
    kind = item.WhichOneof("message")
    if kind == "message_create":
        yield created(item.message_create, now)
    elif kind == "approval":
        yield _approval(item.approval, now)
    elif kind == "tool_return":
        approvals = [message_pb2.Approval(tool_return=returned) for returned in item.tool_return.tool_returns]
        message = _message(_ROLE.MESSAGE_ROLE_APPROVAL, [], now)
        message.otid = item.tool_return.otid
        message.approvals.extend(approvals)
        yield message


def created(given: run_pb2.MessageCreate, now: datetime) -> Message:
    """Return the message that somebody says."""
    parts = list(given.parts.parts) if given.HasField("parts") else [_text(given.text)]
    message = _message(given.role, parts, now)
    message.name, message.otid = given.name, given.otid
    message.sender_id, message.group_id = given.sender_id, given.group_id
    return message


def _approval(given: run_pb2.ApprovalCreate, now: datetime) -> Message:
    message = _message(_ROLE.MESSAGE_ROLE_APPROVAL, [], now)
    message.otid = given.otid
    message.approval_request_id = given.approval_request_id
    message.approvals.extend(given.approvals)
    if not given.approvals:
        if not given.HasField("approve") or not given.approval_request_id:
            text = "an approval names what it answers: set `approvals`, or `approve` and `approval_request_id`"
            raise InvalidArgument(text, field="messages")
        one = message.approvals.add().approval_return
        # The message stands for all its calls here; `settled` puts each call in its place.
        one.tool_call_id, one.approve = given.approval_request_id, given.approve
        if given.HasField("reason"):
            one.reason = given.reason
    return message


def _answered(message: Message) -> Iterator[tuple[str, str]]:
    for approval in message.approvals:
        if approval.HasField("tool_return"):
            yield approval.tool_return.tool_call_id, "return"
        else:
            answer = approval.approval_return
            yield answer.tool_call_id, "approve" if answer.approve else "deny"


def _message(role: message_pb2.MessageRole.ValueType, parts: list[ContentPart], now: datetime) -> Message:
    message = Message(id=new_id("message"), role=role, parts=parts)
    message.created_at.FromDatetime(now)
    return message


def _text(text: str) -> ContentPart:
    return ContentPart(text=message_pb2.TextContent(text=text))
