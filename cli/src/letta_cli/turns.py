"""One turn of a conversation over gRPC, shown as it happens."""

from __future__ import annotations

import grpc
from rich.text import Text

from letta.agent.v1 import run_pb2, run_service_pb2, run_service_pb2_grpc
from letta.common.v1 import letta_message_pb2
from letta_cli.console import out

TURN_SECONDS = 600.0


class Turn:
    """Prints the events of a run: words as they come, tool calls and what they returned on lines of their own."""

    def __init__(self) -> None:
        self.said = ""
        self.tools: list[str] = []
        self._mid_line = False
        self._mid_call = False

    def show(self, event: run_service_pb2.StreamMessageResponse) -> None:
        """Print one event."""
        kind = event.WhichOneof("event")
        if kind == "message":
            self._message(event.message)
        elif kind == "stop_reason":
            self._line()

    def _message(self, message: letta_message_pb2.LettaMessage) -> None:
        kind = message.WhichOneof("message")
        if kind == "assistant_message":
            self._words(message.assistant_message.text, "")
            self.said += message.assistant_message.text
        elif kind == "reasoning_message":
            self._words(message.reasoning_message.reasoning, "dim italic")
        elif kind == "tool_call_message":
            self._call(message.tool_call_message.tool_call)
        elif kind == "tool_return_message":
            self._line()
            out.print(Text(f"  = {_short(message.tool_return_message.tool_return)}", style="dim"))

    def _words(self, text: str, style: str) -> None:
        if self._mid_call:
            self._line()
        out.print(Text(text, style=style), end="")
        self._mid_line = True

    def _call(self, call: letta_message_pb2.ToolCall) -> None:
        if call.name:
            self._line()
            self.tools.append(call.name)
            out.print(Text(f"  > {call.name} ", style="cyan"), end="")
        out.print(Text(call.arguments, style="cyan"), end="")
        self._mid_line = self._mid_call = True

    def _line(self) -> None:
        if self._mid_line:
            out.print()
        self._mid_line = self._mid_call = False


def send(channel: grpc.Channel, agent_id: str, text: str) -> Turn:
    """Send a message, print the streamed answer, and return what was said."""
    stub = run_service_pb2_grpc.RunServiceStub(channel)
    run = run_pb2.RunRequest(input_text=text, stream_tokens=True, include_pings=False)
    turn = Turn()
    request = run_service_pb2.StreamMessageRequest(agent_id=agent_id, run=run)
    for event in stub.StreamMessage(request, timeout=TURN_SECONDS):
        turn.show(event)
    return turn


def _short(text: str) -> str:
    one_line = " / ".join(text.splitlines())
    return one_line if len(one_line) <= 160 else f"{one_line[:157]}..."
