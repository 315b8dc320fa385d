"""MemoryReviewService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.memory.v1 import memory_review_service_pb2 as pb
from letta.memory.v1 import memory_review_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_memory.domain.review.suggestions import Suggestions, SuggestionStore
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class MemoryReviewServicer(memory_review_service_pb2_grpc.MemoryReviewServiceServicer):
    """Serves suggestions, and what is looked for."""

    def __init__(self, suggestions: Suggestions, store: SuggestionStore) -> None:
        self._suggestions = suggestions
        self._store = store

    async def ListMemorySuggestions(
        self, request: pb.ListMemorySuggestionsRequest, context: Call
    ) -> pb.ListMemorySuggestionsResponse:
        found = await self._store.list_suggestions(current_actor(), request, Page.of(request))
        return pb.ListMemorySuggestionsResponse(suggestions=found)

    async def GetMemorySuggestion(
        self, request: pb.GetMemorySuggestionRequest, context: Call
    ) -> pb.GetMemorySuggestionResponse:
        suggestion = await self._store.get(current_actor(), request.suggestion_id)
        return pb.GetMemorySuggestionResponse(suggestion=suggestion)

    async def AcceptMemorySuggestion(
        self, request: pb.AcceptMemorySuggestionRequest, context: Call
    ) -> pb.AcceptMemorySuggestionResponse:
        suggestion = await self._suggestions.accept(current_actor(), request.suggestion_id)
        return pb.AcceptMemorySuggestionResponse(suggestion=suggestion)

    async def DismissMemorySuggestion(
        self, request: pb.DismissMemorySuggestionRequest, context: Call
    ) -> pb.DismissMemorySuggestionResponse:
        suggestion = await self._suggestions.dismiss(current_actor(), request.suggestion_id)
        return pb.DismissMemorySuggestionResponse(suggestion=suggestion)

    async def GetArchiveReviewPolicy(
        self, request: pb.GetArchiveReviewPolicyRequest, context: Call
    ) -> pb.GetArchiveReviewPolicyResponse:
        policy = await self._store.get_archive_policy(current_actor(), request.archive_id)
        return pb.GetArchiveReviewPolicyResponse(policy=policy)

    async def UpdateArchiveReviewPolicy(
        self, request: pb.UpdateArchiveReviewPolicyRequest, context: Call
    ) -> pb.UpdateArchiveReviewPolicyResponse:
        changes = changed_values(request.policy, request.update_mask)
        policy = await self._suggestions.update_archive_policy(current_actor(), request.archive_id, changes)
        return pb.UpdateArchiveReviewPolicyResponse(policy=policy)

    async def GetAgentReviewPolicy(
        self, request: pb.GetAgentReviewPolicyRequest, context: Call
    ) -> pb.GetAgentReviewPolicyResponse:
        policy = await self._store.get_agent_policy(current_actor(), request.agent_id)
        return pb.GetAgentReviewPolicyResponse(policy=policy)

    async def UpdateAgentReviewPolicy(
        self, request: pb.UpdateAgentReviewPolicyRequest, context: Call
    ) -> pb.UpdateAgentReviewPolicyResponse:
        changes = changed_values(request.policy, request.update_mask)
        policy = await self._suggestions.update_agent_policy(current_actor(), request.agent_id, changes)
        return pb.UpdateAgentReviewPolicyResponse(policy=policy)
