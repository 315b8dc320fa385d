"""Agents as they are stored: a serialized definition, with what a conversation overrides."""

from __future__ import annotations

from collections.abc import Sequence

from letta.agent.v1 import agent_pb2, conversation_pb2
from letta_agent.domain.journal.records import Definition


def definition_of(
    definition: bytes, conversation: bytes | None, secrets: bytes, tool_ids: Sequence[str] | None, tokens: int | None
) -> Definition:
    """Return what a run needs to know of its agent."""
    state = agent_pb2.Agent.FromString(definition)
    if conversation:
        own = conversation_pb2.Conversation.FromString(conversation)
        if own.HasField("model"):
            state.model = own.model
        if own.HasField("model_settings"):
            state.model_settings.CopyFrom(own.model_settings)
    if state.HasField("response_format") and not state.model_settings.HasField("response_format"):
        state.model_settings.response_format.CopyFrom(state.response_format)
    return Definition(state, tuple(tool_ids or ()), bytes(secrets or b""), tokens or 0)
