"""The language model gateway. Messages are spliced into the request as the bytes that memory stores."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from functools import lru_cache
from typing import Any

import grpc.aio

from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta.llm.v1 import model_pb2, model_service_pb2, model_service_pb2_grpc
from letta_rpc.client import streaming

TIMEOUT = 600.0  # a long answer of a slow model; the gateway bounds each phase itself
_CATALOGUE_TIMEOUT = 15.0
_SERVICE = "/letta.llm.v1.GenerationService"
_PROMPT_TAG = b"\x0a"  # field 1 of GenerateRequest, length-delimited
_MESSAGE_TAG = b"\x1a"  # field 3 of Prompt, length-delimited


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

    async def generate(self, prompt: llm_pb2.Prompt, messages: Sequence[bytes]) -> llm_pb2.Generation:
        """Generate and answer once."""
        answer: llm_pb2.GenerateResponse = await self._generate(encode(prompt, messages), timeout=TIMEOUT)
        return answer.generation

    async def stream(
        self, prompt: llm_pb2.Prompt, messages: Sequence[bytes]
    ) -> AsyncIterator[llm_pb2.StreamGenerateResponse]:
        """Generate and answer as the model speaks."""
        async with streaming(self._stream(encode(prompt, messages), timeout=TIMEOUT)) as events:
            async for event in events:
                yield event

    async def model(self, handle: str) -> model_pb2.Model:
        """Return a model; an empty handle asks for the default."""
        request = model_service_pb2.GetModelRequest(handle=handle)
        return (await self._catalogue.GetModel(request, timeout=_CATALOGUE_TIMEOUT)).model

    async def embedding_model(self, handle: str) -> model_pb2.EmbeddingModel:
        """Return an embedding model; an empty handle asks for the default."""
        request = model_service_pb2.GetEmbeddingModelRequest(handle=handle)
        return (await self._catalogue.GetEmbeddingModel(request, timeout=_CATALOGUE_TIMEOUT)).model


def encode(prompt: llm_pb2.Prompt, messages: Sequence[bytes]) -> bytes:
    """Return a serialized GenerateRequest, its messages copied as they are. StreamGenerateRequest has the same form."""
    parts = [prompt.SerializeToString()]
    # Parsing a whole history only to write it again would cost each step more the longer it is.
    for message in messages:
        parts += (_head(len(message)), message)
    size = sum(map(len, parts))
    return b"".join((_PROMPT_TAG, _varint(size), *parts))


# Messages of a conversation keep their sizes from step to step, so nearly all heads are known.
@lru_cache(maxsize=16_384)
def _head(size: int) -> bytes:
    """Return what stands before a message of this size."""
    return _MESSAGE_TAG + _varint(size)


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)  # seven bits a byte, the lowest first; the eighth says that more follow
        number >>= 7
    out.append(number)
    return bytes(out)
