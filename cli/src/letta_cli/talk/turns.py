"""One turn of a conversation over gRPC, shown as it happens."""

from __future__ import annotations

from collections.abc import Sequence

import grpc

from letta.agent.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from letta.common.v1 import letta_message_pb2, usage_pb2
from letta_cli.talk.views import View, fitting

TURN_SECONDS = 600.0
_NEEDLESS = frozenset({usage_pb2.STOP_REASON_END_TURN, usage_pb2.STOP_REASON_REQUIRES_APPROVAL})


class ShownTurn:
    """Shows the events of a run, and keeps what was said."""

    def __init__(self, view: View) -> None:
        self.said = ""
        self.tools: list[str] = []
        self.waits = False
        self._view = view

    def show(self, event: run_service_pb2.StreamMessageResponse) -> None:
        """Show one event."""
        kind = event.WhichOneof("event")
        if kind == "message":
            self._message(event.message)
        elif kind == "stop_reason":
            self._stopped(event.stop_reason.stop_reason)

    def _message(self, message: letta_message_pb2.LettaMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "assistant_message":
            self._view.words(message.assistant_message.text)
            self.said += message.assistant_message.text
        elif kind == "reasoning_message":
            self._view.aside(message.reasoning_message.reasoning, "dim italic")
        elif kind == "tool_call_message":
            self._call(message.tool_call_message.tool_call)
        elif kind == "tool_return_message":
            self._view.line(f"  = {short(message.tool_return_message.tool_return)}", "dim")

    def _call(self, call: letta_message_pb2.ToolCall) -> None:
        if call.name:
            self._view.rest()
            self.tools.append(call.name)
            self._view.aside(f"  > {call.name} ", "cyan")
        self._view.aside(call.arguments, "cyan")

    def _stopped(self, reason: usage_pb2.StopReason.ValueType) -> None:
        self.waits = reason == usage_pb2.STOP_REASON_REQUIRES_APPROVAL
        if reason not in _NEEDLESS:
            name = usage_pb2.StopReason.Name(reason).removeprefix("STOP_REASON_").lower()
            self._view.line(f"(stopped: {name})", "yellow")


def send(channel: grpc.Channel, agent_id: str, given: str | Sequence[run_pb2.InputMessage]) -> ShownTurn:
    """Send a text or messages, show the streamed answer, and return what was said. Ctrl-C ends the run as well."""
    text = {"input_text": given} if isinstance(given, str) else {"messages": given}
    run = run_pb2.RunRequest(**text, stream_tokens=True, include_pings=False)
    request = run_service_pb2.StreamMessageRequest(agent_id=agent_id, run=run)
    view = fitting()
    turn = ShownTurn(view)
    view.begin()
    try:
        events = run_service_pb2_grpc.RunServiceStub(channel).StreamMessage(request, timeout=TURN_SECONDS)
        try:
            for event in events:
                turn.show(event)
        finally:
            # Leaving the loop does not end the call, and the run would go on unseen.
            events.cancel()
    finally:
        view.end()
    return turn


def short(text: str, most: int = 160) -> str:
    """Return a text on one line, cut where it is long."""
    one_line = " / ".join(text.splitlines())
    return one_line if len(one_line) <= most else f"{one_line[: most - 3]}..."
