"""An agent's model: the handle and settings that count, and their mirror in the words of V1."""

from __future__ import annotations

from letta.agent.v1 import agent_pb2, model_config_pb2
from letta.common.v1 import model_settings_pb2
from letta.llm.v1 import model_pb2

AgentState = agent_pb2.AgentState
LLMConfig = model_config_pb2.LLMConfig
ModelSettings = model_settings_pb2.ModelSettings


_CATEGORIES = {model_pb2.PROVIDER_CATEGORY_BYOK: "byok"}


def set_model(state: AgentState, info: model_pb2.Model, *, window: int = 0) -> None:
    """Give an agent a model."""
    state.model = info.handle
    config = LLMConfig(
        model=info.model or info.name,
        model_endpoint_type=info.model_endpoint_type or info.provider_type,
        provider_name=info.provider_name or info.provider_type,
        provider_category=_CATEGORIES.get(info.provider_category, "base"),
        context_window=min(window, info.context_window) if window else info.context_window,
        handle=info.handle,
        temperature=info.temperature,
        enable_reasoner=info.enable_reasoner,
        parallel_tool_calls=state.llm_config.parallel_tool_calls,
    )
    if info.display_name:
        config.display_name = info.display_name
    if info.model_endpoint:
        config.model_endpoint = info.model_endpoint
    if info.max_tokens:
        config.max_tokens = info.max_tokens
    state.llm_config.CopyFrom(config)
    if not state.model_settings.provider_type:
        state.model_settings.provider_type = info.provider_type
    mirror_settings(state)


def mirror_settings(state: AgentState) -> None:
    """Bring the words of V1 up to what the settings say."""
    settings, config = state.model_settings, state.llm_config
    for name, mirror in (
        ("temperature", "temperature"),
        ("max_output_tokens", "max_tokens"),
        ("verbosity", "verbosity"),
    ):
        if settings.HasField(name):  # type: ignore[arg-type]
            setattr(config, mirror, getattr(settings, name))
    if settings.HasField("parallel_tool_calls"):
        config.parallel_tool_calls = settings.parallel_tool_calls
    if settings.HasField("reasoning") and settings.reasoning.reasoning_effort:
        config.reasoning_effort = settings.reasoning.reasoning_effort
    if settings.HasField("effort"):
        config.effort = settings.effort
    if settings.thinking.type == "enabled":
        config.enable_reasoner = True
        config.max_reasoning_tokens = settings.thinking.budget_tokens
    elif settings.thinking.type == "disabled":
        config.enable_reasoner, config.max_reasoning_tokens = False, 0
    config.strict = settings.strict
    config.response_format = settings.response_format or state.response_format


def read_config(settings: ModelSettings, config: LLMConfig) -> None:
    """Take over what a request says in the words of V1; what the settings say wins."""
    if config.HasField("max_tokens") and not settings.HasField("max_output_tokens"):
        settings.max_output_tokens = config.max_tokens
    if config.temperature and not settings.HasField("temperature"):
        settings.temperature = config.temperature
    if config.HasField("verbosity") and not settings.HasField("verbosity"):
        settings.verbosity = config.verbosity
    if config.HasField("effort") and not settings.HasField("effort"):
        settings.effort = config.effort
    if config.enable_reasoner:
        think(settings, config.max_reasoning_tokens)
    if config.HasField("parallel_tool_calls") and not settings.HasField("parallel_tool_calls"):
        settings.parallel_tool_calls = config.parallel_tool_calls
    if config.HasField("reasoning_effort") and not settings.HasField("reasoning"):
        settings.reasoning.reasoning_effort = config.reasoning_effort


def think(settings: ModelSettings, tokens: int, *, wanted: bool = True) -> None:
    """Have the model think with at most so many tokens, or not think; what the settings say of it wins."""
    if settings.HasField("thinking"):
        return
    if not wanted:
        settings.thinking.type = "disabled"
    elif tokens:
        settings.thinking.type, settings.thinking.budget_tokens = "enabled", tokens


def handle_of(model: str, config: LLMConfig) -> str:
    """Return the handle that a request names in either way; empty for the default."""
    if model or config.handle:
        return model or config.handle
    return f"{config.provider_name or config.model_endpoint_type}/{config.model}" if config.model else ""


def set_embedding(state: AgentState, info: model_pb2.EmbeddingModel) -> None:
    """Give an agent an embedding model."""
    state.embedding = info.handle
    config = model_config_pb2.EmbeddingConfig(
        embedding_endpoint_type=info.embedding_endpoint_type,
        embedding_model=info.embedding_model or info.name,
        embedding_dim=info.embedding_dim,
        embedding_chunk_size=info.embedding_chunk_size,
        handle=info.handle,
        batch_size=info.batch_size,
    )
    if info.embedding_endpoint:
        config.embedding_endpoint = info.embedding_endpoint
    state.embedding_config.CopyFrom(config)
