"""PassageService."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import grpc.aio

from letta.memory.v1 import passage_service_pb2 as pb
from letta.memory.v1 import passage_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import MAX_LIMIT, Page
from letta_common.values.repeats import Digests
from letta_memory.domain.passages import Passages, PassageStore, WriteResult
from letta_memory.domain.purges import Purges

Call = grpc.aio.ServicerContext[Any, Any]
_SEARCH_LIMIT = 50
_TOP_K = 10


class PassageServicer(passage_service_pb2_grpc.PassageServiceServicer):
    """Serves passages."""

    def __init__(self, passages: Passages, purges: Purges, store: PassageStore, digests: Digests) -> None:
        self._passages = passages
        self._purges = purges
        self._store = store
        self._digests = digests

    async def CreatePassage(self, request: pb.CreatePassageRequest, context: Call) -> pb.CreatePassageResponse:
        made = await self._create(request, [request.passage])
        return pb.CreatePassageResponse(passage=made.rows[0], existing=bool(made.repeats))

    async def CreatePassages(self, request: pb.CreatePassagesRequest, context: Call) -> pb.CreatePassagesResponse:
        made = await self._create(request, request.passages)
        return pb.CreatePassagesResponse(passages=made.rows, existing_places=made.repeats)

    async def _create(
        self, request: pb.CreatePassageRequest | pb.CreatePassagesRequest, new: Sequence[pb.NewPassage]
    ) -> WriteResult:
        digest = self._digests.of(request)
        return await self._passages.create(
            current_actor(), request.archive_id, new, request_id=request.request_id, request_hash=digest
        )

    async def DeletePassage(self, request: pb.DeletePassageRequest, context: Call) -> pb.DeletePassageResponse:
        await self._store.delete(current_actor(), request.archive_id, request.passage_id)
        return pb.DeletePassageResponse()

    async def PurgePassages(self, request: pb.PurgePassagesRequest, context: Call) -> pb.PurgePassagesResponse:
        return await self._purges.purge(current_actor(), request, self._digests.of(request))

    async def SearchPassages(self, request: pb.SearchPassagesRequest, context: Call) -> pb.SearchPassagesResponse:
        request.limit = min(request.limit or _SEARCH_LIMIT, MAX_LIMIT)
        return pb.SearchPassagesResponse(results=await self._passages.search(current_actor(), request))

    async def ListArchivalMemory(
        self, request: pb.ListArchivalMemoryRequest, context: Call
    ) -> pb.ListArchivalMemoryResponse:
        page = Page.of(request)
        if request.HasField("ascending"):
            page = replace(page, ascending=request.ascending)
        found = await self._passages.list_of_agent(current_actor(), request.agent_id, page, containing=request.search)
        return pb.ListArchivalMemoryResponse(passages=found)

    async def CreateArchivalMemory(
        self, request: pb.CreateArchivalMemoryRequest, context: Call
    ) -> pb.CreateArchivalMemoryResponse:
        made = await self._passages.remember(current_actor(), request, self._digests.of(request))
        return pb.CreateArchivalMemoryResponse(passages=made.rows, existing=bool(made.repeats))

    async def SearchArchivalMemory(
        self, request: pb.SearchArchivalMemoryRequest, context: Call
    ) -> pb.SearchArchivalMemoryResponse:
        query = pb.SearchPassagesRequest(
            query=request.query,
            agent_id=request.agent_id,
            tags=request.tags,
            tag_match_mode=request.tag_match_mode,
            limit=min(request.top_k or _TOP_K, MAX_LIMIT),
            start_date=request.start_datetime if request.HasField("start_datetime") else None,
            end_date=request.end_datetime if request.HasField("end_datetime") else None,
        )
        found = await self._passages.search(current_actor(), query, embeddings=False)
        return pb.SearchArchivalMemoryResponse(results=map(_memory, found), count=len(found))

    async def DeleteArchivalMemory(
        self, request: pb.DeleteArchivalMemoryRequest, context: Call
    ) -> pb.DeleteArchivalMemoryResponse:
        await self._passages.forget(current_actor(), request.agent_id, request.memory_id)
        return pb.DeleteArchivalMemoryResponse(message=f"Memory id={request.memory_id} successfully deleted")


def _memory(hit: pb.PassageSearchResult) -> pb.ArchivalMemorySearchResult:
    passage = hit.passage
    return pb.ArchivalMemorySearchResult(
        id=passage.id, timestamp=passage.created_at, content=passage.text, tags=passage.tags, score=hit.score
    )
