"""From the stored message to the messages that clients see: one stored message becomes one or more of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import UUID

from letta.common.v1 import letta_message_pb2, message_pb2
from letta_common.values.json_texts import json_object

LettaMessage = letta_message_pb2.LettaMessage
Message = message_pb2.Message
SendTool = tuple[str, str]

SEND_MESSAGE: SendTool = ("send_message", "message")
"""Name of the tool that older agent types answer with, and its argument that holds the text."""

_Role = message_pb2.MessageRole
_State = letta_message_pb2.HiddenReasoningState
_NATIVE = letta_message_pb2.REASONING_SOURCE_REASONER_MODEL
_PROMPTED = letta_message_pb2.REASONING_SOURCE_NON_REASONER_MODEL
_INDEX_BITS = 0x7F


def expand(message: Message, *, send_tool: SendTool | None = SEND_MESSAGE) -> list[LettaMessage]:
    """Return what a client sees of a stored message.

    Calls of `send_tool` are shown as what the agent says; with None they stay tool calls.
    """
    bodies = _BODIES.get(message.role)
    if bodies is None:
        return []
    shown = list(bodies(message, send_tool))
    for index, body in enumerate(shown):
        _fill(body, message, index)
    return shown


def expand_for_list(message: Message, *, send_tool: SendTool | None = SEND_MESSAGE) -> list[LettaMessage]:
    """Return what a list shows of a stored message: as `expand`, but a summary reads as a message of the user."""
    if message.role != _Role.MESSAGE_ROLE_SUMMARY:
        return expand(message, send_tool=send_tool)
    shown = LettaMessage(user_message=letta_message_pb2.UserMessage(text=text_of(message)))
    _fill(shown, message, 0)
    return [shown]


def type_of(shown: LettaMessage) -> str:
    """Return the `message_type` of a message as clients see it."""
    return shown.WhichOneof("message") or ""


def names_of(types: Iterable[letta_message_pb2.MessageType.ValueType]) -> frozenset[str]:
    """Return the `message_type` of each of these types."""
    names = letta_message_pb2.MessageType.Name
    return frozenset(names(kind).removeprefix("MESSAGE_TYPE_").lower() for kind in types)


def text_of(message: Message) -> str:
    """Return the plain text of a message, its parts joined by line breaks."""
    return "\n".join(part.text.text for part in message.parts if part.HasField("text"))


def part_otid(message_id: str, index: int) -> str:
    """Return the otid of a part: the message's uuid with its lowest seven bits replaced by the index."""
    _, _, text = message_id.partition("-")
    try:
        number = UUID(text).int
    except ValueError:
        return f"{message_id}:{index}"
    return str(UUID(int=number & ~_INDEX_BITS | index & _INDEX_BITS))


def _fill(shown: LettaMessage, message: Message, index: int) -> None:
    """Set what all kinds of messages share."""
    shown.id = message.id
    shown.date.CopyFrom(message.created_at)
    if message.name and not shown.HasField("name"):
        shown.name = message.name
    otid = _otid(shown, message, index)
    if otid:
        shown.otid = otid
    for name in ("sender_id", "step_id", "run_id"):
        if value := getattr(message, name):
            setattr(shown, name, value)
    if message.is_err:
        shown.is_err = True


def _otid(shown: LettaMessage, message: Message, index: int) -> str:
    if shown.HasField("approval_request_message"):
        return message.id
    if message.role in (_Role.MESSAGE_ROLE_ASSISTANT, _Role.MESSAGE_ROLE_TOOL, _Role.MESSAGE_ROLE_SUMMARY):
        return part_otid(message.id, index)
    if message.role == _Role.MESSAGE_ROLE_APPROVAL and not message.approvals:
        return part_otid(message.id, index)
    return message.otid


def _system(message: Message, _: SendTool | None) -> Iterator[LettaMessage]:
    yield LettaMessage(system_message=letta_message_pb2.SystemMessage(content=text_of(message)))


def _user(message: Message, _: SendTool | None) -> Iterator[LettaMessage]:
    shown = letta_message_pb2.UserMessage()
    if len(message.parts) == 1 and message.parts[0].HasField("text"):
        shown.text = message.parts[0].text.text
    elif message.parts:
        shown.parts.parts.extend(message.parts)
    else:
        shown.text = ""
    yield LettaMessage(user_message=shown)


def _assistant(message: Message, send_tool: SendTool | None) -> Iterator[LettaMessage]:
    yield from _thoughts_and_words(message)
    calls = []
    for call in _calls(message):
        said = _said(call, send_tool)
        if said is None:
            calls.append(_call(call))
        else:
            yield LettaMessage(assistant_message=letta_message_pb2.AssistantMessage(text=said))
    if calls:
        listed = letta_message_pb2.ToolCallList(tool_calls=calls)
        yield LettaMessage(tool_call_message=letta_message_pb2.ToolCallMessage(tool_call=calls[0], tool_calls=listed))


def _thoughts_and_words(message: Message) -> Iterator[LettaMessage]:
    for part in message.parts:
        kind = part.WhichOneof("part")
        if kind == "text" and part.text.text:
            yield LettaMessage(assistant_message=letta_message_pb2.AssistantMessage(text=part.text.text))
        elif kind == "reasoning":
            yield _reasoning(part.reasoning)
        elif kind == "summarized_reasoning" and part.summarized_reasoning.summary:
            yield _summarized(part.summarized_reasoning)
        elif kind == "redacted_reasoning":
            yield _hidden(_State.HIDDEN_REASONING_STATE_REDACTED, part.redacted_reasoning.data)
        elif kind == "omitted_reasoning":
            yield _hidden(_State.HIDDEN_REASONING_STATE_OMITTED, None)


def reasoning_source(part: message_pb2.ReasoningContent) -> letta_message_pb2.ReasoningSource.ValueType:
    """Return how reasoning came about."""
    return _NATIVE if part.is_native else _PROMPTED


def _reasoning(part: message_pb2.ReasoningContent) -> LettaMessage:
    shown = letta_message_pb2.ReasoningMessage(source=reasoning_source(part), reasoning=part.reasoning)
    if part.HasField("signature"):
        shown.signature = part.signature
    return LettaMessage(reasoning_message=shown)


def _summarized(part: message_pb2.SummarizedReasoningContent) -> LettaMessage:
    text = "\n\n".join(paragraph.text for paragraph in part.summary)
    shown = letta_message_pb2.ReasoningMessage(source=_NATIVE, reasoning=text)
    if part.HasField("encrypted_content"):
        shown.signature = part.encrypted_content
    return LettaMessage(reasoning_message=shown)


def _hidden(state: letta_message_pb2.HiddenReasoningState.ValueType, data: str | None) -> LettaMessage:
    shown = letta_message_pb2.HiddenReasoningMessage(state=state, hidden_reasoning=data)
    return LettaMessage(hidden_reasoning_message=shown)


def _calls(message: Message) -> list[message_pb2.ToolCallContent]:
    return [part.tool_call for part in message.parts if part.HasField("tool_call")]


def _call(call: message_pb2.ToolCallContent) -> letta_message_pb2.ToolCall:
    return letta_message_pb2.ToolCall(name=call.name, arguments=call.input, tool_call_id=call.id)


def _said(call: message_pb2.ToolCallContent, send_tool: SendTool | None) -> str | None:
    """Return what the agent says with this call, or None when it is any other call."""
    if send_tool is None or call.name != send_tool[0]:
        return None
    said = (json_object(call.input) or {}).get(send_tool[1])
    return said if isinstance(said, str) else None


def _tool(message: Message, send_tool: SendTool | None) -> Iterator[LettaMessage]:
    """Show what tools returned; that something was said is shown by what was said."""
    hidden = send_tool[0] if send_tool is not None else ""
    returns = (part.tool_return for part in message.parts if part.HasField("tool_return"))
    parts = [returned for returned in returns if returned.is_error or not hidden or returned.name != hidden]
    if not parts:
        return
    first = parts[0]
    shown = letta_message_pb2.ToolReturnMessage(
        tool_return=first.content,
        status=_status(first),
        tool_call_id=first.tool_call_id,
        stdout=first.stdout,
        stderr=first.stderr,
        tool_returns=[_return(part) for part in parts],
    )
    yield LettaMessage(tool_return_message=shown, name=message.name or first.name or None)


def _return(part: message_pb2.ToolReturnContent) -> message_pb2.ToolReturn:
    return message_pb2.ToolReturn(
        text=part.content,
        status=_status(part),
        tool_call_id=part.tool_call_id,
        stdout=part.stdout,
        stderr=part.stderr,
    )


def _status(part: message_pb2.ToolReturnContent) -> message_pb2.ToolReturnStatus.ValueType:
    kinds = message_pb2.ToolReturnStatus
    return kinds.TOOL_RETURN_STATUS_ERROR if part.is_error else kinds.TOOL_RETURN_STATUS_SUCCESS


def _approval(message: Message, _: SendTool | None) -> Iterator[LettaMessage]:
    if message.approvals:
        yield LettaMessage(approval_response_message=_answers(message))
        return
    yield from _thoughts_and_words(message)
    calls = [_call(call) for call in _calls(message)]
    if calls:
        listed = letta_message_pb2.ToolCallList(tool_calls=calls)
        asked = letta_message_pb2.ApprovalRequestMessage(tool_call=calls[0], tool_calls=listed)
        yield LettaMessage(approval_request_message=asked)


def _answers(message: Message) -> letta_message_pb2.ApprovalResponseMessage:
    shown = letta_message_pb2.ApprovalResponseMessage(approvals=message.approvals)
    if message.approval_request_id:
        shown.approval_request_id = message.approval_request_id
    first = message.approvals[0]
    if first.HasField("approval_return"):
        shown.approve = first.approval_return.approve
        if first.approval_return.HasField("reason"):
            shown.reason = first.approval_return.reason
    return shown


def _summary(message: Message, _: SendTool | None) -> Iterator[LettaMessage]:
    shown = letta_message_pb2.SummaryMessage(summary=text_of(message))
    if message.HasField("compaction_stats"):
        shown.compaction_stats.CopyFrom(message.compaction_stats)
    yield LettaMessage(summary_message=shown)


_BODIES = {
    _Role.MESSAGE_ROLE_SYSTEM: _system,
    _Role.MESSAGE_ROLE_USER: _user,
    _Role.MESSAGE_ROLE_ASSISTANT: _assistant,
    _Role.MESSAGE_ROLE_TOOL: _tool,
    _Role.MESSAGE_ROLE_APPROVAL: _approval,
    _Role.MESSAGE_ROLE_SUMMARY: _summary,
}
