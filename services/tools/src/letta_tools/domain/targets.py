"""What is executed when a custom tool is called, read from its source."""

from __future__ import annotations

from dataclasses import dataclass, field

from letta_tools.domain.borrowed_names import Borrowed
from letta_tools.domain.execution import Language, Signature
from letta_tools.domain.schemas import call_shape
from letta_tools.domain.scripts import EXPORT, ScriptReader, reader
from letta_tools.domain.tool_records import Tool


@dataclass(frozen=True, slots=True)
class Target:
    """Source as the sandbox runs it, its function, and the arguments that it gets besides those of the caller.

    Parameters in `nulls` get null when their argument is missing.
    """

    source_code: str
    function: str
    nulls: tuple[str, ...] = ()
    takes_agent_id: bool = False
    language: Language = Language.PYTHON
    signature: Signature = field(default_factory=Signature)
    borrowed: tuple[Borrowed, ...] = ()
    untyped: tuple[str, ...] = ()


def target_of(tool: Tool, scripts: ScriptReader | None) -> Target:
    """Read the source of a tool. Blocking. Raises ToolSourceInvalid."""
    source = tool.source_code or ""
    if tool.source_type != "typescript":
        shape = call_shape(source, tool.name)
        return Target(
            source, shape.function, shape.nulls, shape.takes_agent_id, borrowed=shape.borrowed, untyped=shape.untyped
        )
    script = reader(scripts).script(source, tool.name)
    takes_agent_id = "agent_id" in script.signature.names
    return Target(script.javascript, EXPORT, script.nulls, takes_agent_id, Language.JAVASCRIPT, script.signature)
