"""What only older clients say and read of an agent: read from any request, shown to callers who ask for it."""

from __future__ import annotations

from letta.common.v1.model_settings_pb2 import THINKING_TYPE_DISABLED, THINKING_TYPE_ENABLED, ModelSettings
from letta.compat.v1.agent_pb2 import AgentCompat, LLMConfig
from letta.memory.v1.folder_service_pb2 import SourceView
from letta_agent.domain.agents.records import Agent
from letta_common.actor import current_request

_MIRRORED = (
    ("temperature", "temperature"),
    ("max_output_tokens", "max_tokens"),
    ("verbosity", "verbosity"),
    ("effort", "effort"),
)
"""Settings that an older client reads elsewhere, under these names."""


def as_read(agent: Agent) -> Agent:
    """Return an agent as its caller reads it: with the words of older clients when they were asked for."""
    if current_request().compat:
        tell(agent)
    else:
        agent.ClearField("compat")
    return agent


def tell(agent: Agent) -> None:
    settings, config, memory = agent.model_settings, agent.compat.llm_config, agent.compat.memory
    config.context_window = agent.context_window_limit
    for name, mirror in _MIRRORED:
        if settings.HasField(name):  # type: ignore[arg-type]
            setattr(config, mirror, getattr(settings, name))
    config.parallel_tool_calls = settings.parallel_tool_calls
    if settings.reasoning.reasoning_effort:
        config.reasoning_effort = settings.reasoning.reasoning_effort
    if settings.thinking.type:
        config.enable_reasoner = settings.thinking.type == THINKING_TYPE_ENABLED
        config.max_reasoning_tokens = settings.thinking.budget_tokens if config.enable_reasoner else 0
    config.strict = settings.strict
    said = settings if settings.HasField("response_format") else agent
    if said.HasField("response_format"):
        config.response_format.CopyFrom(said.response_format)
    memory.agent_type = agent.agent_type
    memory.blocks.extend(agent.blocks)
    agent.compat.sources.extend(SourceView.FromString(folder.SerializeToString()) for folder in agent.folders)


def settings_told(given: ModelSettings, said: AgentCompat) -> ModelSettings:
    """Return the settings that a request says, in either words; what the settings themselves say wins."""
    told = ModelSettings()
    told.CopyFrom(given)
    if said.max_tokens and not told.HasField("max_output_tokens"):
        told.max_output_tokens = said.max_tokens
    if said.HasField("parallel_tool_calls") and not told.HasField("parallel_tool_calls"):
        told.parallel_tool_calls = said.parallel_tool_calls
    if said.HasField("llm_config"):
        _read(told, said.llm_config)
    _think(told, said.max_reasoning_tokens, wanted=not said.HasField("reasoning") or said.reasoning)
    return told


def _read(settings: ModelSettings, config: LLMConfig) -> None:
    for name, mirror in _MIRRORED[1:]:
        if config.HasField(mirror) and not settings.HasField(name):  # type: ignore[arg-type]
            setattr(settings, name, getattr(config, mirror))
    if config.temperature and not settings.HasField("temperature"):
        settings.temperature = config.temperature
    if config.enable_reasoner:
        _think(settings, config.max_reasoning_tokens)
    if config.HasField("parallel_tool_calls") and not settings.HasField("parallel_tool_calls"):
        settings.parallel_tool_calls = config.parallel_tool_calls
    if config.HasField("response_format") and not settings.HasField("response_format"):
        settings.response_format.CopyFrom(config.response_format)
    if config.HasField("reasoning_effort") and not settings.HasField("reasoning"):
        settings.reasoning.reasoning_effort = config.reasoning_effort


def _think(settings: ModelSettings, tokens: int, *, wanted: bool = True) -> None:
    """Have the model think with at most so many tokens, or not think; what the settings say of it wins."""
    if settings.HasField("thinking"):
        return
    if not wanted:
        settings.thinking.type = THINKING_TYPE_DISABLED
    elif tokens:
        settings.thinking.type, settings.thinking.budget_tokens = THINKING_TYPE_ENABLED, tokens


def model_told(model: str, said: AgentCompat) -> str:
    """Return the handle of the model that a request names in either words; empty for the default."""
    config = said.llm_config
    if model or config.handle:
        return model or config.handle
    return f"{config.provider_name or config.model_endpoint_type}/{config.model}" if config.model else ""
