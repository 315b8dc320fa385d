"""What a request in the words of chat completions asks of an agent."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import groupby

from letta.agent.v1.chat_completion_service_pb2 import (
    CHAT_ROLE_ASSISTANT,
    CHAT_ROLE_TOOL,
    CHAT_ROLE_USER,
    CHAT_TOOL_CHOICE_NONE,
    ChatMessage,
    ChatPart,
    ChatPrompt,
)
from letta.agent.v1.run_pb2 import (
    ON_BUSY_WAIT,
    ApprovalCreate,
    ClientTool,
    InputMessage,
    MessageCreate,
    RunRequest,
)
from letta.common.v1.message_pb2 import (
    MESSAGE_ROLE_SYSTEM,
    MESSAGE_ROLE_USER,
    TOOL_RETURN_STATUS_SUCCESS,
    Approval,
    ApprovalReturn,
    Base64Image,
    ContentPart,
    ContentParts,
    ImageContent,
    ImageSource,
    TextContent,
    ToolReturn,
    UrlImage,
)
from letta_common.errors import InvalidArgument

_DATA = re.compile(r"data:(?P<type>[\w.+-]+/[\w.+-]+);base64,(?P<data>.*)", re.DOTALL)
_VERDICT = re.compile(r"\s*(approve|deny)\b[\s:,.]*(.*)", re.DOTALL | re.IGNORECASE)


def run_request(prompt: ChatPrompt, *, streamed: bool) -> RunRequest:
    """Return the run that a prompt asks for: with what is behind the last message of the assistant.

    Raises:
        InvalidArgument: Nothing is, or something of it cannot be said to an agent.
    """
    said = [place for place, message in enumerate(prompt.messages) if message.role == CHAT_ROLE_ASSISTANT]
    first = said[-1] + 1 if said else 0
    if first == len(prompt.messages):
        raise InvalidArgument("nothing is new: the last message is the assistant's", field="prompt.messages")
    calls = prompt.messages[said[-1]].tool_calls if said else ()
    own = {tool.function.name for tool in prompt.tools}
    agents = {call.id for call in calls if call.function.name not in own}
    tools = [
        ClientTool(
            name=tool.function.name,
            description=tool.function.description if tool.function.HasField("description") else None,
            parameters=tool.function.parameters,
        )
        for tool in prompt.tools
        if prompt.tool_choice != CHAT_TOOL_CHOICE_NONE
    ]
    return RunRequest(
        messages=_inputs(prompt.messages, first, agents),
        client_tools=tools,
        streaming=streamed,
        stream_tokens=streamed,
        include_pings=False,
        on_busy=ON_BUSY_WAIT,
    )


def _inputs(messages: Sequence[ChatMessage], first: int, agents: Collection[str]) -> Iterator[InputMessage]:
    """Yield the new messages, those that answer calls together; `agents` are calls of the agent's own tools."""
    places = range(first, len(messages))
    for answers, group in groupby(places, key=lambda place: messages[place].role == CHAT_ROLE_TOOL):
        if answers:
            yield InputMessage(approval=ApprovalCreate(approvals=[_answer(messages, at, agents) for at in group]))
        else:
            yield from (InputMessage(message_create=_said(messages, at)) for at in group)


def _said(messages: Sequence[ChatMessage], place: int) -> MessageCreate:
    message = messages[place]
    role = MESSAGE_ROLE_USER if message.role == CHAT_ROLE_USER else MESSAGE_ROLE_SYSTEM
    name = message.name if message.HasField("name") else None
    if message.WhichOneof("content") == "text":
        return MessageCreate(role=role, text=message.text, name=name)
    return MessageCreate(role=role, parts=_parts(messages, place), name=name)


def _answer(messages: Sequence[ChatMessage], place: int, agents: Collection[str]) -> Approval:
    """Return what answers a call: what the caller's tool returned, or whether a tool of the agent's may be called."""
    message = messages[place]
    if not message.tool_call_id:
        raise InvalidArgument("which call it answers is missing", field=f"prompt.messages[{place}].tool_call_id")
    if message.tool_call_id not in agents:
        returned = ToolReturn(tool_call_id=message.tool_call_id, status=TOOL_RETURN_STATUS_SUCCESS)
        if message.WhichOneof("content") == "parts":
            returned.parts.CopyFrom(_parts(messages, place))
        else:
            returned.text = message.text
        return Approval(tool_return=returned)
    text = message.text or "".join(part.text.text for part in message.parts.parts)
    verdict = _VERDICT.fullmatch(text)
    if verdict is None:
        problem = (
            f"call {message.tool_call_id} is of none of `tools`, so it is the agent's own and waits for approval: "
            "answer `approve`, or `deny` and why"
        )
        raise InvalidArgument(problem, field=f"prompt.messages[{place}].content")
    approve = verdict[1].lower() == "approve"
    return Approval(
        approval_return=ApprovalReturn(
            tool_call_id=message.tool_call_id, approve=approve, reason=verdict[2].strip() or None
        )
    )


def _parts(messages: Sequence[ChatMessage], place: int) -> ContentParts:
    where = f"prompt.messages[{place}].content"
    parts = messages[place].parts.parts
    if not parts:
        raise InvalidArgument("a message without content", field=where)
    return ContentParts(parts=[_part(part, f"{where}[{number}]") for number, part in enumerate(parts)])


def _part(part: ChatPart, where: str) -> ContentPart:
    kind = part.WhichOneof("part")
    if kind == "text":
        return ContentPart(text=TextContent(text=part.text.text))
    if kind == "refusal":
        raise InvalidArgument("only an assistant refuses", field=where)
    url = part.image_url.image_url.url
    if not url.startswith("data:"):
        return ContentPart(image=ImageContent(source=ImageSource(url=UrlImage(url=url))))
    found = _DATA.fullmatch(url)
    try:
        data = base64.b64decode(found["data"], validate=True) if found else b""
    except binascii.Error:
        data = b""
    if not (found and data):
        raise InvalidArgument("an image is an address or `data:<media type>;base64,<data>`", field=where)
    return ContentPart(image=ImageContent(source=ImageSource(base64=Base64Image(media_type=found["type"], data=data))))
