"""The kinds of agents: which there are, and the tools and rules that agents of a kind get unless told otherwise."""

from __future__ import annotations

from collections.abc import Collection

from letta.agent.v1 import tool_rule_pb2
from letta.common.v1 import agent_type_pb2
from letta_common.errors import InvalidArgument, OperationUnimplemented

AgentType = agent_type_pb2.AgentType
ToolRule = tool_rule_pb2.ToolRule

BASE_TOOLS: dict[int, tuple[str, ...]] = {
    AgentType.AGENT_TYPE_LETTA_V1_AGENT: ("conversation_search", "memory_insert", "memory_replace"),
    AgentType.AGENT_TYPE_MEMGPT_AGENT: (
        "core_memory_append",
        "core_memory_replace",
        "memory",
        "memory_apply_patch",
        "conversation_search",
        "send_message",
    ),
    AgentType.AGENT_TYPE_MEMGPT_V2_AGENT: ("memory_insert", "memory_replace", "conversation_search", "send_message"),
    AgentType.AGENT_TYPE_SLEEPTIME_AGENT: ("memory_replace", "memory_insert", "memory_rethink", "memory_finish_edits"),
}
MULTI_AGENT_TOOLS = (
    "send_message_to_agent_and_wait_for_reply",
    "send_message_to_agents_matching_tags",
    "send_message_to_agent_async",
)
FORGETFUL = frozenset({AgentType.AGENT_TYPE_WORKFLOW_AGENT})
"""Kinds that forget after each run, whatever they are told."""
_LAST = frozenset({"send_message", "memory_finish_edits"})
_RULED = frozenset(
    {AgentType.AGENT_TYPE_MEMGPT_AGENT, AgentType.AGENT_TYPE_MEMGPT_V2_AGENT, AgentType.AGENT_TYPE_SLEEPTIME_AGENT}
)
_VOICE = frozenset({AgentType.AGENT_TYPE_VOICE_CONVO_AGENT, AgentType.AGENT_TYPE_VOICE_SLEEPTIME_AGENT})


def require_kind(kind: int) -> None:
    """Raise unless agents of this kind can be made: InvalidArgument and OperationUnimplemented."""
    if kind == AgentType.AGENT_TYPE_SPLIT_THREAD_AGENT:
        raise InvalidArgument("agents of type split_thread_agent cannot be made", field="agent_type")
    if kind in _VOICE:
        name = AgentType.Name(kind).removeprefix("AGENT_TYPE_").lower()  # type: ignore[arg-type]
        text = f"agents of type {name} cannot be made in this release; talk to a letta_v1_agent instead"
        raise OperationUnimplemented(text, field="agent_type")


def base_rules(kind: int, names: Collection[str]) -> list[ToolRule]:
    """Return the rules about the usual tools of a kind, those among these names."""
    if kind not in _RULED:
        return []
    rules = []
    for name in BASE_TOOLS[kind]:
        if name in names and name in _LAST:
            rules.append(ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name=name)))
        elif name in names:
            rules.append(ToolRule(continue_loop=tool_rule_pb2.ContinueToolRule(tool_name=name)))
    return rules
