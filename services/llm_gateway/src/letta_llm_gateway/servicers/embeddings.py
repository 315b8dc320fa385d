"""EmbeddingService over the domain."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence
from typing import Any

import grpc.aio

from letta.llm.v1 import embedding_service_pb2 as pb
from letta.llm.v1 import embedding_service_pb2_grpc
from letta_common.actor import Actor, current_actor, current_request
from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.catalogue.tokens import of_bytes
from letta_llm_gateway.domain.embedding.embeddings import Embeddings

_Context = grpc.aio.ServicerContext[Any, Any]


class EmbeddingServicer(embedding_service_pb2_grpc.EmbeddingServiceServicer):
    def __init__(self, embeddings: Embeddings) -> None:
        self._embeddings = embeddings

    async def Embed(self, request: pb.EmbedRequest, context: _Context) -> pb.EmbedResponse:
        actor = current_request().actor
        if actor is None and request.organization_id:
            actor = Actor(request.organization_id, "")
        made = await self._embeddings.embed(actor, request.model, request.texts, background=request.background)
        return pb.EmbedResponse(embeddings=[pb.Embedding(values=vector) for vector in made.vectors], model=made.model)

    async def CreateEmbeddings(
        self, request: pb.CreateEmbeddingsRequest, context: _Context
    ) -> pb.CreateEmbeddingsResponse:
        texts = request.texts.texts if request.HasField("texts") else [request.text]
        made = await self._embeddings.embed(current_actor(), request.model, texts, within_budget=True)
        dimensions = len(made.vectors[0])
        if request.HasField("dimensions") and request.dimensions != dimensions:
            raise InvalidArgument(f"{made.model} has {dimensions} dimensions", field="dimensions")
        tokens = sum(of_bytes(len(text.encode())) for text in texts)
        return pb.CreateEmbeddingsResponse(
            data=[_written(at, vector, request.encoding_format) for at, vector in enumerate(made.vectors)],
            model=made.model,
            usage=pb.EmbeddingUsage(prompt_tokens=tokens, total_tokens=tokens),
        )


def _written(index: int, vector: Sequence[float], form: pb.EmbeddingFormat.ValueType) -> pb.EmbeddedText:
    if form == pb.EMBEDDING_FORMAT_BASE64:
        packed = base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
        return pb.EmbeddedText(index=index, base64=packed)
    return pb.EmbeddedText(index=index, numbers=pb.EmbeddedVector(values=vector))
