"""The llm_gateway service as memory's embedder."""

from __future__ import annotations

from collections.abc import Sequence

import grpc.aio

from letta.llm.v1 import embedding_service_pb2 as pb
from letta.llm.v1 import embedding_service_pb2_grpc
from letta_common.errors import ServiceUnavailable

_TIMEOUT = 5.0  # a write waits this long; without an answer its text is embedded in the background
_PATIENT_TIMEOUT = 120.0  # nobody waits in the background, and a slow embedder is better than none


class EmbeddingClient:
    """Embeds through llm_gateway; in the background, when nobody waits for the vectors."""

    def __init__(self, channel: grpc.aio.Channel, *, default_model: str = "", background: bool = False) -> None:
        self._default_model = default_model
        self._background = background
        self._stub = embedding_service_pb2_grpc.EmbeddingServiceStub(channel)

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> pb.EmbedResponse:
        """Embed texts. Raises ModelNotFound, LLMUnavailable, ServiceUnavailable."""
        request = pb.EmbedRequest(
            model=model or self._default_model,
            texts=texts,
            background=self._background,
            organization_id=organization_id,
        )
        answer: pb.EmbedResponse = await self._stub.Embed(
            request, timeout=_PATIENT_TIMEOUT if self._background else _TIMEOUT
        )
        return answer


class NoEmbedder:
    """Stands where no embedder is configured: search goes by words."""

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> pb.EmbedResponse:  # noqa: ARG002
        """Refuse. Raises ServiceUnavailable."""
        raise ServiceUnavailable("no embedder is configured; texts are found by their words")
