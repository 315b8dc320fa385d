"""Agents of kind `letta_v1_agent`: they talk and call tools freely until they have nothing more to call."""

from __future__ import annotations

from letta_agent.domain.loop.strategies.base import GO_ON, Decision, StopReason, TakenStep
from letta_agent.domain.toolcalls.rules import UNREADABLE, ToolRules
from letta_agent.domain.toolcalls.toolsets import Toolset
from letta_messages.rendering import SEND_MESSAGE, SendTool


class LettaStrategy:
    """Goes on after each tool call, ends with the first answer that calls none."""

    send_tool: SendTool | None = SEND_MESSAGE
    must_call = False

    def prepare(self, toolset: Toolset) -> Toolset:
        """Return the tools as they are."""
        return toolset

    def decide(self, turn: TakenStep, rules: ToolRules) -> Decision:
        """Say whether the run goes on after a step."""
        names = [call.name for call in turn.calls]
        missing = rules.missing(turn.history)
        if not names:
            # Asking again would meet the same limit.
            if turn.cut:
                return Decision(StopReason.STOP_REASON_MAX_TOKENS_EXCEEDED)
            if not missing:
                return Decision(StopReason.STOP_REASON_END_TURN)
        elif rules.ends([call.name for call in turn.calls if not call.content.startswith(UNREADABLE)]) and not missing:
            return Decision(StopReason.STOP_REASON_TOOL_RULE)
        if turn.last:
            return Decision(StopReason.STOP_REASON_MAX_STEPS)
        return Decision(GO_ON, "" if names else _notice(missing))


def _notice(missing: list[str]) -> str:
    return (
        "[This is an automated system message hidden from the user] You may not end your turn before you have called: "
        f"{', '.join(missing)}."
    )
