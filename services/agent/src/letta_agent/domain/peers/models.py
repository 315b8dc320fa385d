"""What the rules need of the models of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from letta.common.v1 import message_pb2
from letta.llm.v1 import generation_service_pb2 as pb
from letta.llm.v1 import model_pb2

ContentPart = message_pb2.ContentPart


class ModelPeer(Protocol):
    """The language model gateway.

    A prompt comes without its messages. They are serialized `Message`s beside it, handed on unparsed.
    """

    async def generate(self, prompt: pb.Prompt, messages: Sequence[bytes]) -> pb.Generation:
        """Generate and answer once. Raises the LLM errors and ContextWindowExceeded."""
        ...

    def stream(self, prompt: pb.Prompt, messages: Sequence[bytes]) -> AsyncIterator[pb.StreamGenerateResponse]:
        """Generate and answer as the model speaks; the last event that counts has the whole."""
        ...

    async def model(self, handle: str) -> model_pb2.Model:
        """Return a model; an empty handle asks for the default. Raises ModelNotFound."""
        ...

    async def embedding_model(self, handle: str) -> model_pb2.EmbeddingModel:
        """Return an embedding model; an empty handle asks for the default. Raises ModelNotFound."""
        ...
