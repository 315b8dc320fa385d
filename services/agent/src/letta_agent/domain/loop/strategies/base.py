"""What the loop asks of a kind of agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from letta.common.v1 import usage_pb2
from letta.common.v1.message_pb2 import ToolReturnContent
from letta_agent.domain.toolcalls.rules import ToolRules
from letta_agent.domain.toolcalls.toolsets import Toolset
from letta_messages.rendering import SendTool

StopReason = usage_pb2.StopReason
GO_ON = StopReason.STOP_REASON_UNSPECIFIED


@dataclass(frozen=True, slots=True)
class TakenStep:
    """A step that was taken: what decides whether there is another."""

    calls: Sequence[ToolReturnContent]
    """What its calls returned."""
    said: bool
    """The model said something."""
    cut: bool
    """Its answer was cut at the token limit."""
    last: bool
    """The run may take no further step."""
    history: Sequence[ToolReturnContent]
    """The same of the whole run, this step included."""
    arguments: Sequence[str] = ()
    """What the model wrote as arguments of the calls, JSON."""
    equipped: bool = True
    """The agent has tools."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Why the run stops, or GO_ON; `notice` is said to the model before the next step."""

    stop_reason: StopReason.ValueType
    notice: str = ""


class Strategy(Protocol):
    """How a kind of agent differs."""

    send_tool: SendTool | None
    """The tool that the agent speaks through, shown as what it says; None when it speaks freely."""
    must_call: bool
    """Each step calls one tool, and no more than one."""

    def prepare(self, toolset: Toolset) -> Toolset:
        """Return the tools as the model sees them."""
        ...

    def decide(self, turn: TakenStep, rules: ToolRules) -> Decision:
        """Say whether the run goes on after a step."""
        ...
