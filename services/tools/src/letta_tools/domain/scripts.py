"""Tools written in TypeScript, as the registry and the executor need them. Reading the source is a provider's work."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from letta_common.errors import ToolSourceInvalid
from letta_tools.domain.execution import Signature
from letta_tools.domain.schemas import FunctionSchema

EXPORT = "letta_tool"
"""Name under which the JavaScript of a tool exports its function."""


@dataclass(frozen=True, slots=True)
class Script:
    """A function of TypeScript source: JavaScript that exports it, and how it is called.

    Parameters in `nulls` allow null and get it when their argument is missing.
    """

    name: str
    javascript: str
    signature: Signature = field(default_factory=Signature)
    nulls: tuple[str, ...] = ()


class ScriptReader(Protocol):
    """Reads TypeScript without executing it.

    The function is the named one, else the last one that is exported, else the last one.
    """

    def script(self, source: str, name: str = "") -> Script:
        """Erase the types and say how the function is called. Raises ToolSourceInvalid."""
        ...

    def erase(self, source: str) -> str:
        """Return the source as JavaScript. Raises ToolSourceInvalid for what is more than types."""
        ...

    def schema(self, source: str, *, name: str = "", description: str = "") -> FunctionSchema:
        """Derive the schema from types and JSDoc. Raises ToolSourceInvalid."""
        ...


def reader(scripts: ScriptReader | None) -> ScriptReader:
    """Return who reads TypeScript. Raises ToolSourceInvalid where nobody does."""
    if scripts is None:
        raise ToolSourceInvalid("this deployment reads no TypeScript")
    return scripts
