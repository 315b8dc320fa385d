"""GenerationService over the domain."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.common.v1 import message_pb2, usage_pb2
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1 import generation_service_pb2_grpc
from letta_common.actor import current_actor
from letta_llm_gateway.domain.accounting.usage import Attribution
from letta_llm_gateway.domain.answers import (
    Delta,
    Ended,
    Finished,
    Generation,
    Heartbeat,
    Part,
    Reasoning,
    RedactedReasoning,
    Spoken,
    Started,
    Text,
    ToolCall,
    Usage,
)
from letta_llm_gateway.domain.generation.facts import facts_of, tokens_of
from letta_llm_gateway.domain.generation.fragments import Fragments, read
from letta_llm_gateway.domain.generation.generations import Generations, PromptFacts
from letta_llm_gateway.servicers.purposes import purpose_word
from letta_llm_gateway.servicers.traces import described

_Context = grpc.aio.ServicerContext[Any, Any]


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    def __init__(self, generations: Generations, fragments: Fragments) -> None:
        self._generations, self._fragments = generations, fragments

    async def Generate(self, request: pb.GenerateRequest, context: _Context) -> pb.GenerateResponse:
        made = await self._generations.generate(current_actor(), self._ask(request.prompt))
        return pb.GenerateResponse(generation=_generation(made))

    async def StreamGenerate(
        self, request: pb.StreamGenerateRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamGenerateResponse, None]:
        stream = self._generations.stream(current_actor(), self._ask(request.prompt))
        seq_id = 0
        async with aclosing(stream) as events:
            async for event in events:
                seq_id += 1
                yield _event(seq_id, event)

    async def CountTokens(self, request: pb.CountTokensRequest, context: _Context) -> pb.CountTokensResponse:
        tokens, source = await self._generations.count(current_actor(), self._ask(request.prompt))
        return pb.CountTokensResponse(prompt_tokens=tokens, source=pb.TokenCountSource.ValueType(source.value))

    def _ask(self, prompt: pb.Prompt) -> PromptFacts:
        booked = prompt.attribution
        facts = facts_of(prompt.messages, self._fragments)
        return PromptFacts(
            prompt,
            prompt.model,
            tokens_of(prompt, facts),
            lambda: _texts(prompt),
            images=bool(facts.images),
            tools=bool(prompt.tools),
            attribution=Attribution(booked.agent_id, booked.run_id, booked.step_id, purpose_word(booked.purpose)),
            describe=lambda: described(prompt),
        )


def _texts(prompt: pb.Prompt) -> list[str]:
    """Gather what the vendor would count, a text for each thing that stands alone."""
    texts = [prompt.system] if prompt.system else []
    texts += [f"{tool.name}\n{tool.description}\n{tool.parameters}" for tool in prompt.tools]
    for message in map(read, prompt.messages):
        for part in message.parts:
            match part.WhichOneof("part"):
                case "text":
                    texts.append(part.text.text)
                case "tool_call":
                    texts.append(f"{part.tool_call.name}\n{part.tool_call.input}")
                case "tool_return":
                    texts.append(part.tool_return.content)
                case "reasoning":
                    texts.append(part.reasoning.reasoning)
    return texts


def _event(seq_id: int, event: Spoken) -> pb.StreamGenerateResponse:
    match event:
        case Delta(index, text):
            return pb.StreamGenerateResponse(seq_id=seq_id, part_delta=pb.PartDelta(index=index, delta=text))
        case Started(index, part):
            return pb.StreamGenerateResponse(seq_id=seq_id, part_started=pb.PartStarted(index=index, part=_part(part)))
        case Ended(index):
            return pb.StreamGenerateResponse(seq_id=seq_id, part_ended=pb.PartEnded(index=index))
        case Heartbeat():
            return pb.StreamGenerateResponse(seq_id=seq_id, heartbeat=pb.Heartbeat())
        case Finished(generation):
            return pb.StreamGenerateResponse(seq_id=seq_id, finished=pb.Finished(generation=_generation(generation)))


def _generation(made: Generation) -> pb.Generation:
    return pb.Generation(
        parts=[_part(part) for part in made.answer.parts],
        finish_reason=pb.FinishReason.ValueType(made.answer.finish_reason.value),
        usage=_usage(made.usage),
        usage_source=pb.TokenCountSource.ValueType(made.usage_source.value),
        model=made.model,
        provider_type=made.provider_type,
        response_id=made.answer.response_id,
        context_window=made.context_window,
        warnings=made.answer.warnings,
    )


def _usage(usage: Usage) -> usage_pb2.TokenUsage:
    return usage_pb2.TokenUsage(
        prompt_tokens=usage.prompt,
        completion_tokens=usage.completion,
        cached_input_tokens=usage.cached_input,
        cache_write_tokens=usage.cache_write,
        reasoning_tokens=usage.reasoning,
    )


def _part(part: Part) -> message_pb2.ContentPart:
    match part:
        case Text(text, signature):
            return message_pb2.ContentPart(text=message_pb2.TextContent(text=text, signature=signature))
        case ToolCall(call_id, name, arguments, signature):
            return message_pb2.ContentPart(
                tool_call=message_pb2.ToolCallContent(id=call_id, name=name, input=arguments, signature=signature)
            )
        case Reasoning(reasoning, signature):
            return message_pb2.ContentPart(
                reasoning=message_pb2.ReasoningContent(is_native=True, reasoning=reasoning, signature=signature)
            )
        case RedactedReasoning(data):
            return message_pb2.ContentPart(redacted_reasoning=message_pb2.RedactedReasoningContent(data=data))
