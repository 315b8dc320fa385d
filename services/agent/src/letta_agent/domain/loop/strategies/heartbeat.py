"""Agents that act by tools alone: they speak through one, and ask for their next step by a heartbeat."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

from letta.llm.v1.generation_service_pb2 import ToolDefinition
from letta_agent.domain.loop.strategies.base import GO_ON, Decision, StopReason, TakenStep
from letta_agent.domain.toolcalls.rules import REFUSED, UNREADABLE, ToolRules
from letta_agent.domain.toolcalls.toolsets import Toolset
from letta_common.values.json_texts import json_object
from letta_messages.rendering import SEND_MESSAGE, SendTool

HEARTBEAT = "request_heartbeat"
_ASKED: Mapping[str, str] = {
    "type": "boolean",
    "description": "True to get another step right after this call, false to end the turn with it.",
}


class HeartbeatStrategy:
    """Ends the turn after a call that asks for no heartbeat, unless rules say otherwise."""

    send_tool: SendTool | None = SEND_MESSAGE
    must_call = True

    def prepare(self, toolset: Toolset) -> Toolset:
        """Let each tool ask for a heartbeat."""
        return replace(toolset, schemas=tuple(map(_asking, toolset.schemas)))

    def decide(self, turn: TakenStep, rules: ToolRules) -> Decision:
        """Say whether the run goes on after a step."""
        names = [call.name for call in turn.calls]
        missing = rules.missing(turn.history)
        if not names:
            return Decision(_silent(turn))
        asked = any(map(_asks, turn.arguments))
        # A call that was not executed ends nothing: the model gets a step to mend it.
        refused = any(call.content.startswith((REFUSED, UNREADABLE)) for call in turn.calls)
        if not missing and rules.ends(names) and not refused:
            return Decision(StopReason.STOP_REASON_TOOL_RULE if asked else StopReason.STOP_REASON_END_TURN)
        if not (asked or refused or missing or rules.continues(names)):
            return Decision(StopReason.STOP_REASON_END_TURN)
        if turn.last:
            return Decision(StopReason.STOP_REASON_MAX_STEPS)
        return Decision(GO_ON, _notice(missing, asked=asked, refused=refused))


def _silent(turn: TakenStep) -> StopReason.ValueType:
    """Say how a turn ends in which no tool was called: without tools that is as it should be."""
    if turn.cut:
        return StopReason.STOP_REASON_MAX_TOKENS_EXCEEDED
    return StopReason.STOP_REASON_NO_TOOL_CALL if turn.equipped else StopReason.STOP_REASON_END_TURN


def _asking(schema: ToolDefinition) -> ToolDefinition:
    parameters = json.loads(schema.parameters)
    # A tool may have been stored with the parameter in it; there must be one, and last.
    properties = {name: kind for name, kind in parameters.get("properties", {}).items() if name != HEARTBEAT}
    required = [name for name in parameters.get("required", ()) if name != HEARTBEAT]
    changed = {**parameters, "properties": {**properties, HEARTBEAT: _ASKED}, "required": [*required, HEARTBEAT]}
    return ToolDefinition(
        name=schema.name, description=schema.description, parameters=json.dumps(changed), strict=schema.strict
    )


def _asks(arguments: str) -> bool:
    value = (json_object(arguments or "{}") or {}).get(HEARTBEAT)
    # Models write the word instead of the constant often enough.
    return value is True or (isinstance(value, str) and value.lower() == "true")


def _notice(missing: list[str], *, asked: bool, refused: bool) -> str:
    if missing:
        why = f"You may not end your turn before you have called: {', '.join(missing)}."
    elif refused:
        why = "Your call was refused; you get another step."
    elif asked:
        why = "You asked for another step; it is yours."
    else:
        why = "After this tool you get another step."
    return f"[This is an automated system message hidden from the user] {why}"
