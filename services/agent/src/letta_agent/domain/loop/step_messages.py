"""The messages of a step: what the model made, what the tools returned, and what a client sees of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from letta.common.v1 import letta_message_pb2, message_pb2
from letta.llm.v1.generation_service_pb2 import Generation, StreamGenerateResponse
from letta_agent.domain.journal.records import StepSummary, StoredStep
from letta_agent.domain.peers.memory import LettaMessage, Message
from letta_agent.domain.peers.models import ContentPart
from letta_agent.domain.toolcalls.executor import ToolCallContent, ToolReturnContent
from letta_common.values.ids import new_id
from letta_messages.rendering import part_otid, reasoning_source

_ROLE = message_pb2.MessageRole
SUCCESS, FAILED, CANCELLED = 2, 3, 4
"""Values of StepStatus."""


def calls_of(message: Message) -> list[ToolCallContent]:
    """Return the tool calls of a message."""
    return [part.tool_call for part in message.parts if part.HasField("tool_call")]


def says(message: Message) -> bool:
    """Say whether a message has text."""
    return any(part.HasField("text") and part.text.text for part in message.parts)


def model_message(generation: Generation, blank: Message, *, several: bool) -> Message:
    """Fill a blank message with what a model made.

    Unless several calls are allowed, only the first one is kept. Arguments stay as the model wrote them: what is no
    JSON object is told to the model as the result of its call.
    """
    message = blank
    message.model = generation.model
    called = False
    for part in generation.parts:
        kind = part.WhichOneof("part")
        # Some vendors refuse a history with empty texts.
        if kind == "text" and not part.text.text:
            continue
        if kind != "tool_call":
            message.parts.append(part)
        elif several or not called:
            called = True
            message.parts.append(_tidy(part))
    return message


def blank_message(run_id: str, step_id: str, now: datetime) -> Message:
    """Return the message of a step before the model has said anything."""
    message = Message(id=new_id("message"), role=_ROLE.MESSAGE_ROLE_ASSISTANT, run_id=run_id, step_id=step_id)
    message.created_at.FromDatetime(now)
    return message


def _tidy(part: ContentPart) -> ContentPart:
    tidy = ContentPart()
    tidy.CopyFrom(part)
    tidy.tool_call.input = tidy.tool_call.input or "{}"
    # Some vendors give calls no id, without which a return cannot be matched to its call.
    if not tidy.tool_call.id:
        tidy.tool_call.id = new_id("call")
    return tidy


def return_message(step: StoredStep, returns: Sequence[ToolReturnContent], run_id: str, now: datetime) -> Message:
    """Return the message with what the tools of a step returned."""
    message = Message(
        # Chosen with the step, so that a replica that executes the calls again makes the same message.
        id=step.return_id,
        role=_ROLE.MESSAGE_ROLE_TOOL,
        run_id=run_id,
        step_id=step.step_id,
        name=returns[0].name,
        parts=[ContentPart(tool_return=returned) for returned in returns],
    )
    message.created_at.FromDatetime(now)
    return message


def notice_message(text: str, run_id: str, step_id: str, now: datetime) -> Message:
    """Return a message of the system to the model, in the role of the user."""
    message = Message(
        id=new_id("message"),
        role=_ROLE.MESSAGE_ROLE_USER,
        run_id=run_id,
        step_id=step_id,
        is_automated=True,
        parts=[ContentPart(text=message_pb2.TextContent(text=text))],
    )
    message.created_at.FromDatetime(now)
    return message


def summary_of(step: StoredStep, index: int, *, stop: int, step_ns: int, tool_ns: int) -> StepSummary:
    """Return how a step went."""
    return StepSummary(
        step_index=index,
        id=step.step_id,
        model=step.model,
        provider_type=step.provider_type,
        context_window=step.context_window,
        usage=step.usage,
        stop_reason=stop,
        status=SUCCESS,
        started_ns=step.started_ns,
        step_ns=step_ns,
        llm_started_ns=step.llm_started_ns,
        llm_ns=step.llm_ns,
        tool_ns=tool_ns,
        tools_used=tuple(dict.fromkeys(call.name for call in calls_of(step.message))),
        warnings=tuple(step.warnings),
    )


class Deltas:
    """Turns the fragments of an answer into what a listener sees: pieces with the ids that the whole will have."""

    def __init__(self, message_id: str, step_id: str, now: datetime, *, gated: Iterable[str] = ()) -> None:
        self._message_id = message_id
        self._step_id = step_id
        self._now = now.replace(microsecond=0)
        self._gated = frozenset(gated)
        self._parts: dict[int, tuple[ContentPart, int]] = {}
        self._shown = 0
        self._calls_at: int | None = None

    def of(self, event: StreamGenerateResponse) -> list[LettaMessage]:
        """Return what a listener sees of a fragment."""
        kind = event.WhichOneof("event")
        if kind == "part_started":
            return self._begin(event.part_started.index, event.part_started.part)
        if kind != "part_delta" or not event.part_delta.delta or event.part_delta.index not in self._parts:
            return []
        part, place = self._parts[event.part_delta.index]
        body = self._fragment(part, event.part_delta.delta)
        return [] if body is None else [self._fill(body, place)]

    def _begin(self, index: int, part: ContentPart) -> list[LettaMessage]:
        if not part.HasField("tool_call"):
            self._parts[index] = (part, self._shown)
            self._shown += 1
            text = part.text.text or part.reasoning.reasoning
            body = self._fragment(part, text) if text else None
            return [self._fill(body, self._shown - 1)] if body is not None else []
        # All calls of a step are one message to clients, so they share one place.
        if self._calls_at is None:
            self._calls_at = self._shown
            self._shown += 1
        self._parts[index] = (part, self._calls_at)
        call = letta_message_pb2.ToolCall(name=part.tool_call.name, tool_call_id=part.tool_call.id)
        if part.tool_call.input:
            call.arguments = part.tool_call.input
        return [self._fill(self._call(part.tool_call.name, call), self._calls_at)]

    def _fragment(self, part: ContentPart, text: str) -> LettaMessage | None:
        kind = part.WhichOneof("part")
        if kind == "text":
            return LettaMessage(assistant_message=letta_message_pb2.AssistantMessage(text=text))
        if kind == "reasoning":
            thought = letta_message_pb2.ReasoningMessage(source=reasoning_source(part.reasoning), reasoning=text)
            return LettaMessage(reasoning_message=thought)
        if kind == "tool_call":
            call = letta_message_pb2.ToolCall(arguments=text, tool_call_id=part.tool_call.id)
            return self._call(part.tool_call.name, call)
        return None

    def _call(self, name: str, call: letta_message_pb2.ToolCall) -> LettaMessage:
        if name in self._gated:
            body = letta_message_pb2.ApprovalRequestMessage(tool_call=call, tool_call_delta=call)
            return LettaMessage(approval_request_message=body)
        return LettaMessage(tool_call_message=letta_message_pb2.ToolCallMessage(tool_call=call, tool_call_delta=call))

    def _fill(self, body: LettaMessage, place: int) -> LettaMessage:
        body.id = self._message_id
        body.step_id = self._step_id
        body.otid = part_otid(self._message_id, place)
        body.date.FromDatetime(self._now)
        return body
