"""OrganizationService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import organization_service_pb2 as pb
from letta.auth.v1 import organization_service_pb2_grpc
from letta_auth.domain.organizations import Organizations
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class OrganizationServicer(organization_service_pb2_grpc.OrganizationServiceServicer):
    def __init__(self, organizations: Organizations) -> None:
        self._organizations = organizations

    async def CreateOrganization(
        self, request: pb.CreateOrganizationRequest, context: Call
    ) -> pb.CreateOrganizationResponse:
        made = await self._organizations.create(
            current_actor(), request.name, privileged_tools=request.privileged_tools
        )
        return pb.CreateOrganizationResponse(organization=made)

    async def GetOrganization(self, request: pb.GetOrganizationRequest, context: Call) -> pb.GetOrganizationResponse:
        found = await self._organizations.get(current_actor(), request.org_id)
        return pb.GetOrganizationResponse(organization=found)

    async def ListOrganizations(
        self, request: pb.ListOrganizationsRequest, context: Call
    ) -> pb.ListOrganizationsResponse:
        found = await self._organizations.list(current_actor(), Page.of(request))
        return pb.ListOrganizationsResponse(organizations=found)

    async def UpdateOrganization(
        self, request: pb.UpdateOrganizationRequest, context: Call
    ) -> pb.UpdateOrganizationResponse:
        changes = changed_values(request.organization, request.update_mask)
        changed = await self._organizations.update(current_actor(), request.org_id, changes)
        return pb.UpdateOrganizationResponse(organization=changed)

    async def DeleteOrganization(
        self, request: pb.DeleteOrganizationRequest, context: Call
    ) -> pb.DeleteOrganizationResponse:
        gone = await self._organizations.delete(current_actor(), request.org_id)
        return pb.DeleteOrganizationResponse(organization=gone)
