"""The memory service."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, time

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp

from letta.common.v1 import message_pb2, sort_order_pb2
from letta.memory.v1 import context_service_pb2 as context_pb2
from letta.memory.v1 import (
    context_service_pb2_grpc,
    message_service_pb2,
    message_service_pb2_grpc,
    passage_service_pb2,
    passage_service_pb2_grpc,
)
from letta_agent.clients.patience import patiently
from letta_agent.domain.context.zones import placed
from letta_agent.domain.peers.memory import (
    AgentMemorySpec,
    Block,
    CommitReceipt,
    Edit,
    EditKind,
    LettaMessage,
    Message,
    RunKey,
    Search,
    SearchHit,
    StartedContext,
    StepCommit,
    StopReason,
)
from letta_common.errors import InvalidArgument
from letta_messages.rendering import text_of

TIMEOUT = 15.0
_MOST = 1_000
_ROLES = {
    "assistant": message_pb2.MESSAGE_ROLE_ASSISTANT,
    "user": message_pb2.MESSAGE_ROLE_USER,
    "tool": message_pb2.MESSAGE_ROLE_TOOL,
}


class MemoryClient:
    """Memory over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._contexts = context_service_pb2_grpc.ContextServiceStub(channel)
        self._messages = message_service_pb2_grpc.MessageServiceStub(channel)
        self._passages = passage_service_pb2_grpc.PassageServiceStub(channel)

    async def provision(
        self,
        agent_id: str,
        name: str,
        new_blocks: Sequence[Block],
        block_ids: Sequence[str],
        messages: Sequence[Message],
        *,
        embedding: str = "",
    ) -> AgentMemorySpec:
        """Make the memory of an agent."""
        request = context_pb2.ProvisionAgentRequest(
            agent_id=agent_id,
            agent_name=name,
            new_blocks=new_blocks,
            block_ids=block_ids,
            messages=messages,
            embedding=embedding,
        )
        answer = await self._contexts.ProvisionAgent(request, timeout=TIMEOUT)
        return _memory(answer.memory)

    async def set_embedding(self, agent_id: str, embedding: str) -> None:
        """Set what embeds an agent's archive."""
        request = context_pb2.SetAgentEmbeddingRequest(agent_id=agent_id, embedding=embedding)
        await self._contexts.SetAgentEmbedding(request, timeout=TIMEOUT)

    async def deprovision(self, agent_id: str) -> None:
        """Remove what belongs to an agent alone."""
        await self._contexts.DeprovisionAgent(context_pb2.DeprovisionAgentRequest(agent_id=agent_id), timeout=TIMEOUT)

    async def provision_conversation(
        self, agent_id: str, conversation_id: str, messages: Sequence[Message], isolated_labels: Sequence[str]
    ) -> tuple[str, ...]:
        """Make the memory of a further conversation; return the copies of blocks made."""
        request = context_pb2.ProvisionConversationRequest(
            agent_id=agent_id,
            conversation_id=conversation_id,
            messages=messages,
            isolated_block_labels=isolated_labels,
        )
        answer = await self._contexts.ProvisionConversation(request, timeout=TIMEOUT)
        return tuple(answer.isolated_block_ids)

    async def deprovision_conversation(self, agent_id: str, conversation_id: str) -> None:
        """Remove a conversation."""
        request = context_pb2.DeprovisionConversationRequest(agent_id=agent_id, conversation_id=conversation_id)
        await self._contexts.DeprovisionConversation(request, timeout=TIMEOUT)

    async def begin_step(self, thread: RunKey, run_id: str, messages: Sequence[Message]) -> StartedContext:
        """Raise the fence, append the input once, return the context."""
        request = context_pb2.BeginStepRequest(
            agent_id=thread.agent_id,
            conversation_id=thread.conversation_id,
            run_id=run_id,
            fence=thread.fence,
            input=messages,
        )
        answer = await self._contexts.BeginStep(request, timeout=TIMEOUT)
        last = answer.last_step if answer.HasField("last_step") else None
        return StartedContext(
            blocks=tuple(answer.blocks),
            messages=tuple(answer.messages),
            last_step=last.step_index if last is not None else None,
            stop_reason=last.stop_reason if last is not None else StopReason.STOP_REASON_UNSPECIFIED,
            message_count=answer.message_count,
            passage_count=answer.passage_count,
        )

    async def withdraw_input(self, thread: RunKey, run_id: str) -> bool:
        """Take back the input of a run without committed steps; say whether there was any."""
        request = context_pb2.WithdrawInputRequest(
            agent_id=thread.agent_id, conversation_id=thread.conversation_id, run_id=run_id, fence=thread.fence
        )
        answer = await patiently(lambda: self._contexts.WithdrawInput(request, timeout=TIMEOUT), what="WithdrawInput")
        return answer.withdrawn

    async def commit_step(self, thread: RunKey, step: StepCommit) -> CommitReceipt:
        """Append the messages of a step once."""
        request = context_pb2.CommitStepRequest(
            agent_id=thread.agent_id,
            conversation_id=thread.conversation_id,
            run_id=step.run_id,
            fence=thread.fence,
            step_index=step.step_index,
            messages=step.messages,
            stop_reason=step.stop_reason,
            known_blocks=[
                context_pb2.BlockVersion(block_id=block_id, version=version)
                for block_id, version in step.known_blocks.items()
            ],
        )
        if step.window is not None:
            window = step.window
            if window.summary is not None:
                request.window.summary.CopyFrom(window.summary)
            request.window.first_kept_message_id, request.window.cleared = window.first_kept_message_id, window.cleared
        answer = await patiently(lambda: self._contexts.CommitStep(request, timeout=TIMEOUT), what="CommitStep")
        return CommitReceipt(tuple(answer.changed_blocks), tuple(answer.detached_block_ids))

    async def edit_block(self, thread: RunKey, key: str, edit: Edit) -> Block:
        """Edit a block once for each key."""
        request = context_pb2.EditBlockRequest(
            agent_id=thread.agent_id,
            conversation_id=thread.conversation_id,
            fence=thread.fence,
            idempotency_key=key,
            label=edit.label,
        )
        _set_edit(request, edit)
        answer = await patiently(lambda: self._contexts.EditBlock(request, timeout=TIMEOUT), what="EditBlock")
        return answer.block

    async def insert_passage(self, thread: RunKey, key: str, text: str, tags: Sequence[str]) -> None:
        """Store a text in the agent's archive, once for each key."""
        request = passage_service_pb2.CreateArchivalMemoryRequest(
            agent_id=thread.agent_id, text=text, tags=tags, request_id=key
        )
        await patiently(
            lambda: self._passages.CreateArchivalMemory(request, timeout=TIMEOUT), what="CreateArchivalMemory"
        )

    async def search_passages(self, agent_id: str, search: Search) -> list[SearchHit]:
        """Search the agent's archive, best first."""
        request = passage_service_pb2.SearchArchivalMemoryRequest(
            agent_id=agent_id, query=search.query, tags=search.tags, top_k=search.limit
        )
        request.tag_match_mode = (
            passage_service_pb2.TAG_MATCH_MODE_ALL if search.match_all_tags else passage_service_pb2.TAG_MATCH_MODE_ANY
        )
        _set_time(request.start_datetime, search.start, search.timezone)
        _set_time(request.end_datetime, search.end, search.timezone, end=True)
        answer = await patiently(
            lambda: self._passages.SearchArchivalMemory(request, timeout=TIMEOUT), what="SearchArchivalMemory"
        )
        return [
            SearchHit(found.id, found.content, _iso(found.timestamp), tags=tuple(found.tags))
            for found in answer.results
        ]

    async def search_messages(self, thread: RunKey, search: Search) -> list[SearchHit]:
        """Search the messages of the agent, best first."""
        request = message_service_pb2.SearchStoredMessagesRequest(
            agent_id=thread.agent_id,
            query=search.query,
            roles=[_ROLES[role] for role in search.roles if role in _ROLES],
            limit=search.limit,
        )
        _set_time(request.start_date, search.start, search.timezone)
        _set_time(request.end_date, search.end, search.timezone, end=True)
        answer = await patiently(
            lambda: self._messages.SearchStoredMessages(request, timeout=TIMEOUT), what="SearchStoredMessages"
        )
        return [_found(Message.FromString(result.message)) for result in answer.results]

    async def run_messages(self, run_id: str) -> list[LettaMessage]:
        """Return what a client sees of the messages of a run, in order."""
        request = message_service_pb2.ListRunMessagesRequest(
            run_id=run_id, limit=_MOST, order=sort_order_pb2.SORT_ORDER_ASC, include_summaries=True
        )
        return list((await self._messages.ListRunMessages(request, timeout=TIMEOUT)).messages)

    async def memories(self, agent_ids: Sequence[str], *, blocks: bool) -> dict[str, AgentMemorySpec]:
        """Return what agents keep in memory."""
        request = context_pb2.ListAgentMemoriesRequest(agent_ids=agent_ids, without_blocks=not blocks)
        answer = await self._contexts.ListAgentMemories(request, timeout=TIMEOUT)
        return {memory.agent_id: _memory(memory) for memory in answer.memories}

    async def reset(self, thread: RunKey, messages: Sequence[Message]) -> None:
        """Forget the messages of a conversation and begin anew with these."""
        request = context_pb2.ResetConversationRequest(
            agent_id=thread.agent_id, conversation_id=thread.conversation_id, messages=messages, fence=thread.fence
        )
        await self._contexts.ResetConversation(request, timeout=TIMEOUT)

    async def context(self, agent_id: str, conversation_id: str) -> StartedContext:
        """Return the context of a conversation, changing nothing."""
        request = context_pb2.GetContextRequest(agent_id=agent_id, conversation_id=conversation_id)
        answer = await self._contexts.GetContext(request, timeout=TIMEOUT)
        return StartedContext(
            blocks=tuple(answer.blocks),
            messages=tuple(answer.messages),
            message_count=answer.message_count,
            passage_count=answer.passage_count,
        )

    async def set_system(self, agent_id: str, conversation_id: str, text: str) -> None:
        """Replace the system prompt that opens a conversation."""
        request = context_pb2.SetSystemMessageRequest(agent_id=agent_id, conversation_id=conversation_id, text=text)
        await self._contexts.SetSystemMessage(request, timeout=TIMEOUT)

    async def attach_block(self, agent_id: str, block_id: str) -> None:
        """Attach a block."""
        request = context_pb2.AttachBlockRequest(agent_id=agent_id, block_id=block_id)
        await self._contexts.AttachBlock(request, timeout=TIMEOUT)

    async def detach_block(self, agent_id: str, block_id: str) -> None:
        """Detach a block."""
        request = context_pb2.DetachBlockRequest(agent_id=agent_id, block_id=block_id)
        await self._contexts.DetachBlock(request, timeout=TIMEOUT)


def _memory(memory: context_pb2.AgentMemory) -> AgentMemorySpec:
    return AgentMemorySpec(tuple(memory.blocks), tuple(memory.message_ids))


def _set_edit(request: context_pb2.EditBlockRequest, edit: Edit) -> None:
    kind = edit.kind
    if kind is EditKind.APPEND:
        request.append.content = edit.text
        request.append.SetInParent()
    elif kind is EditKind.REPLACE:
        request.replace.old_text, request.replace.new_text = edit.old_text, edit.text
        request.replace.all_occurrences = edit.all_occurrences
    elif kind is EditKind.INSERT:
        request.insert.text, request.insert.line = edit.text, edit.line
    elif kind is EditKind.RETHINK:
        request.rethink.value = edit.text
        request.rethink.SetInParent()
    elif kind is EditKind.CREATE:
        request.create.value, request.create.description = edit.text, edit.description or ""
        request.create.SetInParent()
    elif kind is EditKind.DELETE:
        request.delete.SetInParent()
    else:
        request.rename.label = edit.new_label
        if edit.description is not None:
            request.rename.description = edit.description
        request.rename.SetInParent()


def _found(message: Message) -> SearchHit:
    role = message_pb2.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_").lower()
    return SearchHit(message.id, text_of(message), _iso(message.created_at), role=role)


def _iso(moment: Timestamp) -> str:
    return moment.ToDatetime(tzinfo=UTC).isoformat()


def _set_time(field: Timestamp, text: str, timezone: str, *, end: bool = False) -> None:
    """Read a date or a time, in a time zone where it names none; a date as an end means its whole day.

    Raises InvalidArgument.
    """
    if not text:
        return
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        hint = "use ISO 8601: YYYY-MM-DD or YYYY-MM-DDTHH:MM"
        raise InvalidArgument(f"{text!r} is no date: {hint}", date=text) from error
    if end and len(text) <= len("YYYY-MM-DD"):
        moment = datetime.combine(moment.date(), time.max)
    try:
        field.FromDatetime(placed(moment, timezone))
    except (ValueError, OverflowError) as error:
        raise InvalidArgument(f"{text!r} is outside of the years 1 to 9999", date=text) from error
