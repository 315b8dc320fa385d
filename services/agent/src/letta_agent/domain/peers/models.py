"""What the rules need of the models of the gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Protocol

from letta.common.v1 import message_pb2, model_settings_pb2, usage_pb2

TokenUsage = usage_pb2.TokenUsage


ModelSettings = model_settings_pb2.ModelSettings


ContentPart = message_pb2.ContentPart


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. Messages are serialized `Message`s, handed on unparsed."""

    model: str
    system: str
    messages: tuple[bytes, ...]
    tools: tuple[ToolSchema, ...] = ()
    settings: ModelSettings = field(default_factory=ModelSettings)
    required: bool = False
    forced_tool: str = ""
    agent_id: str = ""
    run_id: str = ""
    step_id: str = ""
    purpose: str = "step"


@dataclass(frozen=True, slots=True)
class ToolSchema:
    """A tool as a model sees it."""

    name: str
    description: str
    parameters: str
    strict: bool = False


@dataclass(frozen=True, slots=True)
class ModelAnswer:
    """What a model made of a prompt."""

    parts: tuple[ContentPart, ...]
    usage: TokenUsage = field(default_factory=TokenUsage)
    model: str = ""
    provider_type: str = ""
    context_window: int = 0
    cut: bool = False
    warnings: tuple[str, ...] = ()
    """What could not be asked as the prompt says."""


@dataclass(frozen=True, slots=True)
class GenerationDelta:
    """A fragment of an answer: of the part at `index`, whose beginning brings the part as far as it is known."""

    index: int
    started: ContentPart | None = None
    text: str = ""


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A model as the gateway describes it."""

    handle: str
    name: str
    provider_type: str
    provider_name: str = ""
    provider_category: str = "base"
    endpoint_type: str = ""
    endpoint: str = ""
    display_name: str = ""
    context_window: int = 128_000
    temperature: float = 1.0
    max_tokens: int = 0
    enable_reasoner: bool = False


@dataclass(frozen=True, slots=True)
class EmbeddingInfo:
    """An embedding model as the gateway describes it."""

    handle: str
    name: str
    endpoint_type: str
    endpoint: str = ""
    dimension: int = 0
    chunk_size: int = 300
    batch_size: int = 32


class ModelPeer(Protocol):
    """The language model gateway."""

    async def generate(self, prompt: Prompt) -> ModelAnswer:
        """Generate and answer once. Raises the LLM errors and ContextWindowExceeded."""
        ...

    def stream(self, prompt: Prompt) -> AsyncIterator[GenerationDelta | ModelAnswer]:
        """Generate and answer as the model speaks; the last item is the whole."""
        ...

    async def model(self, handle: str) -> ModelInfo:
        """Return a model; an empty handle asks for the default. Raises ModelNotFound."""
        ...

    async def embedding_model(self, handle: str) -> EmbeddingInfo:
        """Return an embedding model; an empty handle asks for the default. Raises ModelNotFound."""
        ...
