"""APIKeyService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import api_key_service_pb2 as pb
from letta.auth.v1 import api_key_service_pb2_grpc
from letta_auth.domain.api_keys import APIKeys
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_common.values.times import optional_time
from letta_rpc.verdicts import words_of

Call = grpc.aio.ServicerContext[Any, Any]


class APIKeyServicer(api_key_service_pb2_grpc.APIKeyServiceServicer):
    def __init__(self, api_keys: APIKeys) -> None:
        self._api_keys = api_keys

    async def CreateAPIKey(self, request: pb.CreateAPIKeyRequest, context: Call) -> pb.CreateAPIKeyResponse:
        made, secret = await self._api_keys.create(
            current_actor(),
            request.name,
            user_id=request.user_id,
            scopes=words_of(request.scopes),
            expires_at=optional_time(request, "expires_at"),
        )
        return pb.CreateAPIKeyResponse(api_key=made, secret=secret)

    async def GetAPIKey(self, request: pb.GetAPIKeyRequest, context: Call) -> pb.GetAPIKeyResponse:
        found = await self._api_keys.get(current_actor(), request.api_key_id)
        return pb.GetAPIKeyResponse(api_key=found)

    async def ListAPIKeys(self, request: pb.ListAPIKeysRequest, context: Call) -> pb.ListAPIKeysResponse:
        found = await self._api_keys.list(current_actor(), Page.of(request), request.user_id)
        return pb.ListAPIKeysResponse(api_keys=found)

    async def DeleteAPIKey(self, request: pb.DeleteAPIKeyRequest, context: Call) -> pb.DeleteAPIKeyResponse:
        await self._api_keys.revoke(current_actor(), request.api_key_id)
        return pb.DeleteAPIKeyResponse()
