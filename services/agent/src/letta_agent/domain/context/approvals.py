"""Tool calls that wait for a person or for the client, and their answers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from google.protobuf.timestamp_pb2 import Timestamp

from letta.common.v1 import message_pb2
from letta_agent.domain.journal.records import HeldCalls as Waiting
from letta_agent.domain.peers.memory import Message
from letta_common.errors import NoPendingApproval, PendingApproval
from letta_common.values.ids import new_id
from letta_messages.rendering import text_of

ToolReturnContent = message_pb2.ToolReturnContent
DENIED = "Error: request to call tool denied."
CANCELLED = "Error: the request was cancelled before the tool was called."
UNANSWERED = "The request was not answered; another message came instead."
_ROLE = message_pb2.MessageRole
_SAID = frozenset({_ROLE.MESSAGE_ROLE_USER, _ROLE.MESSAGE_ROLE_SYSTEM})


@dataclass(frozen=True, slots=True)
class WaitingCalls:
    """The message whose calls waited, and the returns that its answers settle."""

    message: Message
    answers: Mapping[str, ToolReturnContent]


@dataclass(frozen=True, slots=True)
class Settled:
    """The input of a run, as the calls that wait take it."""

    first: Sequence[Message]
    """Messages to begin with."""
    later: Sequence[Message] = ()
    """Messages that come behind what the calls return."""
    left: tuple[str, ...] = ()
    """Calls that still wait."""


def settled(messages: Sequence[Message], waiting: Waiting | None, *, denies: bool) -> Settled:
    """Return the input of a run: with its answers as answers to calls, or with a denial of what waits before it.

    Raises:
        NoPendingApproval: it answers calls, but none wait.
        PendingApproval: calls wait and are not to be denied, or it answers some of them and says more.
    """
    answers = [message for message in messages if message.role == _ROLE.MESSAGE_ROLE_APPROVAL]
    rest = [message for message in messages if message.role != _ROLE.MESSAGE_ROLE_APPROVAL]
    if waiting is None:
        if answers:
            raise NoPendingApproval("the input answers calls, but no calls wait", pending_call_ids="")
        return Settled(rest)
    if not answers:
        if not denies:
            raise unanswered(waiting)
        return Settled([denial(waiting, rest[0].created_at if rest else None, UNANSWERED)], rest)
    resolved = [_resolved(message, waiting) for message in answers]
    given = {_call_of(approval) for message in resolved for approval in message.approvals}
    left = tuple(call_id for call_id in waiting.call_ids if call_id not in given)
    # Calls without an answer may not stand before other words, so they are denied or the input is refused.
    if left and rest:
        if not denies:
            raise unanswered(waiting)
        others = replace(waiting, call_ids=left)
        return Settled([*resolved, denial(others, rest[0].created_at, UNANSWERED)], rest)
    # What was said besides comes behind the returns, since vendors want those right after the calls.
    return Settled(resolved, rest, left)


def unanswered(waiting: Waiting) -> PendingApproval:
    """Return the refusal of messages while calls wait."""
    text = "tool calls wait for approval: answer them, or cancel, before you send another message"
    calls = ", ".join(waiting.call_ids)
    return PendingApproval(text, pending_request_id=waiting.message_id, tool_call_ids=calls)


def denial(waiting: Waiting, when: Timestamp | None, reason: str) -> Message:
    """Return an answer that denies every call that waits."""
    message = Message(id=new_id("message"), role=_ROLE.MESSAGE_ROLE_APPROVAL, approval_request_id=waiting.message_id)
    if when is not None:
        message.created_at.CopyFrom(when)
    for call_id in waiting.call_ids:
        message.approvals.add(
            approval_return=message_pb2.ApprovalReturn(tool_call_id=call_id, approve=False, reason=reason)
        )
    return message


def pending(messages: Sequence[bytes]) -> WaitingCalls | None:
    """Return the calls that approvals at the end of a context answer; None when there are none."""
    asked, answers = _open(messages)
    return WaitingCalls(asked, _returns(asked, answers)) if asked is not None and answers else None


def request_of(messages: Sequence[bytes]) -> Message | None:
    """Return the message at the end of a context whose calls wait for approval, or wait to be executed."""
    return _open(messages)[0]


def cancelled(asked: Message) -> list[ToolReturnContent]:
    """Return what the calls of a message return that are not to be executed any more."""
    calls = [part.tool_call for part in asked.parts if part.HasField("tool_call")]
    return [ToolReturnContent(tool_call_id=call.id, name=call.name, content=CANCELLED, is_error=True) for call in calls]


def narrowed(asked: Message, call_ids: Iterable[str]) -> Message:
    """Return a request for approval with some of its calls alone."""
    kept, message = frozenset(call_ids), Message()
    message.CopyFrom(asked)
    del message.parts[:]
    message.parts.extend(p for p in asked.parts if p.HasField("tool_call") and p.tool_call.id in kept)
    return message


def _open(messages: Sequence[bytes]) -> tuple[Message | None, list[Message]]:
    """Return the request that ends a context, but for its answers and for what was said since, and the answers."""
    answers: list[Message] = []
    for data in reversed(messages):
        message = Message.FromString(data)
        if message.role in _SAID:
            continue
        if message.role != _ROLE.MESSAGE_ROLE_APPROVAL:
            return None, []
        if not message.approvals:
            return message, answers[::-1]
        answers.append(message)
    return None, []


def _resolved(message: Message, waiting: Waiting) -> Message:
    """Return an answer in which the message that asked stands for each of its calls."""
    resolved = Message()
    resolved.CopyFrom(message)
    resolved.approval_request_id = waiting.message_id
    del resolved.approvals[:]
    # What names one call wins over what names the whole message.
    named = {_call_of(approval) for approval in message.approvals}
    for approval in message.approvals:
        whole = _call_of(approval) == waiting.message_id
        for call_id in [c for c in waiting.call_ids if c not in named] if whole else [_call_of(approval)]:
            one = resolved.approvals.add()
            one.CopyFrom(approval)
            (one.tool_return if one.HasField("tool_return") else one.approval_return).tool_call_id = call_id
    return resolved


def _call_of(approval: message_pb2.Approval) -> str:
    if approval.HasField("tool_return"):
        return approval.tool_return.tool_call_id
    return approval.approval_return.tool_call_id


def _returns(asked: Message, answers: Sequence[Message]) -> dict[str, ToolReturnContent]:
    names = {part.tool_call.id: part.tool_call.name for part in asked.parts if part.HasField("tool_call")}
    found: dict[str, ToolReturnContent] = {}
    for approval in (approval for message in answers for approval in message.approvals):
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
