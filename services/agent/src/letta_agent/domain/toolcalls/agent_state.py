"""The agent's state as data, for tools that ask for it, and what they change in it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterable, Mapping
from functools import lru_cache

from letta.agent.v1 import agent_pb2
from letta.common.v1 import agent_type_pb2
from letta.memory.v1.context_service_pb2 import EditBlockRequest, RethinkEdit
from letta_agent.domain.context.zones import known
from letta_agent.domain.peers.memory import Block
from letta_agent.domain.peers.tools import Tool

PARAMETERS = ("agent_state", "self")
"""Both stand for the state: functions that were methods, and those in the style of old tools, have a `self`."""


def wants_state(tool: Tool) -> bool:
    """Say whether the function of a tool has a parameter for the agent's state."""
    # The look for the words spares nearly all tools the parser.
    return any(name in tool.source_code for name in PARAMETERS) and _has_parameter(tool.source_code, tool.name)


def state_of(state: agent_pb2.Agent, blocks: Iterable[Block]) -> str:
    """Return what a tool may see of an agent, a JSON object."""
    shown = {
        "id": state.id,
        "name": state.name,
        "description": state.description or None,
        "agent_type": agent_type_pb2.AgentType.Name(state.agent_type).removeprefix("AGENT_TYPE_").lower(),
        "system": state.system,
        "model": state.model,
        "tags": list(state.tags),
        "timezone": known(state.timezone),
        "blocks": [
            {
                "id": block.id,
                "label": block.label,
                "value": block.value,
                "limit": block.limit,
                "description": block.description or None,
                "read_only": block.read_only,
            }
            for block in sorted(blocks, key=lambda block: block.label)
        ],
    }
    return json.dumps(shown, ensure_ascii=False)


def edits_of(changed: Mapping[str, str]) -> list[EditBlockRequest]:
    """Return the edits that bring the blocks that a tool changed into memory, always in the same order."""
    # Sorted, since the place of an edit is part of its key and a repeat must have the same.
    return [EditBlockRequest(label=label, rethink=RethinkEdit(value=changed[label])) for label in sorted(changed)]


@lru_cache(maxsize=1_000)
def _has_parameter(source: str, name: str) -> bool:
    try:
        top = ast.parse(source).body
    # Source of strangers, TypeScript among it: what cannot be read asks for nothing.
    except (SyntaxError, ValueError, RecursionError):
        return False
    functions = [node for node in top if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    # Where none has the tool's name the last one is it, as tool_schemas reads source too.
    named = [node for node in functions if node.name == name] or functions[-1:]
    return any(
        argument.arg in PARAMETERS
        for node in named
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs)
    )
