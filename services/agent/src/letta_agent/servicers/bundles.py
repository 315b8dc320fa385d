"""BundleService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.agent.v1 import bundle_service_pb2 as pb
from letta.agent.v1 import bundle_service_pb2_grpc
from letta_agent.domain.bundles.exporter import Exporter
from letta_agent.domain.bundles.importer import Importer
from letta_agent.servicers.bundling import bundle_of
from letta_agent.servicers.unbundling import document_of, omitted_of
from letta_common.actor import current_actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument
from letta_common.values.repeats import Digests

Call = grpc.aio.ServicerContext[Any, Any]


class BundleServicer(bundle_service_pb2_grpc.BundleServiceServicer):
    """Serves documents of agents."""

    def __init__(self, exporter: Exporter, importer: Importer, clock: Clock, *, digests: Digests) -> None:
        self._exporter = exporter
        self._importer = importer
        self._clock = clock
        self._digests = digests

    async def ExportAgent(self, request: pb.ExportAgentRequest, context: Call) -> pb.ExportAgentResponse:
        if request.compat.use_legacy_format:
            raise InvalidArgument("the layout of one agent without ids is written no more")
        conversation_id = request.conversation_id or request.agent_id
        taken = await self._exporter.take(
            current_actor(), request.agent_id, conversation_id, messages=not request.scrub_messages
        )
        return pb.ExportAgentResponse(bundle=bundle_of(taken, request.skills, self._clock.now()))

    async def ImportAgents(self, request: pb.ImportAgentsRequest, context: Call) -> pb.ImportAgentsResponse:
        document = document_of(request, self._clock.now(), self._digests)
        made = await self._importer.make(current_actor(), document)
        omitted = [*omitted_of(request.bundle), *made.omitted]
        return pb.ImportAgentsResponse(agent_ids=made.agent_ids, omitted=omitted)
