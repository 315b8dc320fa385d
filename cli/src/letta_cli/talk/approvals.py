"""Tool calls that wait for the user's word."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import grpc

from letta.agent.v1 import run_pb2
from letta.common.v1 import letta_message_pb2, message_pb2
from letta.memory.v1 import message_service_pb2, message_service_pb2_grpc
from letta_cli.connection import CALL_SECONDS
from letta_cli.console import note, say

_NEWEST = 20
_YES, _NO = frozenset({"y", "yes"}), frozenset({"n", "no"})


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits for approval: the message that asked, and its calls."""

    request_id: str
    calls: tuple[letta_message_pb2.ToolCall, ...]

    def answered(self, answers: Sequence[tuple[bool, str]]) -> list[run_pb2.InputMessage]:
        """Return the message with an answer to each call: whether it may be made, and why."""
        approvals = [
            message_pb2.Approval(
                approval_return=message_pb2.ApprovalReturn(
                    tool_call_id=call.tool_call_id, approve=may, reason=why or None
                )
            )
            for call, (may, why) in zip(self.calls, answers, strict=True)
        ]
        return [
            run_pb2.InputMessage(
                approval=run_pb2.ApprovalCreate(approval_request_id=self.request_id, approvals=approvals)
            )
        ]

    def show(self) -> None:
        """Print the calls, each with its arguments."""
        for call in self.calls:
            say(f"  ? {call.name}", "bold yellow")
            say(_indented(call.arguments), "yellow")


def waiting(channel: grpc.Channel, agent_id: str) -> Waiting | None:
    """Return what waits in an agent's default conversation."""
    stub = message_service_pb2_grpc.MessageServiceStub(channel)
    request = message_service_pb2.ListAgentMessagesRequest(agent_id=agent_id, conversation_id="default", limit=_NEWEST)
    newest = stub.ListAgentMessages(request, timeout=CALL_SECONDS).messages
    last = max((message.id for message in newest), default="")  # ids are made in the order of time
    for message in newest:
        if message.id == last and message.WhichOneof("message") == "approval_request_message":
            asked = message.approval_request_message
            return Waiting(message.id, tuple(asked.tool_calls.tool_calls) or (asked.tool_call,))
    return None


def ask(found: Waiting, read: Callable[[str], str | None]) -> list[run_pb2.InputMessage] | None:
    """Show the calls and ask for each; None when the user leaves them waiting."""
    found.show()
    answers: list[tuple[bool, str]] = []
    for call in found.calls:
        answer = _one(call.name, read)
        if answer is None:
            note("it goes on waiting; /approvals shows it again")
            return None
        answers.append(answer)
    return found.answered(answers)


def _one(name: str, read: Callable[[str], str | None]) -> tuple[bool, str] | None:
    while True:
        text = read(f"call {name}? [y]es, [n]o, or no and why> ")
        if text is None:
            return None
        word, _, why = text.strip().partition(" ")
        if word.lower() in _YES:
            return True, why.strip()
        if word.lower().rstrip(",:") in _NO:
            return False, why.strip()


def _indented(arguments: str) -> str:
    try:
        text = json.dumps(json.loads(arguments), indent=2, ensure_ascii=False)
    except ValueError:
        text = arguments
    return "\n".join(f"    {line}" for line in text.splitlines())
