"""AgentService."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import grpc.aio

from letta.agent.v1 import agent_service_pb2 as pb
from letta.agent.v1 import agent_service_pb2_grpc
from letta.common.v1.message_pb2 import TOOL_RETURN_STATUS_ERROR, TOOL_RETURN_STATUS_SUCCESS
from letta_agent.domain.agents.agents import Agents
from letta_agent.domain.agents.context_window import Overviews
from letta_agent.domain.agents.direct_calls import ToolRuns
from letta_agent.domain.runs.runs import Runs
from letta_agent.domain.toolcalls.outcomes import has_failed, told
from letta_agent.servicers.drafts import change_of, draft_of
from letta_agent.servicers.older_words import as_read, tell
from letta_agent.servicers.overviews import pack_overview
from letta_agent.servicers.runs import compaction_of, page_of
from letta_agent.servicers.stores import AgentStores
from letta_common.actor import current_actor, current_request
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests

Call = grpc.aio.ServicerContext[Any, Any]


class AgentServicer(agent_service_pb2_grpc.AgentServiceServicer):
    """Serves agents."""

    def __init__(
        self,
        agents: Agents,
        tool_runs: ToolRuns,
        overviews: Overviews,
        runs: Runs,
        clock: Clock,
        *,
        digests: Digests,
        stores: AgentStores,
    ) -> None:
        self._stores = stores
        self._agents = agents
        self._tool_runs = tool_runs
        self._overviews = overviews
        self._runs = runs
        self._clock = clock
        self._digests = digests

    async def CreateAgent(self, request: pb.CreateAgentRequest, context: Call) -> pb.CreateAgentResponse:
        agent = await self._agents.create(current_actor(), draft_of(request, self._clock.now(), self._digests))
        return pb.CreateAgentResponse(agent=as_read(agent))

    async def GetAgent(self, request: pb.GetAgentRequest, context: Call) -> pb.GetAgentResponse:
        _require_may_see(request.include)
        agent = await self._agents.get(current_actor(), request.agent_id, request.include)
        return pb.GetAgentResponse(agent=as_read(agent))

    async def GetCoreMemory(self, request: pb.GetCoreMemoryRequest, context: Call) -> pb.GetCoreMemoryResponse:
        agent = await self._agents.get(current_actor(), request.agent_id, (pb.AGENT_INCLUDE_BLOCKS,))
        # In the words of older clients whoever asks: it has no others.
        tell(agent)
        return pb.GetCoreMemoryResponse(memory=agent.compat.memory)

    async def ListAgents(self, request: pb.ListAgentsRequest, context: Call) -> pb.ListAgentsResponse:
        _require_may_see(request.include)
        found = await self._agents.find(current_actor(), request, page_of(request))
        return pb.ListAgentsResponse(agents=map(as_read, found))

    async def ListTags(self, request: pb.ListTagsRequest, context: Call) -> pb.ListTagsResponse:
        containing = request.name or request.compat.query_text
        found = await self._stores.agents.list_tags(current_actor(), Page.of(request), containing=containing)
        return pb.ListTagsResponse(tags=found)

    async def CountAgents(self, request: pb.CountAgentsRequest, context: Call) -> pb.CountAgentsResponse:
        return pb.CountAgentsResponse(count=await self._agents.count(current_actor(), request))

    async def UpdateAgent(self, request: pb.UpdateAgentRequest, context: Call) -> pb.UpdateAgentResponse:
        change = change_of(request.agent, request.update_mask)
        agent = await self._agents.update(current_actor(), request.agent_id, change)
        return pb.UpdateAgentResponse(agent=as_read(agent))

    async def DeleteAgent(self, request: pb.DeleteAgentRequest, context: Call) -> pb.DeleteAgentResponse:
        await self._agents.delete(current_actor(), request.agent_id)
        return pb.DeleteAgentResponse(message=f"Agent id={request.agent_id} successfully deleted")

    async def AttachBlock(self, request: pb.AttachBlockRequest, context: Call) -> pb.AttachBlockResponse:
        agent = await self._agents.attach_block(current_actor(), request.agent_id, request.block_id)
        return pb.AttachBlockResponse(agent=as_read(agent))

    async def DetachBlock(self, request: pb.DetachBlockRequest, context: Call) -> pb.DetachBlockResponse:
        agent = await self._agents.detach_block(current_actor(), request.agent_id, request.block_id)
        return pb.DetachBlockResponse(agent=as_read(agent))

    async def AttachFolder(self, request: pb.AttachFolderRequest, context: Call) -> pb.AttachFolderResponse:
        agent = await self._agents.attach_folder(current_actor(), request.agent_id, request.folder_id)
        return pb.AttachFolderResponse(agent=as_read(agent))

    async def DetachFolder(self, request: pb.DetachFolderRequest, context: Call) -> pb.DetachFolderResponse:
        agent = await self._agents.detach_folder(current_actor(), request.agent_id, request.folder_id)
        return pb.DetachFolderResponse(agent=as_read(agent))

    async def DeleteFolder(self, request: pb.DeleteFolderRequest, context: Call) -> pb.DeleteFolderResponse:
        await self._agents.delete_folder(current_actor(), request.folder_id)
        return pb.DeleteFolderResponse()

    async def AttachTool(self, request: pb.AttachToolRequest, context: Call) -> pb.AttachToolResponse:
        agent = await self._agents.attach_tool(current_actor(), request.agent_id, request.tool_id)
        return pb.AttachToolResponse(agent=as_read(agent))

    async def DetachTool(self, request: pb.DetachToolRequest, context: Call) -> pb.DetachToolResponse:
        agent = await self._agents.detach_tool(current_actor(), request.agent_id, request.tool_id)
        return pb.DetachToolResponse(agent=as_read(agent))

    async def ListAgentTools(self, request: pb.ListAgentToolsRequest, context: Call) -> pb.ListAgentToolsResponse:
        tools = await self._agents.tools(current_actor(), request.agent_id)
        ranked = {tool.id: (-rank, tool.id) for rank, tool in enumerate(tools)}
        page = Page.of(request).slice(tools, key=lambda tool: ranked[tool.id], by_time=False)
        return pb.ListAgentToolsResponse(tools=page)

    async def SetToolApproval(self, request: pb.SetToolApprovalRequest, context: Call) -> pb.SetToolApprovalResponse:
        agent = await self._agents.set_approval(
            current_actor(), request.agent_id, request.tool_name, required=request.requires_approval
        )
        return pb.SetToolApprovalResponse(agent=as_read(agent))

    async def RunAgentTool(self, request: pb.RunAgentToolRequest, context: Call) -> pb.RunAgentToolResponse:
        arguments = json_object(request.args, "args")
        outcome = await self._tool_runs.run(current_actor(), request.agent_id, request.tool_name, arguments)
        return pb.RunAgentToolResponse(
            status=TOOL_RETURN_STATUS_ERROR if has_failed(outcome) else TOOL_RETURN_STATUS_SUCCESS,
            func_return=outcome.result or json.dumps(told(outcome), ensure_ascii=False),
            stdout=outcome.stdout.splitlines(),
            stderr=outcome.stderr.splitlines(),
        )

    async def ResetMessages(self, request: pb.ResetMessagesRequest, context: Call) -> pb.ResetMessagesResponse:
        agent = await self._agents.reset(current_actor(), request.agent_id)
        return pb.ResetMessagesResponse(agent=as_read(agent))

    async def RecompileAgent(self, request: pb.RecompileAgentRequest, context: Call) -> pb.RecompileAgentResponse:
        agent_id = request.agent_id
        prompt = await self._agents.recompile(current_actor(), agent_id, agent_id, dry=request.dry_run)
        return pb.RecompileAgentResponse(system_prompt=prompt)

    async def GetContextWindow(self, request: pb.GetContextWindowRequest, context: Call) -> pb.GetContextWindowResponse:
        conversation_id = request.conversation_id or request.agent_id
        return await pack_overview(await self._overviews.window(current_actor(), request.agent_id, conversation_id))

    async def SummarizeMessages(
        self, request: pb.SummarizeMessagesRequest, context: Call
    ) -> pb.SummarizeMessagesResponse:
        send = compaction_of(request, request.agent_id, request.agent_id)
        done = await self._runs.compact(current_actor(), send, current_request().signed_actor)
        return pb.SummarizeMessagesResponse(
            summary=done.summary, num_messages_before=done.before, num_messages_after=done.after, run_id=done.run_id
        )


def json_object(text: str, field: str) -> dict[str, Any]:
    """Read a JSON object; none is an empty one. Raises InvalidArgument."""
    try:
        value = json.loads(text or "{}")
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{field} must be a JSON object", field=field)
    return value


def _require_may_see(include: Iterable[pb.AgentInclude.ValueType]) -> None:
    """Raise PermissionDenied for secrets, which only writers may see."""
    if pb.AGENT_INCLUDE_SECRETS in include:
        current_actor().require("write")
