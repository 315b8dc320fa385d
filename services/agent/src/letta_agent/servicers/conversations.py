"""ConversationService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.agent.v1 import conversation_service_pb2 as pb
from letta.agent.v1 import conversation_service_pb2_grpc
from letta_agent.domain.agents.conversations import Conversation, Conversations
from letta_agent.domain.journal.records import ListRunsRequest
from letta_agent.domain.runs.runs import Runs, SendCommand
from letta_agent.servicers.runs import cancel_all, compaction_of, follow_of, stream
from letta_agent.servicers.stores import AgentStores
from letta_agent.servicers.streams import with_pings
from letta_common.actor import current_actor, current_request
from letta_common.clock import Clock
from letta_common.errors import RunNotActive, RunNotFound
from letta_common.values.paging import Page
from letta_common.values.repeats import Digests
from letta_rpc.masks import changed_paths, copy_paths, shared_fields

Call = grpc.aio.ServicerContext[Any, Any]
_GIVEN = shared_fields(pb.CreateConversationRequest.DESCRIPTOR, Conversation.DESCRIPTOR)


class ConversationServicer(conversation_service_pb2_grpc.ConversationServiceServicer):
    """Serves conversations."""

    def __init__(
        self, conversations: Conversations, runs: Runs, clock: Clock, *, digests: Digests, stores: AgentStores
    ) -> None:
        self._stores = stores
        self._conversations = conversations
        self._runs = runs
        self._clock = clock
        self._digests = digests

    async def CreateConversation(
        self, request: pb.CreateConversationRequest, context: Call
    ) -> pb.CreateConversationResponse:
        draft = Conversation()
        copy_paths(request, draft, _GIVEN)
        made = await self._conversations.create(
            current_actor(),
            draft,
            isolated_labels=request.isolated_block_labels,
            request_id=request.request_id,
            request_hash=self._digests.of(request),
        )
        return pb.CreateConversationResponse(conversation=made)

    async def ForkConversation(self, request: pb.ForkConversationRequest, context: Call) -> pb.ForkConversationResponse:
        made = await self._conversations.fork(
            current_actor(),
            request.conversation_id,
            request.agent_id,
            request.message_id,
            request_id=request.request_id,
            request_hash=self._digests.of(request),
        )
        return pb.ForkConversationResponse(conversation=made)

    async def GetConversation(self, request: pb.GetConversationRequest, context: Call) -> pb.GetConversationResponse:
        found = await self._stores.conversations.get(current_actor(), request.conversation_id)
        return pb.GetConversationResponse(conversation=found)

    async def ListConversations(
        self, request: pb.ListConversationsRequest, context: Call
    ) -> pb.ListConversationsResponse:
        found = await self._stores.conversations.list_conversations(current_actor(), request, Page.of(request))
        return pb.ListConversationsResponse(conversations=found)

    async def UpdateConversation(
        self, request: pb.UpdateConversationRequest, context: Call
    ) -> pb.UpdateConversationResponse:
        given = request.conversation
        paths = changed_paths(given, request.update_mask)

        def edit(conversation: Conversation) -> None:
            copy_paths(given, conversation, paths)

        changed = await self._conversations.update(current_actor(), request.conversation_id, edit)
        return pb.UpdateConversationResponse(conversation=changed)

    async def DeleteConversation(
        self, request: pb.DeleteConversationRequest, context: Call
    ) -> pb.DeleteConversationResponse:
        await self._conversations.delete(current_actor(), request.conversation_id)
        return pb.DeleteConversationResponse()

    async def SendConversationMessage(
        self, request: pb.SendConversationMessageRequest, context: Call
    ) -> pb.SendConversationMessageResponse:
        send = await self._send(request, "send_conversation_message", record=False)
        answer = await self._runs.send(current_actor(), send, current_request().signed_actor)
        return pb.SendConversationMessageResponse(
            messages=answer.messages, stop_reason=answer.stop_reason, usage=answer.usage, run_id=answer.run_id
        )

    async def StreamConversationMessage(
        self, request: pb.StreamConversationMessageRequest, context: Call
    ) -> AsyncIterator[pb.StreamConversationMessageResponse]:
        send = await self._send(request, "send_conversation_message_streaming", record=True)
        admitted = await self._runs.admit(current_actor(), send, current_request().signed_actor)
        async with aclosing(stream(self._runs, self._clock, request.run, admitted)) as events:  # type: ignore[type-var]
            async for event in events:
                yield pb.StreamConversationMessageResponse.FromString(event.SerializeToString())

    async def CancelConversation(
        self, request: pb.CancelConversationRequest, context: Call
    ) -> pb.CancelConversationResponse:
        actor = current_actor()
        _, conversation_id = await self._conversations.thread(actor, request.conversation_id, request.agent_id)
        run_ids = await self._runs.cancellable(actor, conversation_id=conversation_id)
        if not run_ids:
            text = "no run of the conversation is going on, and none of its calls waits for approval"
            raise RunNotActive(text, conversation_id=conversation_id)
        statuses = await cancel_all(self._runs, self._stores.runs, actor, run_ids)
        return pb.CancelConversationResponse(statuses=statuses)

    async def CompactConversation(
        self, request: pb.CompactConversationRequest, context: Call
    ) -> pb.CompactConversationResponse:
        actor = current_actor()
        agent_id, conversation_id = await self._conversations.thread(actor, request.conversation_id, request.agent_id)
        send = compaction_of(request, agent_id, conversation_id)
        done = await self._runs.compact(actor, send, current_request().signed_actor)
        return pb.CompactConversationResponse(
            summary=done.summary, num_messages_before=done.before, num_messages_after=done.after, run_id=done.run_id
        )

    async def RecompileConversation(
        self, request: pb.RecompileConversationRequest, context: Call
    ) -> pb.RecompileConversationResponse:
        prompt = await self._conversations.recompile(
            current_actor(), request.conversation_id, request.agent_id, dry=request.dry_run
        )
        return pb.RecompileConversationResponse(system_prompt=prompt)

    async def StreamConversation(
        self, request: pb.StreamConversationRequest, context: Call
    ) -> AsyncIterator[pb.StreamConversationResponse]:
        run_id = request.run_id or await self._newest(request)
        # Before the first event, so that an unknown run is an error and no empty stream.
        await self._stores.runs.get(current_actor(), run_id)
        events = self._runs.follow(current_actor(), run_id, follow_of(request))
        if not request.HasField("include_pings") or request.include_pings:
            events = with_pings(events, run_id, self._clock, at_once=False)
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                yield pb.StreamConversationResponse.FromString(event.SerializeToString())

    async def _newest(self, request: pb.StreamConversationRequest) -> str:
        actor = current_actor()
        _, conversation_id = await self._conversations.thread(actor, request.conversation_id, request.agent_id)
        if request.otid:
            return await self._stores.runs.get_by_key(actor, conversation_id, request.otid)
        found = await self._stores.runs.list_runs(
            actor, ListRunsRequest(conversation_id=conversation_id), Page(limit=1)
        )
        if not found:
            raise RunNotFound("the conversation has no run", conversation_id=conversation_id)
        return found[0].id

    async def _send(self, request: Any, run_type: str, *, record: bool) -> SendCommand:
        agent_id, conversation_id = await self._conversations.thread(
            current_actor(), request.conversation_id, request.agent_id
        )
        return SendCommand(agent_id, conversation_id, request.run, request.request_id, run_type=run_type, record=record)
