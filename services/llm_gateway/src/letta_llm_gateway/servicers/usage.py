"""UsageService over the domain."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.llm.v1 import usage_service_pb2 as pb
from letta.llm.v1 import usage_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_llm_gateway.domain.accounting.usage import UsageStore, UsageWriter

_Context = grpc.aio.ServicerContext[Any, Any]
_MOST_GROUPS = 1000


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    def __init__(self, store: UsageStore, writer: UsageWriter) -> None:
        self._store = store
        self._writer = writer

    async def ListModelCalls(self, request: pb.ListModelCallsRequest, context: _Context) -> pb.ListModelCallsResponse:
        await self._writer.flush()
        found = await self._store.list_calls(current_actor(), Page.of(request), request.filter)
        return pb.ListModelCallsResponse(calls=found)

    async def AggregateUsage(self, request: pb.AggregateUsageRequest, context: _Context) -> pb.AggregateUsageResponse:
        await self._writer.flush()
        most = request.limit or _MOST_GROUPS
        found = await self._store.list_sums(current_actor(), request.filter, request.group_by, most)
        return pb.AggregateUsageResponse(groups=found)
