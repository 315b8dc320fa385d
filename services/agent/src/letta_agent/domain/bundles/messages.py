"""Messages of a document: what a conversation has in context, with the ids and the layout of the document."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence

from letta.agent.v1 import bundle_pb2
from letta.agent.v1.bundle_pb2 import BundledApproval, BundledMessage, BundledReturn
from letta.common.v1 import message_pb2
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.models import ContentPart
from letta_common.values.ids import new_id

_ROLE = message_pb2.MessageRole
_SUCCESS, _ERROR = message_pb2.TOOL_RETURN_STATUS_SUCCESS, message_pb2.TOOL_RETURN_STATUS_ERROR
_APPROVAL, _TOOL = bundle_pb2.BUNDLED_APPROVAL_TYPE_APPROVAL, bundle_pb2.BUNDLED_APPROVAL_TYPE_TOOL
_CALLS = frozenset({"tool_call", "tool_return"})
"""Parts that a document has apart from a message's content."""
_ANSWERING = frozenset({_ROLE.MESSAGE_ROLE_TOOL, _ROLE.MESSAGE_ROLE_APPROVAL})
_CALLING = frozenset({_ROLE.MESSAGE_ROLE_ASSISTANT, _ROLE.MESSAGE_ROLE_APPROVAL})
_PACKED = "user_message"
"""Type of what older servers wrote around the words of a user."""
_TIME = "%Y-%m-%d %I:%M:%S %p UTC+0000"
OPEN_CALL = "Error: the agent was exported before this call was answered; whether it was made is not known here."


def written(messages: Sequence[Message], agent_id: str, first: int) -> list[BundledMessage]:
    """Return messages as a document has them, numbered from `first`."""
    ids = {message.id: f"message-{first + place}" for place, message in enumerate(messages)}
    return [_written(message, agent_id, ids) for message in messages]


def _written(message: Message, agent_id: str, ids: Mapping[str, str]) -> BundledMessage:
    said = [part for part in message.parts if part.WhichOneof("part") not in _CALLS or part.tool_call.signature]
    made = BundledMessage(
        role=message.role,
        id=ids[message.id],
        agent_id=agent_id,
        content=message_pb2.ContentParts(parts=said),
        created_at=message.created_at,
    )
    for name in ("otid", "name", "sender_id", "model", "group_id"):
        if getattr(message, name):
            setattr(made, name, getattr(message, name))
    for call in (part.tool_call for part in message.parts if part.HasField("tool_call")):
        made.tool_calls.add(id=call.id, function={"name": call.name, "arguments": call.input})
    made.tool_returns.extend(_returned(message))
    made.approvals.extend(map(_answer, message.approvals))
    if message.approval_request_id in ids:
        made.approval_request_id = ids[message.approval_request_id]
    calls = [*(call.id for call in made.tool_calls), *(returned.tool_call_id for returned in made.tool_returns)]
    if len(calls) == 1:
        made.tool_call_id = calls[0]
    if len(made.tool_returns) == 1 and not said:
        made.content.parts.add(text=message_pb2.TextContent(text=made.tool_returns[0].text))
    return made


def _returned(message: Message) -> Iterator[BundledReturn]:
    for part in message.parts:
        if part.HasField("tool_return"):
            back, time = part.tool_return, message.created_at.ToDatetime().strftime(_TIME)
            told = {"status": "Failed" if back.is_error else "OK", "message": back.content, "time": time}
            yield BundledReturn(
                tool_call_id=back.tool_call_id,
                status=_ERROR if back.is_error else _SUCCESS,
                stdout=back.stdout,
                stderr=back.stderr,
                text=json.dumps(told, indent=2, ensure_ascii=False),
            )


def _answer(given: message_pb2.Approval) -> BundledApproval:
    if given.HasField("tool_return"):
        back = given.tool_return
        text = back.text if back.HasField("text") else _text(back.parts.parts)
        made = BundledApproval(type=_TOOL, tool_call_id=back.tool_call_id, status=back.status, func_response=text)
        made.stdout.extend(back.stdout)
        made.stderr.extend(back.stderr)
        return made
    leave = given.approval_return
    reason = leave.reason if leave.HasField("reason") else None
    return BundledApproval(type=_APPROVAL, tool_call_id=leave.tool_call_id, approve=leave.approve, reason=reason)


def read(messages: Sequence[BundledMessage], *, thinks_aloud: bool = False) -> list[Message]:
    """Return the messages of a document less the prompt that opens it, with new ids and no call left open.

    `thinks_aloud` says that what the agent wrote beside a call was a thought, as kinds that speak by calls have it.
    """
    taken = messages[1:] if messages and messages[0].role == _ROLE.MESSAGE_ROLE_SYSTEM else messages
    ids = {message.id: new_id("message") for message in taken}
    made: list[Message] = []
    waiting: dict[str, str] = {}  # calls that wait for an answer, and the messages that asked
    for message in taken:
        told = _read(message, ids)
        calls = [part.tool_call for part in told.parts if part.HasField("tool_call")]
        if told.role == _ROLE.MESSAGE_ROLE_APPROVAL and calls:
            waiting = {call.id: told.id for call in calls}
        elif told.role == _ROLE.MESSAGE_ROLE_APPROVAL and not _read_answers(told, message, waiting):
            continue
        if thinks_aloud and calls:
            _think(told)
        made.append(told)
    return _sound(made)


def _read(given: BundledMessage, ids: Mapping[str, str]) -> Message:
    made = Message(
        id=ids[given.id],
        role=given.role,
        created_at=given.created_at,
        name=given.name,
        otid=given.otid,
        sender_id=given.sender_id,
        model=given.model,
    )
    if given.role == _ROLE.MESSAGE_ROLE_TOOL:
        made.parts.extend(_returns(given))
        return made
    said = [_part(given.text)] if given.HasField("text") else list(given.content.parts)
    said = [part for part in said if part.WhichOneof("part") not in _CALLS]
    if given.role == _ROLE.MESSAGE_ROLE_SUMMARY:
        said = [_part(unpacked(_text(said)))]
    elif given.role == _ROLE.MESSAGE_ROLE_USER and len(said) == 1 and said[0].HasField("text"):
        said = [_part(unpacked(said[0].text.text, _PACKED))]
    made.parts.extend(said)
    if given.role in _CALLING:
        made.parts.extend(ContentPart(tool_call=call) for call in _asked(given))
    return made


def _asked(given: BundledMessage) -> Iterator[message_pb2.ToolCallContent]:
    """Yield the calls of a message, each id once. Some servers have those that a vendor signed in the content too."""
    noted = {part.tool_call.id: part.tool_call for part in given.content.parts if part.tool_call.name}
    listed = {
        call.id: message_pb2.ToolCallContent(id=call.id, name=call.function.name, input=call.function.arguments)
        for call in given.tool_calls
    }
    for call_id, call in {**noted, **listed}.items():
        if call_id in noted and noted[call_id].HasField("signature"):
            call.signature = noted[call_id].signature
        yield call


def _think(made: Message) -> None:
    for part in made.parts:
        if part.HasField("text"):
            part.reasoning.CopyFrom(message_pb2.ReasoningContent(reasoning=part.text.text))


def _read_answers(made: Message, given: BundledMessage, waiting: dict[str, str]) -> bool:
    """Answer calls that wait, each once; say whether there was any."""
    answers = list(given.approvals)
    if not answers and given.HasField("approve"):
        answers = [BundledApproval(approve=given.approve, reason=given.denial_reason or None)]
    # An older answer names the request in place of its calls, and then it is about all that are left.
    for answer in sorted(answers, key=lambda answer: answer.tool_call_id not in waiting):
        for call_id in [answer.tool_call_id] if answer.tool_call_id in waiting else [*waiting]:
            made.approval_request_id = waiting.pop(call_id)
            made.approvals.append(_approval(answer, call_id))
    return bool(made.approvals)


def _approval(answer: BundledApproval, call_id: str) -> message_pb2.Approval:
    if answer.type == _TOOL or answer.HasField("func_response"):
        back = message_pb2.ToolReturn(
            tool_call_id=call_id,
            status=answer.status or _SUCCESS,
            text=unpacked(answer.func_response),
            stdout=answer.stdout,
            stderr=answer.stderr,
        )
        return message_pb2.Approval(tool_return=back)
    reason = answer.reason if answer.HasField("reason") else None
    leave = message_pb2.ApprovalReturn(tool_call_id=call_id, approve=answer.approve, reason=reason)
    return message_pb2.Approval(approval_return=leave)


def _returns(given: BundledMessage) -> Iterator[ContentPart]:
    back = list(given.tool_returns)
    noted = [] if back else [part for part in given.content.parts if part.HasField("tool_return")]
    yield from noted
    if not back and not noted and given.tool_call_id:  # older servers wrote no list
        text = given.text if given.HasField("text") else _text(given.content.parts)
        back = [BundledReturn(tool_call_id=given.tool_call_id, text=text)]
    for each in back:
        text = each.text if each.HasField("text") else _text(each.parts.parts)
        returned = message_pb2.ToolReturnContent(
            tool_call_id=each.tool_call_id or given.tool_call_id,
            content=unpacked(text),
            is_error=each.status == _ERROR,
            name=given.name,
            stdout=each.stdout,
            stderr=each.stderr,
        )
        yield ContentPart(tool_return=returned)


def unpacked(text: str, kind: str = "") -> str:
    """Return what a server packed into a JSON object with a time, of a kind if it is named; other text is itself."""
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(told, dict) or not {"message", "time"} <= told.keys():
        return text
    if kind and told.get("type") != kind:
        return text
    said = told["message"]
    return said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)


def _sound(messages: Sequence[Message]) -> list[Message]:
    """Return a history that vendors take: each call is answered before anybody speaks, and only calls are."""
    sound: list[Message] = []
    left: dict[str, message_pb2.ToolCallContent] = {}
    done: dict[str, message_pb2.ToolReturn] = {}  # what clients made of calls
    for message in messages:
        calls = [part.tool_call for part in message.parts if part.HasField("tool_call")]
        back = [part for part in message.parts if part.HasField("tool_return")]
        if left and (calls or message.role not in _ANSWERING):
            sound.append(_closing(left, done, sound[-1]))
            left = {}
        if message.role == _ROLE.MESSAGE_ROLE_TOOL:
            if not (known := [*_known(back, left)]):
                continue
            del message.parts[:]
            message.parts.extend(known)
        left |= {call.id: call for call in calls}
        done |= {each.tool_return.tool_call_id: each.tool_return for each in message.approvals}
        sound.append(message)
    return [*sound, _closing(left, done, sound[-1])] if left else sound


def _known(back: Iterable[ContentPart], left: dict[str, message_pb2.ToolCallContent]) -> Iterator[ContentPart]:
    """Yield the returns of calls that are open, with the names of their tools, and take those calls out."""
    for part in back:
        call = left.pop(part.tool_return.tool_call_id, None)
        if call is not None:
            part.tool_return.name = part.tool_return.name or call.name
            yield part


def _closing(
    calls: Mapping[str, message_pb2.ToolCallContent], done: Mapping[str, message_pb2.ToolReturn], after: Message
) -> Message:
    """Return the answer to calls that a document leaves open, right behind them: failed, unless a client made them."""
    made = Message(id=new_id("message"), role=_ROLE.MESSAGE_ROLE_TOOL, created_at=after.created_at)
    for call in calls.values():
        back = message_pb2.ToolReturnContent(tool_call_id=call.id, name=call.name, content=OPEN_CALL, is_error=True)
        if call.id in done:
            told = done[call.id]
            back.content, back.is_error = told.text, told.status == _ERROR
            back.stdout.extend(told.stdout)
            back.stderr.extend(told.stderr)
        made.parts.add(tool_return=back)
    return made


def _part(text: str) -> ContentPart:
    return ContentPart(text=message_pb2.TextContent(text=text))


def _text(parts: Iterable[ContentPart]) -> str:
    return "\n".join(part.text.text for part in parts if part.HasField("text"))
