"""UsageService over the domain."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.common.v1 import usage_pb2 as tokens_pb
from letta.llm.v1 import generation_service_pb2, usage_service_pb2_grpc
from letta.llm.v1 import usage_pb2 as usages_pb
from letta.llm.v1 import usage_service_pb2 as pb
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.times import duration_of, optional_time, stamp_of
from letta_llm_gateway.domain.accounting.usage import (
    CallFilter,
    GroupBy,
    UsageRecord,
    UsageStore,
    UsageWriter,
)
from letta_llm_gateway.servicers.purposes import purpose_of

_Context = grpc.aio.ServicerContext[Any, Any]
_MOST_GROUPS = 1000


class UsageServicer(usage_service_pb2_grpc.UsageServiceServicer):
    def __init__(self, store: UsageStore, writer: UsageWriter) -> None:
        self._store = store
        self._writer = writer

    async def ListModelCalls(self, request: pb.ListModelCallsRequest, context: _Context) -> pb.ListModelCallsResponse:
        await self._writer.flush()
        found = await self._store.list_calls(current_actor(), Page.of(request), _filter(request.filter))
        return pb.ListModelCallsResponse(calls=[_call(record) for record in found])

    async def AggregateUsage(self, request: pb.AggregateUsageRequest, context: _Context) -> pb.AggregateUsageResponse:
        await self._writer.flush()
        groups = [GroupBy(value) for value in request.group_by]
        most = request.limit or _MOST_GROUPS
        found = await self._store.list_sums(current_actor(), _filter(request.filter), groups, most)
        return pb.AggregateUsageResponse(groups=found)


def _filter(sent: pb.ModelCallFilter) -> CallFilter:
    return CallFilter(
        sent.agent_id,
        sent.run_id,
        sent.step_id,
        sent.user_id,
        sent.model,
        optional_time(sent, "start_at"),
        optional_time(sent, "end_at"),
    )


def _call(record: UsageRecord) -> usages_pb.ModelCall:
    booked = record.attribution
    return usages_pb.ModelCall(
        id=record.id,
        created_at=stamp_of(record.created_at),
        user_id=record.user_id,
        agent_id=booked.agent_id or None,
        run_id=booked.run_id or None,
        step_id=booked.step_id or None,
        purpose=purpose_of(booked.purpose),
        model=record.model,
        provider_type=record.provider_type,
        usage=tokens_pb.TokenUsage(
            prompt_tokens=record.prompt_tokens,
            completion_tokens=record.completion_tokens,
            cached_input_tokens=record.cached_input_tokens,
            cache_write_tokens=record.cache_write_tokens,
            reasoning_tokens=record.reasoning_tokens,
        ),
        usage_source=generation_service_pb2.TokenCountSource.ValueType(record.source),
        cost_microdollars=record.cost_microdollars,
        duration=duration_of(record.duration_ms * 1_000_000),
        outcome=record.outcome,
    )
