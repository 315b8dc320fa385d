"""The auth service."""

from __future__ import annotations

import grpc.aio

from letta.auth.v1 import credential_service_pb2, credential_service_pb2_grpc
from letta_common.actor import Actor

TIMEOUT = 10.0  # one look-up and a signature; auth that takes longer is away


class CredentialClient:
    """Auth over gRPC."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._credentials = credential_service_pb2_grpc.CredentialServiceStub(channel)

    async def issue(self, actor: Actor, run_id: str) -> bytes:
        """Return a signed context for work on a run."""
        request = credential_service_pb2.IssueRunContextRequest(
            organization_id=actor.organization_id, user_id=actor.user_id, run_id=run_id
        )
        answer = await self._credentials.IssueRunContext(request, timeout=TIMEOUT)
        return answer.context.SerializeToString()
