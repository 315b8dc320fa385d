"""From an agent to a document that holds it."""

from __future__ import annotations

import json
from collections.abc import Iterable
from datetime import datetime
from pathlib import PurePosixPath
from typing import Any, TypeVar

from letta.agent.v1 import bundle_pb2 as pb
from letta.tools.v1 import mcp_server_pb2, tool_pb2
from letta_agent.domain.agents.records import Agent
from letta_agent.domain.bundles.exporter import Exported
from letta_agent.domain.bundles.messages import written
from letta_agent.domain.peers.memory import Block
from letta_agent.domain.peers.tools import Tool
from letta_agent.servicers.older_words import tell
from letta_rpc.masks import copy_paths, shared_fields

Target = TypeVar("Target", bound=Any)
REVISION = "1c28e167b74f"
"""Version of the layout: that of the retired Letta V1 server 0.16.8, which names it by its database."""


def bundle_of(taken: Exported, skills: Iterable[pb.BundledSkill], now: datetime) -> pb.AgentBundle:
    """Return the document that holds an agent."""
    agent, blocks = taken.agent, list(taken.context.blocks)
    made = pb.AgentBundle(metadata={"revision_id": REVISION}, skills=skills)
    made.created_at.FromDatetime(now)
    made.blocks.extend(_block(block, f"block-{number}") for number, block in enumerate(blocks))
    made.tools.extend(_tool(tool, f"tool-{number}") for number, tool in enumerate(agent.tools))
    made.mcp_servers.extend(_server(server, f"mcp_server-{number}") for number, server in enumerate(taken.servers))
    told = _agent(agent)
    told.tool_ids.extend(tool.id for tool in made.tools)
    told.block_ids.extend(block.id for block in made.blocks)
    told.messages.extend(written(taken.messages, told.id, 0))
    told.in_context_message_ids.extend(message.id for message in told.messages)
    _add_files(made, told, taken)
    made.agents.append(told)
    return made


def _agent(agent: Agent) -> pb.BundledAgent:
    tell(agent)
    made = like(pb.BundledAgent(), agent)
    made.id = "agent-0"
    made.llm_config.CopyFrom(agent.compat.llm_config)
    if agent.compat.HasField("embedding_config"):
        made.embedding_config.CopyFrom(agent.compat.embedding_config)
    for variable in agent.secrets:
        made.secrets[variable.key] = ""
    return made


def _block(block: Block, block_id: str) -> pb.BundledBlock:
    made = like(pb.BundledBlock(), block)
    made.id = block_id
    return made


def _tool(tool: Tool, tool_id: str) -> pb.BundledTool:
    made = like(pb.BundledTool(), tool)
    made.id = tool_id
    if tool.tool_type != tool_pb2.TOOL_TYPE_CUSTOM:
        made.ClearField("source_code")
    return made


def _server(server: mcp_server_pb2.MCPServer, server_id: str) -> pb.BundledServer:
    """Return how a server is reached, without its variables, its headers and its token."""
    kind = server.config.WhichOneof("transport") or "streamable_http"
    spoken = pb.BundledServerType.Value(f"BUNDLED_SERVER_TYPE_{kind.upper()}")
    made = pb.BundledServer(id=server_id, server_type=spoken, server_name=server.server_name)
    if kind == "stdio":
        program = server.config.stdio
        told = {"server_name": server.server_name, "type": kind, "command": program.command, "args": [*program.args]}
        made.stdio_config = json.dumps(told, ensure_ascii=False)
    else:
        made.server_url = getattr(server.config, kind).server_url
    return made


def _add_files(made: pb.AgentBundle, told: pb.BundledAgent, taken: Exported) -> None:
    ids: dict[str, str] = {}
    for number, folder in enumerate(taken.agent.folders):
        source = like(made.sources.add(), folder)
        ids[folder.id] = source.id = f"source-{number}"
        if folder.embedding_config.handle:
            source.embedding = folder.embedding_config.handle
        told.source_ids.append(source.id)
        for file in taken.texts[folder.id]:
            ids[file.id] = f"file-{len(made.files)}"
            made.files.append(
                pb.BundledFile(
                    id=ids[file.id],
                    source_id=source.id,
                    file_name=f"{folder.name}/{file.name}",
                    original_file_name=file.original_name,
                    file_type=file.media_type,
                    file_size=file.size_bytes,
                    processing_status="completed" if file.HasField("content") else "pending",
                    content=file.content if file.HasField("content") else None,
                )
            )
    for view in taken.files:
        if view.file_id in ids:
            shown = like(told.files_agents.add(), view)
            shown.agent_id, shown.file_id, shown.source_id = told.id, ids[view.file_id], ids[view.folder_id]
            shown.id = view.id


def base_name(path: str) -> str:
    """Return the last part of a path, whichever way its slashes lean."""
    return PurePosixPath(path.replace("\\", "/")).name


def like(target: Target, source: Any) -> Target:
    """Give a message what another one has in fields of the same name and type, but for the id."""
    shared = shared_fields(source.DESCRIPTOR, target.DESCRIPTOR) - {"id"}
    copy_paths(source, target, [field.name for field, _ in source.ListFields() if field.name in shared])
    return target
