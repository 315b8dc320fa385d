"""UserService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import user_service_pb2 as pb
from letta.auth.v1 import user_service_pb2_grpc
from letta_auth.domain.users import Users
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_rpc.masks import changed_values

Call = grpc.aio.ServicerContext[Any, Any]


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(self, request: pb.CreateUserRequest, context: Call) -> pb.CreateUserResponse:
        made = await self._users.create(current_actor(), request.name, request.organization_id)
        return pb.CreateUserResponse(user=made)

    async def GetUser(self, request: pb.GetUserRequest, context: Call) -> pb.GetUserResponse:
        found = await self._users.get(current_actor(), request.user_id)
        return pb.GetUserResponse(user=found)

    async def ListUsers(self, request: pb.ListUsersRequest, context: Call) -> pb.ListUsersResponse:
        found = await self._users.list(current_actor(), Page.of(request), request.organization_id)
        return pb.ListUsersResponse(users=found)

    async def UpdateUser(self, request: pb.UpdateUserRequest, context: Call) -> pb.UpdateUserResponse:
        changes = changed_values(request.user, request.update_mask)
        changed = await self._users.update(current_actor(), request.user_id, changes)
        return pb.UpdateUserResponse(user=changed)

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: Call) -> pb.DeleteUserResponse:
        gone = await self._users.delete(current_actor(), request.user_id)
        return pb.DeleteUserResponse(user=gone)
