"""CredentialService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import credential_service_pb2 as pb
from letta.auth.v1 import credential_service_pb2_grpc
from letta.common.v1 import actor_pb2
from letta_auth.domain.credentials import Credentials
from letta_auth.domain.signing_keys import SigningKeys

Call = grpc.aio.ServicerContext[Any, Any]


class CredentialServicer(credential_service_pb2_grpc.CredentialServiceServicer):
    def __init__(self, credentials: Credentials, signing_keys: SigningKeys) -> None:
        self._credentials = credentials
        self._signing_keys = signing_keys

    async def ExchangeCredential(
        self, request: pb.ExchangeCredentialRequest, context: Call
    ) -> pb.ExchangeCredentialResponse:
        signed = await self._credentials.exchange(request.credential, request.user_id)
        return pb.ExchangeCredentialResponse(context=_pack(signed))

    async def ListSigningKeys(self, request: pb.ListSigningKeysRequest, context: Call) -> pb.ListSigningKeysResponse:
        return pb.ListSigningKeysResponse(signing_keys=await self._signing_keys.listed())

    async def IssueRunContext(self, request: pb.IssueRunContextRequest, context: Call) -> pb.IssueRunContextResponse:
        signed = await self._credentials.for_run(request.organization_id, request.user_id, request.run_id)
        return pb.IssueRunContextResponse(context=_pack(signed))


def _pack(signed: bytes) -> actor_pb2.SignedActorContext:
    return actor_pb2.SignedActorContext.FromString(signed)
