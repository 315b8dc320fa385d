"""What is executed when a custom tool is called, read from its source."""

from __future__ import annotations

from dataclasses import dataclass, field

from letta_sandbox.calls import Language, Signature
from letta_tool_schemas.borrowed_names import Borrowed
from letta_tool_schemas.schemas import call_shape
from letta_tool_schemas.typescript.reader import EXPORT, read_script
from letta_tools.domain.registry.records import RegisteredTool, ToolSourceType
from letta_tools.domain.registry.source_errors import source_errors


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


@source_errors()
def target_of(tool: RegisteredTool) -> Target:
    """Read the source of a tool. Blocking. Raises ToolSourceInvalid."""
    source = tool.source_code or ""
    if tool.source_type is not ToolSourceType.TYPESCRIPT:
        shape = call_shape(source, tool.name)
        return Target(
            source, shape.function, shape.nulls, shape.takes_agent_id, borrowed=shape.borrowed, untyped=shape.untyped
        )
    script = read_script(source, tool.name)
    takes_agent_id = "agent_id" in script.names
    signature = Signature(script.names, script.required, script.as_object)
    return Target(script.javascript, EXPORT, script.nulls, takes_agent_id, Language.JAVASCRIPT, signature)
