"""OrganizationService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import organization_service_pb2, organization_service_pb2_grpc
from letta_auth.domain.organizations import Organizations
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_rpc.masks import changed_values

_Context = grpc.aio.ServicerContext[Any, Any]


class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    async def CreateOrganization(
        self, request: organization_service_pb2.CreateOrganizationRequest, context: _Context
    ) -> organization_service_pb2.CreateOrganizationResponse:
        made = await self._organizations.create(
            current_actor(), request.name, privileged_tools=request.privileged_tools
        )
        return organization_service_pb2.CreateOrganizationResponse(organization=made)

    async def GetOrganization(
        self, request: organization_service_pb2.GetOrganizationRequest, context: _Context
    ) -> organization_service_pb2.GetOrganizationResponse:
        found = await self._organizations.get(current_actor(), request.org_id)
        return organization_service_pb2.GetOrganizationResponse(organization=found)

    async def ListOrganizations(
        self, request: organization_service_pb2.ListOrganizationsRequest, context: _Context
    ) -> organization_service_pb2.ListOrganizationsResponse:
        found = await self._organizations.list(current_actor(), Page.of(request))
        return organization_service_pb2.ListOrganizationsResponse(organizations=found)

    async def UpdateOrganization(
        self, request: organization_service_pb2.UpdateOrganizationRequest, context: _Context
    ) -> organization_service_pb2.UpdateOrganizationResponse:
        changes = changed_values(request.organization, request.update_mask)
        changed = await self._organizations.update(current_actor(), request.org_id, changes)
        return organization_service_pb2.UpdateOrganizationResponse(organization=changed)

    async def DeleteOrganization(
        self, request: organization_service_pb2.DeleteOrganizationRequest, context: _Context
    ) -> organization_service_pb2.DeleteOrganizationResponse:
        gone = await self._organizations.delete(current_actor(), request.org_id)
        return organization_service_pb2.DeleteOrganizationResponse(organization=gone)
