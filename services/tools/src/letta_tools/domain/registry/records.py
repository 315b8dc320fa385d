"""What the registry keeps of a tool, and how one is looked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from letta.tools.v1 import tool_pb2

# V1's default.
RETURN_CHAR_LIMIT = 50_000
LONGEST_NAME = 64
"""Most characters in the name of a tool that has no Python source: the providers' limit."""
EPOCH = datetime.fromtimestamp(0, UTC)


class ToolType(StrEnum):
    """Who executes a tool."""

    CUSTOM = "custom"
    LETTA_CORE = "letta_core"
    LETTA_MEMORY_CORE = "letta_memory_core"
    LETTA_MULTI_AGENT_CORE = "letta_multi_agent_core"
    LETTA_SLEEPTIME_CORE = "letta_sleeptime_core"
    LETTA_VOICE_SLEEPTIME_CORE = "letta_voice_sleeptime_core"
    LETTA_BUILTIN = "letta_builtin"
    LETTA_FILES_CORE = "letta_files_core"
    EXTERNAL_LANGCHAIN = "external_langchain"
    EXTERNAL_COMPOSIO = "external_composio"
    EXTERNAL_MCP = "external_mcp"


class ToolSourceType(StrEnum):
    """Languages of the source of a tool; JSON is a schema without source."""

    PYTHON = "python"
    TYPESCRIPT = "typescript"
    JSON = "json"


def source_type_of(number: tool_pb2.ToolSourceType.ValueType) -> ToolSourceType:
    """Return a language of the contract; Python where nothing is said."""
    name = tool_pb2.ToolSourceType.Name(number).removeprefix("TOOL_SOURCE_TYPE_")
    return ToolSourceType.PYTHON if name == "UNSPECIFIED" else ToolSourceType[name]


LETTA_TYPES = frozenset(kind for kind in ToolType if kind.name.startswith("LETTA_"))


@dataclass(frozen=True, slots=True)
class Requirement:
    """A package that a tool needs."""

    name: str
    version: str = ""

    def specifier(self) -> str:
        """Return it as pip writes it."""
        return f"{self.name}=={self.version}" if self.version else self.name


@dataclass(frozen=True, slots=True)
class RegisteredTool:
    """A function that a model may call. JSON objects are kept as text."""

    id: str
    name: str
    tool_type: ToolType = ToolType.CUSTOM
    description: str | None = None
    source_type: ToolSourceType = ToolSourceType.PYTHON
    source_code: str | None = None
    json_schema: str = ""
    args_json_schema: str = ""
    tags: tuple[str, ...] = ()
    return_char_limit: int = RETURN_CHAR_LIMIT
    pip_requirements: tuple[Requirement, ...] = ()
    npm_requirements: tuple[Requirement, ...] = ()
    default_requires_approval: bool | None = None
    enable_parallel_execution: bool = False
    idempotent: bool = False
    metadata: str = "{}"
    project_id: str | None = None
    mcp_server_id: str | None = None
    mcp_name: str | None = None
    created_by_id: str = ""
    last_updated_by_id: str = ""
    version: int = 1
    created_at: datetime = EPOCH
    updated_at: datetime = EPOCH

    @property
    def etag(self) -> str:
        """Changes with each write."""
        return str(self.version)

    @property
    def parameters(self) -> Mapping[str, Any]:
        """The schema of the arguments; empty when there is none."""
        found = json.loads(self.json_schema).get("parameters") if self.json_schema else None
        return found if isinstance(found, dict) else {}

    @property
    def is_builtin(self) -> bool:
        """Say whether the tool exists in every organization."""
        return self.tool_type in LETTA_TYPES


@dataclass(frozen=True, slots=True)
class ToolFilter:
    """Which tools a list, a count or a search is about. Empty parts filter nothing."""

    names: tuple[str, ...] = ()
    ids: tuple[str, ...] = ()
    search: str = ""
    types: frozenset[ToolType] = frozenset()
    excluded_types: frozenset[ToolType] = frozenset()
    tags: tuple[str, ...] = ()
    mcp_server_id: str = ""


@dataclass(frozen=True, slots=True)
class Match:
    """A tool that a search found, with how well by words and by likeness; None: not at all."""

    tool: RegisteredTool
    text: str
    words: float | None = None
    likeness: float | None = None
