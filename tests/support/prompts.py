"""Prompts as the contract carries them, and requests of wires as a vendor reads them."""

from __future__ import annotations

import json
from collections.abc import Coroutine
from typing import Any, TypeVar

from letta.common.v1.message_pb2 import (
    Approval,
    Message,
    MessageRole,
    ToolCallContent,
    ToolReturn,
    ToolReturnContent,
    ToolReturnStatus,
)
from letta_llm_gateway.providers.wires.bodies import Body

T = TypeVar("T")


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """Do to the end what pauses only to let others have their turn, and return what it returns."""
    try:
        while True:
            work.send(None)
    except StopIteration as ended:
        done: T = ended.value
        return done


def kept(*messages: Message) -> list[bytes]:
    """Return messages as they are kept, and so as a prompt has them."""
    return [message.SerializeToString() for message in messages]


def sent(request: Coroutine[Any, Any, Body]) -> dict[str, Any]:
    """Return a request as the vendor reads it."""
    read: dict[str, Any] = json.loads(at_once(request).encoded())
    return read


def called_by_client(words: str) -> list[Message]:
    """Return a call that the client answered with these words: the answer, and what the agent makes of it."""
    asked = Message(role=MessageRole.MESSAGE_ROLE_APPROVAL)
    asked.parts.add(tool_call=ToolCallContent(id="call00001", name="open_door", input="{}"))
    told = ToolReturn(status=ToolReturnStatus.TOOL_RETURN_STATUS_ERROR, tool_call_id="call00001", text=words)
    answer = Message(role=MessageRole.MESSAGE_ROLE_APPROVAL, approvals=[Approval(tool_return=told)])
    made = Message(role=MessageRole.MESSAGE_ROLE_TOOL)
    made.parts.add(
        tool_return=ToolReturnContent(tool_call_id="call00001", name="open_door", content=words, is_error=True)
    )
    return [asked, answer, made]
