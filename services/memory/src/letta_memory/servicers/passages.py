"""PassageService."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import grpc.aio

from letta.memory.v1 import passage_service_pb2 as pb
from letta.memory.v1 import passage_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import MAX_LIMIT, Page
from letta_common.values.repeats import Digests
from letta_common.values.times import optional_time, stamp_of
from letta_memory.domain.passages import NewPassage, PassageHit, PassageQuery, Passages, PassageScope, PassageStore
from letta_memory.servicers.packing import pack_passage

Call = grpc.aio.ServicerContext[Any, Any]
_SEARCH_LIMIT = 50
_TOP_K = 10


class PassageServicer(passage_service_pb2_grpc.PassageServiceServicer):
    """Serves passages."""

    def __init__(self, passages: Passages, store: PassageStore, digests: Digests) -> None:
        self._passages = passages
        self._store = store
        self._digests = digests

    async def CreatePassage(self, request: pb.CreatePassageRequest, context: Call) -> pb.CreatePassageResponse:
        actor, new = current_actor(), [_new(request.passage)]
        made = await self._passages.create(
            actor, request.archive_id, new, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreatePassageResponse(passage=pack_passage(made[0], actor.organization_id))

    async def CreatePassages(self, request: pb.CreatePassagesRequest, context: Call) -> pb.CreatePassagesResponse:
        actor, new = current_actor(), [_new(passage) for passage in request.passages]
        made = await self._passages.create(
            actor, request.archive_id, new, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreatePassagesResponse(passages=[pack_passage(passage, actor.organization_id) for passage in made])

    async def DeletePassage(self, request: pb.DeletePassageRequest, context: Call) -> pb.DeletePassageResponse:
        await self._store.delete(current_actor(), request.archive_id, request.passage_id)
        return pb.DeletePassageResponse()

    async def SearchPassages(self, request: pb.SearchPassagesRequest, context: Call) -> pb.SearchPassagesResponse:
        query = PassageQuery(
            text=request.query,
            limit=min(request.limit or _SEARCH_LIMIT, MAX_LIMIT),
            tags=tuple(request.tags),
            match_all_tags=request.tag_match_mode == pb.TAG_MATCH_MODE_ALL,
            start=optional_time(request, "start_date"),
            end=optional_time(request, "end_date"),
        )
        actor = current_actor()
        found = await self._passages.search(actor, PassageScope(request.archive_id, request.agent_id), query)
        return pb.SearchPassagesResponse(results=[_result(hit, actor.organization_id) for hit in found])

    async def ListArchivalMemory(
        self, request: pb.ListArchivalMemoryRequest, context: Call
    ) -> pb.ListArchivalMemoryResponse:
        actor, page = current_actor(), Page.of(request)
        if request.HasField("ascending"):
            page = replace(page, ascending=request.ascending)
        found = await self._passages.list_of_agent(actor, request.agent_id, page, containing=request.search)
        return pb.ListArchivalMemoryResponse(
            passages=[pack_passage(passage, actor.organization_id) for passage in found]
        )

    async def CreateArchivalMemory(
        self, request: pb.CreateArchivalMemoryRequest, context: Call
    ) -> pb.CreateArchivalMemoryResponse:
        actor = current_actor()
        new = NewPassage(text=request.text, tags=tuple(request.tags), created_at=optional_time(request, "created_at"))
        made = await self._passages.remember(
            actor, request.agent_id, new, request_id=request.request_id, request_hash=self._digests.of(request)
        )
        return pb.CreateArchivalMemoryResponse(
            passages=[pack_passage(passage, actor.organization_id) for passage in made]
        )

    async def SearchArchivalMemory(
        self, request: pb.SearchArchivalMemoryRequest, context: Call
    ) -> pb.SearchArchivalMemoryResponse:
        query = PassageQuery(
            text=request.query,
            limit=min(request.top_k or _TOP_K, MAX_LIMIT),
            tags=tuple(request.tags),
            match_all_tags=request.tag_match_mode == pb.TAG_MATCH_MODE_ALL,
            start=optional_time(request, "start_datetime"),
            end=optional_time(request, "end_datetime"),
        )
        found = await self._passages.search(current_actor(), PassageScope(agent_id=request.agent_id), query)
        return pb.SearchArchivalMemoryResponse(results=[_memory(hit) for hit in found], count=len(found))

    async def DeleteArchivalMemory(
        self, request: pb.DeleteArchivalMemoryRequest, context: Call
    ) -> pb.DeleteArchivalMemoryResponse:
        await self._passages.forget(current_actor(), request.agent_id, request.memory_id)
        return pb.DeleteArchivalMemoryResponse(message=f"Memory id={request.memory_id} successfully deleted")


def _new(passage: pb.NewPassage) -> NewPassage:
    return NewPassage(
        text=passage.text,
        tags=tuple(passage.tags),
        metadata=passage.metadata or "{}",
        created_at=optional_time(passage, "created_at"),
    )


def _result(hit: PassageHit, organization_id: str) -> pb.PassageSearchResult:
    ranks = {"word_rank": hit.word_rank, "meaning_rank": hit.meaning_rank}
    return pb.PassageSearchResult(
        passage=pack_passage(hit.passage, organization_id),
        score=hit.score,
        metadata=json.dumps({name: rank for name, rank in ranks.items() if rank is not None}),
    )


def _memory(hit: PassageHit) -> pb.ArchivalMemorySearchResult:
    passage = hit.passage
    return pb.ArchivalMemorySearchResult(
        id=passage.id,
        timestamp=stamp_of(passage.created_at),
        content=passage.text,
        tags=passage.tags,
        score=hit.score,
    )
