"""An agent's models. What the catalogue says of them is kept with the agent, so that no answer asks it again."""

from __future__ import annotations

from letta.agent.v1 import agent_pb2
from letta.compat.v1.agent_pb2 import EmbeddingConfig, LLMConfig
from letta.llm.v1 import model_pb2

Agent = agent_pb2.Agent
_CATEGORIES = {model_pb2.PROVIDER_CATEGORY_BYOK: "byok"}


def set_model(state: Agent, info: model_pb2.Model, *, window: int = 0) -> None:
    """Give an agent a model."""
    state.model = info.handle
    # A larger window than the model's would only be refused by its vendor.
    state.context_window_limit = min(window, info.context_window) if window else info.context_window
    state.compat.llm_config.CopyFrom(_described(info))
    if not state.model_settings.provider_type:
        state.model_settings.provider_type = info.provider_type


def _described(info: model_pb2.Model) -> LLMConfig:
    return LLMConfig(
        model=info.model or info.name,
        display_name=info.display_name or None,
        model_endpoint_type=info.model_endpoint_type or info.provider_type,
        model_endpoint=info.model_endpoint or None,
        provider_name=info.provider_name or info.provider_type,
        provider_category=_CATEGORIES.get(info.provider_category, "base"),
        handle=info.handle,
        temperature=info.temperature,
        max_tokens=info.max_tokens or None,
        enable_reasoner=info.enable_reasoner,
    )


def set_embedding(state: Agent, info: model_pb2.EmbeddingModel) -> None:
    """Give an agent an embedding model."""
    state.embedding = info.handle
    config = EmbeddingConfig(
        embedding_endpoint_type=info.embedding_endpoint_type,
        embedding_endpoint=info.embedding_endpoint or None,
        embedding_model=info.embedding_model or info.name,
        embedding_dim=info.embedding_dim,
        embedding_chunk_size=info.embedding_chunk_size,
        handle=info.handle,
        batch_size=info.batch_size,
    )
    state.compat.embedding_config.CopyFrom(config)


def clear_embedding(state: Agent) -> None:
    """Take the embedding model from an agent."""
    state.ClearField("embedding")
    state.compat.ClearField("embedding_config")
