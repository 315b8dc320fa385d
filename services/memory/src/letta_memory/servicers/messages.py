"""MessageService."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc.aio

from letta.common.v1 import letta_message_pb2, message_pb2
from letta.compat.memory.v1.message_pb2 import MessageListCompat
from letta.memory.v1 import message_service_pb2 as pb
from letta.memory.v1 import message_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.errors import InvalidArgument
from letta_common.values.paging import MAX_LIMIT, Page
from letta_memory.domain.messages import TYPE_BITS, MessageFilter, MessageHit, Messages, MessageScope, MessageStore
from letta_messages.rendering import SEND_MESSAGE, SendTool, expand, expand_for_list, names_of, type_of

Call = grpc.aio.ServicerContext[Any, Any]
LettaMessage = letta_message_pb2.LettaMessage
Message = message_pb2.Message
Show = Callable[[Message], list[LettaMessage]]
_SEARCH_LIMIT = 50
_DEFAULT = "default"  # how V1 clients name the conversation that an agent has by itself
_SPOKEN = ("system_message", "user_message", "reasoning_message", "assistant_message")
_SPOKEN_BITS = sum(TYPE_BITS[name] for name in _SPOKEN)


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Serves the history of conversations."""

    def __init__(self, messages: Messages, store: MessageStore) -> None:
        self._messages = messages
        self._store = store

    async def ListAgentMessages(
        self, request: pb.ListAgentMessagesRequest, context: Call
    ) -> pb.ListAgentMessagesResponse:
        conversation = request.agent_id if request.conversation_id == _DEFAULT else request.conversation_id
        scope = MessageScope(agent_id=request.agent_id, conversation_id=conversation)
        types, send_tool = names_of(request.include_return_message_types), _send_tool(request.compat)
        wanted = MessageFilter(_bits(types), request.group_id, request.include_err)
        messages = await self._page(request, scope, wanted, lambda stored: _shown(stored, types, send_tool))
        return pb.ListAgentMessagesResponse(messages=messages)

    async def ListConversationMessages(
        self, request: pb.ListConversationMessagesRequest, context: Call
    ) -> pb.ListConversationMessagesResponse:
        types = names_of(request.include_return_message_types)
        wanted = MessageFilter(_bits(types), request.group_id, request.include_err)
        messages = await self._page(request, _conversation(request), wanted, lambda stored: _shown(stored, types))
        return pb.ListConversationMessagesResponse(messages=messages)

    async def ListMessages(self, request: pb.ListMessagesRequest, context: Call) -> pb.ListMessagesResponse:
        types = names_of(request.include_return_message_types)
        scope, wanted = MessageScope(conversation_id=request.conversation_id), MessageFilter(_bits(types))
        messages = await self._page(request, scope, wanted, lambda stored: _shown(stored, types))
        return pb.ListMessagesResponse(messages=messages)

    async def ListRunMessages(self, request: pb.ListRunMessagesRequest, context: Call) -> pb.ListRunMessagesResponse:
        show = expand if request.include_summaries else expand_for_list
        messages = await self._page(request, MessageScope(run_id=request.run_id), MessageFilter(), show)
        return pb.ListRunMessagesResponse(messages=messages)

    async def ListStepMessages(self, request: pb.ListStepMessagesRequest, context: Call) -> pb.ListStepMessagesResponse:
        messages = await self._page(request, MessageScope(step_id=request.step_id), MessageFilter(), expand_for_list)
        return pb.ListStepMessagesResponse(messages=messages)

    async def _page(self, request: Any, scope: MessageScope, wanted: MessageFilter, show: Show) -> list[LettaMessage]:
        """Return what clients see of a page.

        A page of which nothing is shown gives way to the next one: clients take an empty page for the end of the list.
        """
        page = Page.of(request)
        while bodies := await self._store.list_messages(current_actor(), scope, wanted, page):
            stored = [Message.FromString(body) for body in bodies]
            if shown := [part for message in stored for part in show(message)]:
                return shown
            page = page.beyond(stored[0].id, stored[-1].id)
        return []

    async def GetMessage(self, request: pb.GetMessageRequest, context: Call) -> pb.GetMessageResponse:
        body = await self._store.get(current_actor(), request.message_id)
        return pb.GetMessageResponse(messages=expand_for_list(Message.FromString(body)))

    async def SearchMessages(self, request: pb.SearchMessagesRequest, context: Call) -> pb.SearchMessagesResponse:
        query = pb.SearchStoredMessagesRequest(
            query=request.query,
            limit=min(request.limit or _SEARCH_LIMIT, MAX_LIMIT),
            search_mode=request.search_mode,
            agent_id=request.agent_id,
            conversation_id=request.conversation_id,
            start_date=request.start_date if request.HasField("start_date") else None,
            end_date=request.end_date if request.HasField("end_date") else None,
            order=request.order,
        )
        hits = await self._messages.search(current_actor(), query, types=_SPOKEN_BITS)
        return pb.SearchMessagesResponse(results=[result for hit in hits for result in _results(hit)])

    async def SearchStoredMessages(
        self, request: pb.SearchStoredMessagesRequest, context: Call
    ) -> pb.SearchStoredMessagesResponse:
        request.limit = min(request.limit or _SEARCH_LIMIT, MAX_LIMIT)
        hits = await self._messages.search(current_actor(), request)
        return pb.SearchStoredMessagesResponse(results=[hit.found for hit in hits])


def _shown(message: Message, types: frozenset[str], send_tool: SendTool | None = SEND_MESSAGE) -> list[LettaMessage]:
    """Return what clients see of a stored message, of these types alone if any are named."""
    parts = expand_for_list(message, send_tool=send_tool)
    return [part for part in parts if type_of(part) in types] if types else parts


def _bits(types: Iterable[str]) -> int:
    return sum(TYPE_BITS[name] for name in types)


def _send_tool(said: MessageListCompat) -> SendTool | None:
    if said.HasField("use_assistant_message") and not said.use_assistant_message:
        return None
    name, argument = SEND_MESSAGE
    return said.assistant_message_tool_name or name, said.assistant_message_tool_kwarg or argument


def _conversation(request: pb.ListConversationMessagesRequest) -> MessageScope:
    if request.conversation_id != _DEFAULT:
        return MessageScope(conversation_id=request.conversation_id)
    if not request.agent_id:
        raise InvalidArgument("the default conversation needs an agent_id", field="agent_id")
    return MessageScope(agent_id=request.agent_id, conversation_id=request.agent_id)


def _results(hit: MessageHit) -> Iterator[pb.MessageSearchResult]:
    message = Message.FromString(hit.found.message)
    for shown in expand_for_list(message):
        kind = type_of(shown)
        if kind in _SPOKEN:
            result = pb.MessageSearchResult(agent_id=hit.agent_id, message_id=message.id, created_at=message.created_at)
            # The default conversation has the agent's id, which clients do not know as a conversation.
            if hit.found.conversation_id != hit.agent_id:
                result.conversation_id = hit.found.conversation_id
            getattr(result, kind).CopyFrom(getattr(shown, kind))
            yield result
