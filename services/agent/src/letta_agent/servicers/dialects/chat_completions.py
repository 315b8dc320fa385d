"""ChatCompletionService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.agent.v1 import chat_completion_service_pb2 as pb
from letta.agent.v1 import chat_completion_service_pb2_grpc
from letta.agent.v1.run_pb2 import UsageStatistics
from letta_agent.domain.agents.conversations import Conversations
from letta_agent.domain.journal.feed import Event
from letta_agent.domain.runs.runs import Runs, SendCommand
from letta_agent.servicers.dialects.chat_answers import ChatDeltas, answer_of, finish_of, usage_of
from letta_agent.servicers.dialects.chat_prompts import run_request
from letta_agent.servicers.runs import stream
from letta_common.actor import current_actor, current_request
from letta_common.clock import Clock
from letta_common.errors import ServiceUnavailable
from letta_common.values.times import stamp_of

Call = grpc.aio.ServicerContext[Any, Any]
Chunk = pb.StreamChatCompletionResponse


class ChatCompletionServicer(chat_completion_service_pb2_grpc.ChatCompletionServiceServicer):
    """Serves agents as models."""

    def __init__(self, runs: Runs, conversations: Conversations, clock: Clock) -> None:
        self._runs = runs
        self._conversations = conversations
        self._clock = clock

    async def CreateChatCompletion(
        self, request: pb.CreateChatCompletionRequest, context: Call
    ) -> pb.CreateChatCompletionResponse:
        send = await self._send(request.prompt, request.request_id, streamed=False)
        done = await self._runs.send(current_actor(), send, current_request().signed_actor)
        choice = pb.ChatChoice(message=answer_of(done.messages), finish_reason=finish_of(done.stop_reason.stop_reason))
        completion = pb.ChatCompletion(
            id=_id(done.run_id),
            created=stamp_of(self._clock.now()),
            model=request.prompt.model,
            choices=[choice],
            usage=usage_of(done.usage),
        )
        return pb.CreateChatCompletionResponse(completion=completion)

    async def StreamChatCompletion(
        self, request: pb.StreamChatCompletionRequest, context: Call
    ) -> AsyncIterator[pb.StreamChatCompletionResponse]:
        prompt = request.prompt
        send = await self._send(prompt, request.request_id, streamed=True)
        admitted = await self._runs.admit(current_actor(), send, current_request().signed_actor)
        begun = Chunk(id=_id(admitted.run_id), created=stamp_of(self._clock.now()), model=prompt.model)
        async with aclosing(stream(self._runs, self._clock, send.request, admitted)) as events:  # type: ignore[type-var]
            async for chunk in _chunks(events, begun, usage=prompt.stream_options.include_usage):
                yield chunk

    async def _send(self, prompt: pb.ChatPrompt, request_id: str, *, streamed: bool) -> SendCommand:
        agent_id, conversation_id = await self._conversations.thread(current_actor(), prompt.model, "")
        return SendCommand(
            agent_id,
            conversation_id,
            run_request(prompt, streamed=streamed),
            request_id,
            run_type="chat_completion_streaming" if streamed else "chat_completion",
            record=streamed,
        )


async def _chunks(events: AsyncIterator[Event], begun: Chunk, *, usage: bool) -> AsyncIterator[Chunk]:
    """Yield the parts of an answer as the run's events come.

    Nothing is sent before something happened, so that an early failure is a status; and the end comes last, since the
    events of a run that fails say why it stopped before they fail.
    """
    deltas, position = ChatDeltas(), 0
    head = pb.ChatDelta(role="assistant")
    finish = pb.CHAT_FINISH_REASON_UNSPECIFIED
    used: UsageStatistics | None = None
    async for event in events:
        kind = event.WhichOneof("event")
        if kind == "run_resumed" and event.run_resumed.restart_seq <= position:
            # What was said cannot be taken back, and the replica that took the run over says it anew.
            raise ServiceUnavailable("the answer is being made anew by another replica: send the request again")
        position = max(position, event.seq_id)
        if kind == "message" and (delta := deltas.of(event.message)):
            delta.MergeFrom(head)
            head.Clear()
            yield _chunk(begun, delta)
        elif kind == "stop_reason":
            finish = finish_of(event.stop_reason.stop_reason)
        elif kind == "usage_statistics":
            used = event.usage_statistics
    yield _chunk(begun, head, finish)
    if usage:
        last = Chunk(usage=usage_of(used or UsageStatistics()))
        last.MergeFrom(begun)
        yield last


def _chunk(
    begun: Chunk, delta: pb.ChatDelta, finish: pb.ChatFinishReason.ValueType = pb.CHAT_FINISH_REASON_UNSPECIFIED
) -> Chunk:
    made = Chunk(choices=[pb.ChatChunkChoice(delta=delta, finish_reason=finish)])
    made.MergeFrom(begun)
    return made


def _id(run_id: str) -> str:
    return "chatcmpl-" + run_id.removeprefix("run-")
