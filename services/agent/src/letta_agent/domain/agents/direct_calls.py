"""Calls of an agent's tools outside of its runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from letta.memory.v1.context_service_pb2 import AgentMemory
from letta_agent.domain.agents.records import AgentPeers, AgentStore
from letta_agent.domain.journal.records import RunKey
from letta_agent.domain.peers.secrets import SecretPeer
from letta_agent.domain.toolcalls.executor import Caller, ToolRun
from letta_agent.domain.toolcalls.outcomes import Outcome
from letta_common.actor import Actor
from letta_common.errors import ToolNotFound
from letta_common.values.ids import new_id


class ToolRuns:
    """Runs tools of agents for a caller."""

    def __init__(self, store: AgentStore, peers: AgentPeers, caller: Caller, secrets: SecretPeer) -> None:
        self._store = store
        self._memory = peers.memory
        self._tools = peers.tools
        self._caller = caller
        self._secrets = secrets

    async def run(self, actor: Actor, agent_id: str, tool_name: str, arguments: Mapping[str, Any]) -> Outcome:
        """Call a tool that an agent has. Raises AgentNotFound and ToolNotFound."""
        agent = await self._store.get(actor, agent_id)
        found = (await self._tools.attached(agent.tool_ids)).tools if agent.tool_ids else ()
        tool = next((tool for tool in found if tool.name == tool_name), None)
        if tool is None:
            raise ToolNotFound(f"agent {agent_id} has no tool {tool_name}", tool_name=tool_name)
        # The newest fence and no higher one: the call must not shut out a run that goes on.
        hold = await self._store.hold(actor, agent_id)
        memories = await self._memory.memories([agent_id], blocks=True)
        environment: Mapping[str, str] = {}
        if agent.secrets:
            environment = self._secrets.environment(actor.organization_id, agent_id, agent.secrets)
        run = ToolRun(
            run=RunKey(actor.organization_id, agent_id, agent_id, "", hold.fence),
            key=new_id("call"),
            tool=tool,
            arguments=arguments,
            environment=environment,
            state=agent.state,
            blocks=memories.get(agent_id, AgentMemory()).blocks,
        )
        return await self._caller.run(run)
