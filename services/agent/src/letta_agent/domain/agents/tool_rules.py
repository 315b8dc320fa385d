"""The rules about tools that come with an agent's kind and with its tools."""

from __future__ import annotations

from collections.abc import Sequence

from letta.agent.v1 import tool_rule_pb2
from letta_agent.domain.agents.kinds import base_rules
from letta_agent.domain.agents.records import Agent
from letta_agent.domain.peers.tools import Tool


def add_base_rules(state: Agent, tools: Sequence[Tool]) -> None:
    """Add the rules of the agent's kind about tools that no rule of its own is about."""
    known = {getattr(rule, rule.WhichOneof("rule") or "").tool_name for rule in state.tool_rules}
    names = {tool.name for tool in tools} - known
    state.tool_rules.extend(base_rules(state.agent_type, names))


def add_approvals(state: Agent, tools: Sequence[Tool]) -> None:
    """Let calls of the tools wait for approval that usually do."""
    for tool in tools:
        if tool.default_requires_approval:
            set_approval(state, tool.name, required=True)


def set_approval(state: Agent, tool_name: str, *, required: bool) -> None:
    """Say whether calls of a tool wait for approval."""
    kept = [rule for rule in state.tool_rules if rule.requires_approval.tool_name != tool_name]
    del state.tool_rules[:]
    state.tool_rules.extend(kept)
    if required:
        rule = tool_rule_pb2.RequiresApprovalToolRule(tool_name=tool_name)
        state.tool_rules.append(tool_rule_pb2.ToolRule(requires_approval=rule))
