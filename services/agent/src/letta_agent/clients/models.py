"""The language model gateway. Messages are spliced into the request as the bytes that memory stores."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import lru_cache
from typing import Any

import grpc.aio

from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta.llm.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc
from letta_agent.domain.peers.models import EmbeddingInfo, GenerationDelta, ModelAnswer, ModelInfo, Prompt
from letta_rpc.client import streaming

TIMEOUT = 600.0
_CATALOGUE_TIMEOUT = 15.0
_SERVICE = "/letta.llm.v1.GenerationService"
_PROMPT_TAG = b"\x0a"  # field 1 of GenerateRequest, length-delimited
_MESSAGE_TAG = b"\x1a"  # field 3 of Prompt, length-delimited
_CATEGORIES = {model_pb2.PROVIDER_CATEGORY_BYOK: "byok"}


class ModelClient:
    """The gateway over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._catalogue = model_service_pb2_grpc.ModelServiceStub(channel)
        self._generate: Any = channel.unary_unary(
            f"{_SERVICE}/Generate",
            request_serializer=bytes,
            response_deserializer=llm_pb2.GenerateResponse.FromString,
        )
        self._stream: Any = channel.unary_stream(
            f"{_SERVICE}/StreamGenerate",
            request_serializer=bytes,
            response_deserializer=llm_pb2.StreamGenerateResponse.FromString,
        )

    async def generate(self, prompt: Prompt) -> ModelAnswer:
        """Generate and answer once."""
        answer = await self._generate(encode(prompt), timeout=TIMEOUT)
        return _generation(answer.generation)

    async def stream(self, prompt: Prompt) -> AsyncIterator[GenerationDelta | ModelAnswer]:
        """Generate and answer as the model speaks."""
        async with streaming(self._stream(encode(prompt), timeout=TIMEOUT)) as events:
            async for event in events:
                kind = event.WhichOneof("event")
                if kind == "part_started":
                    yield GenerationDelta(event.part_started.index, started=event.part_started.part)
                elif kind == "part_delta":
                    yield GenerationDelta(event.part_delta.index, text=event.part_delta.delta)
                elif kind == "finished":
                    yield _generation(event.finished.generation)

    async def model(self, handle: str) -> ModelInfo:
        """Return a model; an empty handle asks for the default."""
        request = model_service_pb2.GetModelRequest(handle=handle)
        found = (await self._catalogue.GetModel(request, timeout=_CATALOGUE_TIMEOUT)).model
        return ModelInfo(
            handle=found.handle,
            name=found.model or found.name,
            provider_type=found.provider_type,
            provider_name=found.provider_name,
            provider_category=_CATEGORIES.get(found.provider_category, "base"),
            endpoint_type=found.model_endpoint_type,
            endpoint=found.model_endpoint,
            display_name=found.display_name,
            context_window=found.context_window,
            temperature=found.temperature,
            max_tokens=found.max_tokens,
            enable_reasoner=found.enable_reasoner,
        )

    async def embedding_model(self, handle: str) -> EmbeddingInfo:
        """Return an embedding model; an empty handle asks for the default."""
        request = model_service_pb2.GetEmbeddingModelRequest(handle=handle)
        found = (await self._catalogue.GetEmbeddingModel(request, timeout=_CATALOGUE_TIMEOUT)).model
        return EmbeddingInfo(
            handle=found.handle,
            name=found.embedding_model or found.name,
            endpoint_type=found.embedding_endpoint_type,
            endpoint=found.embedding_endpoint,
            dimension=found.embedding_dim,
            chunk_size=found.embedding_chunk_size,
            batch_size=found.batch_size,
        )


def encode(prompt: Prompt) -> bytes:
    """Return a serialized GenerateRequest, its messages copied as they are. StreamGenerateRequest has the same form."""
    head = llm_pb2.Prompt(model=prompt.model, system=prompt.system).SerializeToString()
    rest = llm_pb2.Prompt(
        tools=[
            llm_pb2.ToolDefinition(
                name=tool.name, description=tool.description, parameters=tool.parameters, strict=tool.strict
            )
            for tool in prompt.tools
        ],
        tool_choice=_choice(prompt),
        settings=prompt.settings,
        attribution=llm_pb2.Attribution(
            agent_id=prompt.agent_id, run_id=prompt.run_id, step_id=prompt.step_id, purpose=prompt.purpose
        ),
    ).SerializeToString()
    parts = [head]
    for message in prompt.messages:
        parts += (_MESSAGE_TAG, _varint(len(message)), message)
    parts.append(rest)
    size = sum(map(len, parts))
    return b"".join((_PROMPT_TAG, _varint(size), *parts))


def _choice(prompt: Prompt) -> llm_pb2.ToolChoice:
    if prompt.forced_tool:
        return llm_pb2.ToolChoice(mode=llm_pb2.TOOL_CHOICE_MODE_TOOL, name=prompt.forced_tool)
    mode = llm_pb2.TOOL_CHOICE_MODE_REQUIRED if prompt.required else llm_pb2.TOOL_CHOICE_MODE_AUTO
    return llm_pb2.ToolChoice(mode=mode)


def _generation(found: llm_pb2.Generation) -> ModelAnswer:
    return ModelAnswer(
        parts=tuple(found.parts),
        usage=found.usage,
        model=found.model,
        provider_type=found.provider_type,
        context_window=found.context_window,
        cut=found.finish_reason == llm_pb2.FINISH_REASON_LENGTH,
        warnings=tuple(found.warnings),
    )


@lru_cache(maxsize=4096)
def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
