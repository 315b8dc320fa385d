"""ProviderService over the domain."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.llm.v1 import provider_pb2 as providers_pb
from letta.llm.v1 import provider_service_pb2 as pb
from letta.llm.v1 import provider_service_pb2_grpc
from letta_common.actor import current_actor
from letta_common.errors import ValidationFailed
from letta_common.values.paging import Page
from letta_llm_gateway.domain.catalogue.accounts import Accounts, ProviderStore
from letta_llm_gateway.domain.catalogue.models import Models
from letta_llm_gateway.domain.catalogue.providers import Account
from letta_rpc.masks import changed_values

_Context = grpc.aio.ServicerContext[Any, Any]


class ProviderServicer(provider_service_pb2_grpc.ProviderServiceServicer):
    def __init__(self, accounts: Accounts, models: Models, store: ProviderStore) -> None:
        self._store = store
        self._accounts = accounts
        self._models = models

    async def ListProviders(self, request: pb.ListProvidersRequest, context: _Context) -> pb.ListProvidersResponse:
        found = await self._store.list_providers(current_actor(), Page.of(request), request)
        return pb.ListProvidersResponse(providers=[provider.shown for provider in found])

    async def CreateProvider(self, request: pb.CreateProviderRequest, context: _Context) -> pb.CreateProviderResponse:
        actor = current_actor()
        account = _account(request.provider, actor.organization_id)
        return pb.CreateProviderResponse(provider=await self._accounts.create(actor, account, self._models))

    async def GetProvider(self, request: pb.GetProviderRequest, context: _Context) -> pb.GetProviderResponse:
        found = await self._store.get(current_actor(), request.provider_id)
        return pb.GetProviderResponse(provider=found.shown)

    async def UpdateProvider(self, request: pb.UpdateProviderRequest, context: _Context) -> pb.UpdateProviderResponse:
        values = changed_values(request.provider, request.update_mask)
        changed = await self._accounts.update(current_actor(), request.provider_id, values, self._models)
        return pb.UpdateProviderResponse(provider=changed)

    async def DeleteProvider(self, request: pb.DeleteProviderRequest, context: _Context) -> pb.DeleteProviderResponse:
        await self._accounts.delete(current_actor(), request.provider_id, self._models)
        return pb.DeleteProviderResponse(message=f"Provider id={request.provider_id} successfully deleted")

    async def CheckCredentials(
        self, request: pb.CheckCredentialsRequest, context: _Context
    ) -> pb.CheckCredentialsResponse:
        account = Account(
            name=request.provider_type,
            provider_type=request.provider_type,
            api_key=request.api_key,
            base_url=request.base_url,
            access_key=request.access_key,
            region=request.region,
            api_version=request.api_version,
            organization_id=current_actor().organization_id,
        )
        found = await self._accounts.check(account, self._models)
        return pb.CheckCredentialsResponse(message=f"The credentials are valid: {found} models are offered.")

    async def CheckProvider(self, request: pb.CheckProviderRequest, context: _Context) -> pb.CheckProviderResponse:
        provider = await self._store.get(current_actor(), request.provider_id)
        found = await self._accounts.check(self._accounts.account(provider), self._models)
        return pb.CheckProviderResponse(message=f"The credentials are valid: {found} models are offered.")

    async def RefreshProvider(
        self, request: pb.RefreshProviderRequest, context: _Context
    ) -> pb.RefreshProviderResponse:
        synced = await self._accounts.refresh(current_actor(), request.provider_id, self._models)
        return pb.RefreshProviderResponse(provider=synced)


def _account(sent: providers_pb.Provider, organization_id: str) -> Account:
    lacking = {f"provider.{key}": "is required" for key in ("name", "provider_type") if not getattr(sent, key)}
    if lacking:
        raise ValidationFailed("a provider needs name and provider_type", **lacking)
    return Account(
        name=sent.name,
        provider_type=sent.provider_type,
        api_key=sent.api_key,
        base_url=sent.base_url,
        access_key=sent.access_key,
        region=sent.region,
        api_version=sent.api_version,
        organization_id=organization_id,
    )
