"""StepService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.agent.v1 import step_service_pb2 as pb
from letta.agent.v1 import step_service_pb2_grpc
from letta_agent.domain.journal.records import RunStore
from letta_common.actor import current_actor
from letta_common.values.paging import Page

Call = grpc.aio.ServicerContext[Any, Any]


class StepServicer(step_service_pb2_grpc.StepServiceServicer):
    """Serves steps."""

    def __init__(self, store: RunStore) -> None:
        self._store = store

    async def ListSteps(self, request: pb.ListStepsRequest, context: Call) -> pb.ListStepsResponse:
        found = await self._store.list_steps(current_actor(), request, Page.of(request))
        return pb.ListStepsResponse(steps=found)

    async def GetStep(self, request: pb.GetStepRequest, context: Call) -> pb.GetStepResponse:
        step = await self._store.get_step(current_actor(), request.step_id)
        return pb.GetStepResponse(step=step)

    async def GetStepMetrics(self, request: pb.GetStepMetricsRequest, context: Call) -> pb.GetStepMetricsResponse:
        metrics = await self._store.get_step_metrics(current_actor(), request.step_id)
        return pb.GetStepMetricsResponse(metrics=metrics)

    async def SetStepFeedback(self, request: pb.SetStepFeedbackRequest, context: Call) -> pb.SetStepFeedbackResponse:
        actor = current_actor()
        step = await self._store.set_feedback(actor, request.step_id, request.feedback, list(request.tags))
        return pb.SetStepFeedbackResponse(step=step)
