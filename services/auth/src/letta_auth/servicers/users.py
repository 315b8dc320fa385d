"""UserService."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.auth.v1 import user_service_pb2, user_service_pb2_grpc
from letta_auth.domain.users import Users
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_rpc.masks import changed_values

_Context = grpc.aio.ServicerContext[Any, Any]


class UserServicer(user_service_pb2_grpc.UserServiceServicer):
    def __init__(self, users: Users) -> None:
        self._users = users

    async def CreateUser(
        self, request: user_service_pb2.CreateUserRequest, context: _Context
    ) -> user_service_pb2.CreateUserResponse:
        made = await self._users.create(current_actor(), request.name, request.organization_id)
        return user_service_pb2.CreateUserResponse(user=made)

    async def GetUser(
        self, request: user_service_pb2.GetUserRequest, context: _Context
    ) -> user_service_pb2.GetUserResponse:
        found = await self._users.get(current_actor(), request.user_id)
        return user_service_pb2.GetUserResponse(user=found)

    async def ListUsers(
        self, request: user_service_pb2.ListUsersRequest, context: _Context
    ) -> user_service_pb2.ListUsersResponse:
        found = await self._users.list(current_actor(), Page.of(request), request.organization_id)
        return user_service_pb2.ListUsersResponse(users=found)

    async def UpdateUser(
        self, request: user_service_pb2.UpdateUserRequest, context: _Context
    ) -> user_service_pb2.UpdateUserResponse:
        changes = changed_values(request.user, request.update_mask)
        changed = await self._users.update(current_actor(), request.user_id, changes)
        return user_service_pb2.UpdateUserResponse(user=changed)

    async def DeleteUser(
        self, request: user_service_pb2.DeleteUserRequest, context: _Context
    ) -> user_service_pb2.DeleteUserResponse:
        gone = await self._users.delete(current_actor(), request.user_id)
        return user_service_pb2.DeleteUserResponse(user=gone)
