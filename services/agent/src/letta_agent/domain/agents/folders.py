"""The folders of agents: how much of their files an agent sees, and the tools that come and go with them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from letta.compat.v1.agent_pb2 import FileBlock
from letta.memory.v1.agent_file_service_pb2 import AttachFolderRequest, SetFileLimitsRequest
from letta.tools.v1 import tool_pb2
from letta_agent.domain.agents.records import Agent
from letta_agent.domain.peers.memory import Directories
from letta_agent.domain.peers.tools import Tool

FILE_TOOLS = ("open_files", "grep_files", "semantic_search_files")
FILES_OPEN, VIEW_CHARS = 10, 25_000
"""Limits of agents that were told none, as the contract says."""
LIMITS = frozenset({"max_files_open", "per_file_view_window_char_limit"})
"""Fields of an agent that limit what it sees of files."""


def limits_of(state: Agent) -> SetFileLimitsRequest:
    """Return how many files an agent may have open, and how much it sees of each."""
    told = {name: getattr(state, name) for name in LIMITS if state.HasField(name)}  # type: ignore[arg-type]
    return SetFileLimitsRequest(
        agent_id=state.id,
        max_files_open=told.get("max_files_open", FILES_OPEN),
        view_char_limit=told.get("per_file_view_window_char_limit", VIEW_CHARS),
    )


def attachment(state: Agent, folder_id: str) -> AttachFolderRequest:
    """Return what memory is asked so that an agent gets a folder."""
    limits = limits_of(state)
    return AttachFolderRequest(
        agent_id=state.id,
        folder_id=folder_id,
        max_files_open=limits.max_files_open,
        view_char_limit=limits.view_char_limit,
    )


def without_file_tools(tool_ids: Sequence[str], tools: Iterable[Tool]) -> list[str]:
    """Return the tools of an agent but those that read files."""
    reading = {tool.id for tool in tools if tool.tool_type == tool_pb2.TOOL_TYPE_LETTA_FILES_CORE}
    return [tool_id for tool_id in tool_ids if tool_id not in reading]


def file_blocks(directories: Directories) -> list[FileBlock]:
    """Return the files of an agent as older clients read them."""
    return [
        FileBlock(
            value=file.view,
            limit=directories.view_char_limit,
            label=file.name,
            id=file.id,
            file_id=file.file_id,
            source_id=file.folder_id,
            is_open=file.HasField("view"),
            last_accessed_at=file.last_accessed_at if file.HasField("last_accessed_at") else None,
        )
        for directory in directories.directories
        for file in directory.files
    ]
