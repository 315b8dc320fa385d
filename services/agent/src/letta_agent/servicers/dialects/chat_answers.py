"""What agents do, in the words of chat completions."""

from __future__ import annotations

from collections.abc import Iterable

from letta.agent.v1 import chat_completion_service_pb2 as chat
from letta.agent.v1.chat_completion_service_pb2 import (
    ChatAnswer,
    ChatCalledFunction,
    ChatCompletionTokens,
    ChatDelta,
    ChatPromptTokens,
    ChatToolCall,
    ChatUsage,
)
from letta.agent.v1.run_pb2 import UsageStatistics
from letta.common.v1 import usage_pb2
from letta.common.v1.letta_message_pb2 import ApprovalRequestMessage, LettaMessage, ToolCall

_FINISHES = {
    usage_pb2.STOP_REASON_REQUIRES_APPROVAL: chat.CHAT_FINISH_REASON_TOOL_CALLS,
    usage_pb2.STOP_REASON_MAX_STEPS: chat.CHAT_FINISH_REASON_LENGTH,
    usage_pb2.STOP_REASON_MAX_TOKENS_EXCEEDED: chat.CHAT_FINISH_REASON_LENGTH,
}
_BETWEEN = "\n\n"
"""Stands between two messages of one turn."""


class ChatDeltas:
    """Makes of the messages of a run, whole or in parts, what each adds to the answer.

    Calls of the agent's own tools that need nobody are its own affair: a caller would answer them.
    """

    def __init__(self) -> None:
        self._ids: dict[str, str] = {}
        self._calls: dict[str, int] = {}

    def of(self, message: LettaMessage) -> ChatDelta | None:
        """Return what a message adds; None where that is nothing."""
        kind = message.WhichOneof("message")
        if kind == "assistant_message":
            said = message.assistant_message
            text = said.text or "".join(part.text.text for part in said.parts.parts)
            return ChatDelta(content=self._joined(message, "content", text)) if text else None
        if kind == "reasoning_message":
            text = message.reasoning_message.reasoning
            return ChatDelta(reasoning_content=self._joined(message, "reasoning", text)) if text else None
        if kind == "approval_request_message":
            calls = self._called(message.approval_request_message)
            return ChatDelta(tool_calls=calls) if calls else None
        return None

    def _joined(self, message: LettaMessage, kind: str, text: str) -> str:
        """Return a text, apart from that of another message before."""
        before, self._ids[kind] = self._ids.get(kind), message.id
        return text if before in (None, message.id) else _BETWEEN + text

    def _called(self, asked: ApprovalRequestMessage) -> list[ChatToolCall]:
        if asked.WhichOneof("calls") == "tool_call_delta":
            return [self._part(asked.tool_call_delta)]
        calls = asked.tool_calls.tool_calls or [asked.tool_call]
        # A whole call may follow its parts.
        return [self._part(call) for call in calls if call.tool_call_id not in self._calls]

    def _part(self, call: ToolCall) -> ChatToolCall:
        place = self._calls.setdefault(call.tool_call_id, len(self._calls))
        made = ChatToolCall(index=place, function=ChatCalledFunction(arguments=call.arguments))
        if call.HasField("name"):
            made.id, made.type, made.function.name = call.tool_call_id, "function", call.name
        return made


def answer_of(messages: Iterable[LettaMessage]) -> ChatAnswer:
    """Return all that the messages of a run say, as one answer."""
    deltas, answer = ChatDeltas(), ChatAnswer()
    for message in messages:
        delta = deltas.of(message)
        if delta is None:
            continue
        if delta.HasField("content"):
            answer.content += delta.content
        if delta.HasField("reasoning_content"):
            answer.reasoning_content += delta.reasoning_content
        answer.tool_calls.extend(delta.tool_calls)
    for call in answer.tool_calls:
        call.ClearField("index")  # the place is for parts
    return answer


def finish_of(reason: usage_pb2.StopReason.ValueType) -> chat.ChatFinishReason.ValueType:
    """Return why an answer ended."""
    return _FINISHES.get(reason, chat.CHAT_FINISH_REASON_STOP)


def usage_of(used: UsageStatistics) -> ChatUsage:
    """Return what a run used."""
    return ChatUsage(
        prompt_tokens=used.prompt_tokens,
        completion_tokens=used.completion_tokens,
        total_tokens=used.total_tokens,
        prompt_tokens_details=ChatPromptTokens(cached_tokens=used.cached_input_tokens),
        completion_tokens_details=ChatCompletionTokens(reasoning_tokens=used.reasoning_tokens),
    )
