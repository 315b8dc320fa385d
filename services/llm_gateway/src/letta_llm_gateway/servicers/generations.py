"""GenerationService over the domain."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1 import generation_service_pb2_grpc
from letta_common.actor import current_actor
from letta_llm_gateway.domain.answers import Spoken
from letta_llm_gateway.domain.generation.facts import exact_tokens_of, facts_of, tokens_of
from letta_llm_gateway.domain.generation.fragments import Fragments
from letta_llm_gateway.domain.generation.generations import Generations, PromptFacts
from letta_llm_gateway.servicers.traces import described

_Context = grpc.aio.ServicerContext[Any, Any]


class GenerationServicer(generation_service_pb2_grpc.GenerationServiceServicer):
    def __init__(self, generations: Generations, fragments: Fragments) -> None:
        self._generations, self._fragments = generations, fragments

    async def Generate(self, request: pb.GenerateRequest, context: _Context) -> pb.GenerateResponse:
        made = await self._generations.generate(current_actor(), await self._ask(request.prompt))
        return pb.GenerateResponse(generation=made)

    async def StreamGenerate(
        self, request: pb.StreamGenerateRequest, context: _Context
    ) -> AsyncGenerator[pb.StreamGenerateResponse, None]:
        stream = self._generations.stream(current_actor(), await self._ask(request.prompt))
        seq_id = 0
        async with aclosing(stream) as events:
            async for event in events:
                seq_id += 1
                yield _event(seq_id, event)

    async def CountTokens(self, request: pb.CountTokensRequest, context: _Context) -> pb.CountTokensResponse:
        tokens, source = await self._generations.count(current_actor(), await self._ask(request.prompt))
        return pb.CountTokensResponse(prompt_tokens=tokens, source=source)

    async def _ask(self, prompt: pb.Prompt) -> PromptFacts:
        facts = await facts_of(prompt.messages, self._fragments)
        return PromptFacts(
            prompt,
            prompt.model,
            tokens_of(prompt, facts),
            lambda tokenizer: exact_tokens_of(prompt, self._fragments, tokenizer),
            images=bool(facts.images),
            tools=bool(prompt.tools),
            describe=lambda: described(prompt),
        )


def _event(seq_id: int, event: Spoken) -> pb.StreamGenerateResponse:
    match event:
        case pb.PartDelta():
            return pb.StreamGenerateResponse(seq_id=seq_id, part_delta=event)
        case pb.PartStarted():
            return pb.StreamGenerateResponse(seq_id=seq_id, part_started=event)
        case pb.PartEnded():
            return pb.StreamGenerateResponse(seq_id=seq_id, part_ended=event)
        case pb.Heartbeat():
            return pb.StreamGenerateResponse(seq_id=seq_id, heartbeat=event)
        case pb.Finished():
            return pb.StreamGenerateResponse(seq_id=seq_id, finished=event)
