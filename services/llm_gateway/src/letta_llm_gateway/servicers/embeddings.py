"""EmbeddingService over the domain."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.llm.v1 import embedding_service_pb2 as pb
from letta.llm.v1 import embedding_service_pb2_grpc
from letta_common.actor import Actor, current_request
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
