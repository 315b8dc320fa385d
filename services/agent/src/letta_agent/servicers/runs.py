"""RunService."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc.aio

from letta.agent.v1 import agent_pb2, run_pb2, run_service_pb2_grpc
from letta.agent.v1 import run_service_pb2 as pb
from letta_agent.domain.journal.feed import Event
from letta_agent.domain.journal.records import ListStepsRequest, RunStore
from letta_agent.domain.loop.compaction_run import COMPACTION
from letta_agent.domain.runs.runs import Admitted, Follow, Runs, SendCommand
from letta_agent.servicers.packing import pack_run, pack_run_metrics, pack_run_usage
from letta_agent.servicers.stores import AgentStores
from letta_agent.servicers.streams import with_pings
from letta_common.actor import Actor, current_actor, current_request
from letta_common.clock import Clock
from letta_common.errors import RunNotActive, RunNotFound
from letta_common.values.paging import Page

Call = grpc.aio.ServicerContext[Any, Any]
_ALL = Page(limit=1_000, ascending=True)  # the most that a page may have


class RunServicer(run_service_pb2_grpc.RunServiceServicer):
    """Serves runs."""

    def __init__(self, runs: Runs, stores: AgentStores, clock: Clock) -> None:
        self._runs = runs
        self._stores = stores
        self._clock = clock

    async def SendMessage(self, request: pb.SendMessageRequest, context: Call) -> pb.SendMessageResponse:
        asked = waiting(request.run, run_pb2.ON_BUSY_WAIT)
        send = SendCommand(request.agent_id, request.agent_id, asked, request.request_id)
        return await self._runs.send(current_actor(), send, current_request().signed_actor)

    async def StreamMessage(
        self, request: pb.StreamMessageRequest, context: Call
    ) -> AsyncIterator[pb.StreamMessageResponse]:
        send = SendCommand(
            request.agent_id,
            request.agent_id,
            waiting(request.run, run_pb2.ON_BUSY_WAIT),
            request.request_id,
            run_type="send_message_streaming",
            record=True,
        )
        admitted = await self._runs.admit(current_actor(), send, current_request().signed_actor)
        async with aclosing(stream(self._runs, self._clock, request.run, admitted)) as events:  # type: ignore[type-var]
            async for event in events:
                yield event

    async def CreateRun(self, request: pb.CreateRunRequest, context: Call) -> pb.CreateRunResponse:
        asked = waiting(request.run, run_pb2.ON_BUSY_ENQUEUE)
        send = SendCommand(
            request.agent_id, request.agent_id, asked, request.request_id, run_type="send_message_async", record=True
        )
        admitted = await self._runs.admit(current_actor(), send, current_request().signed_actor)
        return pb.CreateRunResponse(run=pack_run(await self._stores.runs.get(current_actor(), admitted.run_id)))

    async def GetRun(self, request: pb.GetRunRequest, context: Call) -> pb.GetRunResponse:
        return pb.GetRunResponse(run=pack_run(await self._stores.runs.get(current_actor(), request.run_id)))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Call) -> pb.ListRunsResponse:
        found = await self._stores.runs.list_runs(current_actor(), request, page_of(request))
        return pb.ListRunsResponse(runs=map(pack_run, found))

    async def ListActiveRuns(self, request: pb.ListActiveRunsRequest, context: Call) -> pb.ListActiveRunsResponse:
        wanted = pb.ListRunsRequest(agent_id=request.agent_id, active=True)
        if request.HasField("background"):
            wanted.background = request.background
        found = await self._stores.runs.list_runs(current_actor(), wanted, Page.of(request))
        return pb.ListActiveRunsResponse(runs=map(pack_run, found))

    async def CancelRun(self, request: pb.CancelRunRequest, context: Call) -> pb.CancelRunResponse:
        return pb.CancelRunResponse(run=pack_run(await self._runs.cancel(current_actor(), request.run_id)))

    async def CancelAgentRuns(self, request: pb.CancelAgentRunsRequest, context: Call) -> pb.CancelAgentRunsResponse:
        actor, run_ids = current_actor(), list(request.run_ids)
        await self._stores.agents.get(actor, request.agent_id)
        if not run_ids:
            run_ids = await self._runs.cancellable(actor, agent_id=request.agent_id)
        statuses = await cancel_all(self._runs, self._stores.runs, actor, run_ids, agent_id=request.agent_id)
        return pb.CancelAgentRunsResponse(statuses=statuses)

    async def DeleteRun(self, request: pb.DeleteRunRequest, context: Call) -> pb.DeleteRunResponse:
        await self._runs.delete(current_actor(), request.run_id)
        return pb.DeleteRunResponse()

    async def StreamRun(self, request: pb.StreamRunRequest, context: Call) -> AsyncIterator[pb.StreamRunResponse]:
        follow = follow_of(request)
        await self._stores.runs.get(current_actor(), request.run_id)
        events = self._runs.follow(current_actor(), request.run_id, follow)
        if not request.HasField("include_pings") or request.include_pings:
            events = with_pings(events, request.run_id, self._clock, at_once=False)
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                yield pb.StreamRunResponse.FromString(event.SerializeToString())

    async def GetRunUsage(self, request: pb.GetRunUsageRequest, context: Call) -> pb.GetRunUsageResponse:
        record = await self._stores.runs.get(current_actor(), request.run_id)
        return pb.GetRunUsageResponse(usage=pack_run_usage(record))

    async def GetRunMetrics(self, request: pb.GetRunMetricsRequest, context: Call) -> pb.GetRunMetricsResponse:
        record = await self._stores.runs.get(current_actor(), request.run_id)
        steps = await self._stores.runs.list_steps(current_actor(), ListStepsRequest(run_id=request.run_id), _ALL)
        used = list(dict.fromkeys(tool for step in steps for tool in step.tools_used))
        return pb.GetRunMetricsResponse(metrics=pack_run_metrics(current_actor(), record, used))

    async def ListRunSteps(self, request: pb.ListRunStepsRequest, context: Call) -> pb.ListRunStepsResponse:
        await self._stores.runs.get(current_actor(), request.run_id)
        steps = await self._stores.runs.list_steps(
            current_actor(), ListStepsRequest(run_id=request.run_id), Page.of(request)
        )
        return pb.ListRunStepsResponse(steps=steps)


async def stream(runs: Runs, clock: Clock, asked: run_pb2.RunRequest, admitted: Admitted) -> AsyncIterator[Event]:
    """Yield the events of a run. A run that is not for the background ends when its caller goes away."""
    actor = current_actor()
    events = runs.follow(actor, admitted.run_id, Follow())
    if not asked.HasField("include_pings") or asked.include_pings:
        events = with_pings(events, admitted.run_id, clock, at_once=True)
    finished = False
    try:
        async with aclosing(events) as source:  # type: ignore[type-var]
            async for event in source:
                yield event
        finished = True
    # The run's own error is an end as well; only a caller that goes away cancels, which is no Exception.
    except Exception:
        finished = True
        raise
    finally:
        if not finished and not asked.background:
            runs.leave(actor, admitted.run_id)


def waiting(request: run_pb2.RunRequest, default: run_pb2.OnBusy.ValueType) -> run_pb2.RunRequest:
    """Return a request that says what to do when another run holds the conversation."""
    asked = run_pb2.RunRequest()
    asked.CopyFrom(request)
    asked.on_busy = asked.on_busy or default
    return asked


def compaction_of(request: Any, agent_id: str, conversation_id: str) -> SendCommand:
    """Return the run that a request to make a context smaller asks for."""
    settings = agent_pb2.CompactionSettings()
    settings.CopyFrom(request.compaction_settings)
    asked = run_pb2.RunRequest(include_compaction_messages=True)
    return SendCommand(agent_id, conversation_id, asked, request.request_id, run_type=COMPACTION, compaction=settings)


async def cancel_all(
    runs: Runs, store: RunStore, actor: Actor, run_ids: list[str], *, agent_id: str = ""
) -> dict[str, str]:
    """End runs, of an agent if one is named; return what became of each. Raises RunNotFound."""
    statuses = {}
    for run_id in run_ids:
        if agent_id and (await store.get(actor, run_id)).agent_id != agent_id:
            raise RunNotFound(f"agent {agent_id} has no run {run_id}", run_id=run_id)
        try:
            await runs.cancel(actor, run_id)
            statuses[run_id] = "cancelled"
        except RunNotActive:
            record = await store.get(actor, run_id)
            statuses[run_id] = run_pb2.RunStatus.Name(record.status).removeprefix("RUN_STATUS_").lower()  # type: ignore[arg-type]
    return statuses


def follow_of(request: Any) -> Follow:
    """Return how a request wants to follow a run."""
    return Follow(
        after=request.starting_after,
        poll_seconds=request.poll_interval or Follow().poll_seconds,
        batch=request.batch_size or Follow().batch,
    )


def page_of(request: Any) -> Page:
    """Return the page of a list that may name its direction in the older way."""
    page = Page.of(request)
    if request.compat.HasField("ascending") and not request.order:
        return Page(page.limit, request.compat.ascending, page.before, page.after)
    return page
