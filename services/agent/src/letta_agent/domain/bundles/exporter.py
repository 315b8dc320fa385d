"""Takes an agent out of a deployment, as a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

from letta.memory.v1 import context_service_pb2 as memory_pb2
from letta.tools.v1 import tool_pb2
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.records import ALL_PARTS, Agent, AgentPeers
from letta_agent.domain.peers.folders import AgentFile, File, FolderPeer
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.tools import MCPServer, Tool
from letta_common.actor import Actor


@dataclass(frozen=True, slots=True)
class Exported:
    """An agent and what a document has of it."""

    agent: Agent
    context: memory_pb2.GetContextResponse
    messages: Sequence[Message] = ()
    texts: dict[str, Sequence[File]] = field(default_factory=dict)
    """The files of each folder."""
    files: Sequence[AgentFile] = ()
    servers: Sequence[MCPServer] = ()
    """The MCP servers of its tools."""


class Exporter:
    """Takes agents out."""

    def __init__(self, agents: Agents, peers: AgentPeers, folders: FolderPeer) -> None:
        self._agents = agents
        self._memory = peers.memory
        self._tools = peers.tools
        self._folders = folders

    async def take(self, actor: Actor, agent_id: str, conversation_id: str, *, messages: bool) -> Exported:
        """Return an agent, with what a conversation has in context. Raises AgentNotFound and ConversationNotFound."""
        agent = await self._agents.get(actor, agent_id, ALL_PARTS)
        context = await self._memory.context(agent_id, conversation_id)
        texts = {folder.id: await self._folders.texts(folder.id) for folder in agent.folders}
        files = await self._folders.of_agent(agent_id) if texts else ()
        taken = [Message.FromString(body) for body in context.messages] if messages else []
        names = {*filter(None, map(server_of, agent.tools))}
        servers = [server for server in await self._tools.servers() if server.server_name in names] if names else ()
        return Exported(agent, context, taken, texts, files, servers)


def server_of(tool: Tool) -> str:
    """Return the name of the MCP server that a tool is of; empty for all others."""
    if tool.tool_type != tool_pb2.TOOL_TYPE_EXTERNAL_MCP or not tool.metadata:
        return ""
    noted = json.loads(tool.metadata).get("mcp")
    return str(noted.get("server_name") or "") if isinstance(noted, dict) else ""
