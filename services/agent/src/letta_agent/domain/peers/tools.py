"""What the rules need of the tools service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from letta.tools.v1 import tool_pb2

Tool = tool_pb2.Tool


@dataclass(frozen=True, slots=True)
class ToolCallRequest:
    """A call of a tool that the tools service executes."""

    tool_id: str
    arguments: str
    key: str
    agent_id: str
    environment: Mapping[str, str] = field(default_factory=dict)
    agent_state: str = ""
    tool_version: int = 0
    """The version that the model chose; one that is known there needs no look at the registry."""


@dataclass(frozen=True, slots=True)
class CallResult:
    """What came of a call."""

    text: str
    is_error: bool = False
    result: str = ""
    """What the tool returned, JSON; empty: the text."""
    stdout: tuple[str, ...] = ()
    stderr: tuple[str, ...] = ()
    state_changes: str = ""
    """What the tool changed in the agent's state, a JSON object."""


@dataclass(frozen=True, slots=True)
class Attached:
    """Those of an agent's tools that exist, in the order asked. With `unchanged` the caller has them."""

    tools: tuple[Tool, ...]
    etag: str
    unchanged: bool = False


class ToolPeer(Protocol):
    """The tools service."""

    async def attached(self, tool_ids: Sequence[str], etag: str = "") -> Attached:
        """Return those of an agent's tools that still exist, or that none has changed since `etag`."""
        ...

    async def resolve(self, tool_ids: Sequence[str], names: Sequence[str] = ()) -> list[Tool]:
        """Return tools by id and by name, in the order asked. Raises ToolNotFound."""
        ...

    async def execute(self, call: ToolCallRequest) -> CallResult:
        """Execute a call, once for each key."""
        ...
