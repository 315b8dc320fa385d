"""SandboxConfigService: how tools are executed, over gRPC."""

from __future__ import annotations

from typing import Any

import grpc.aio

from letta.tools.v1 import sandbox_config_service_pb2 as pb
from letta.tools.v1 import sandbox_config_service_pb2_grpc
from letta.tools.v1.sandbox_config_pb2 import E2bSandboxConfig, LocalSandboxConfig, SandboxSettings
from letta_common.actor import current_actor
from letta_common.values.paging import Page
from letta_rpc.masks import changed_paths
from letta_tools.domain.executions.sandbox_configs import SandboxConfigs, SandboxConfigStore

_Context = grpc.aio.ServicerContext[Any, Any]
_LOCAL = SandboxSettings(local=LocalSandboxConfig())
_E2B = SandboxSettings(e2b=E2bSandboxConfig())


class SandboxConfigServicer(sandbox_config_service_pb2_grpc.SandboxConfigServiceServicer):
    """Answers for configurations and variables."""

    def __init__(self, configs: SandboxConfigs, store: SandboxConfigStore) -> None:
        self._store = store
        self._configs = configs

    async def CreateSandboxConfig(
        self, request: pb.CreateSandboxConfigRequest, context: _Context
    ) -> pb.CreateSandboxConfigResponse:
        config = await self._configs.create(current_actor(), request.config)
        return pb.CreateSandboxConfigResponse(sandbox_config=config)

    async def CreateLocalSandboxConfig(
        self, request: pb.CreateLocalSandboxConfigRequest, context: _Context
    ) -> pb.CreateLocalSandboxConfigResponse:
        config = await self._configs.create(current_actor(), SandboxSettings(local=request.config))
        return pb.CreateLocalSandboxConfigResponse(sandbox_config=config)

    async def GetDefaultLocalSandboxConfig(
        self, request: pb.GetDefaultLocalSandboxConfigRequest, context: _Context
    ) -> pb.GetDefaultLocalSandboxConfigResponse:
        config = await self._configs.default(current_actor(), _LOCAL)
        return pb.GetDefaultLocalSandboxConfigResponse(sandbox_config=config)

    async def GetDefaultE2bSandboxConfig(
        self, request: pb.GetDefaultE2bSandboxConfigRequest, context: _Context
    ) -> pb.GetDefaultE2bSandboxConfigResponse:
        config = await self._configs.default(current_actor(), _E2B)
        return pb.GetDefaultE2bSandboxConfigResponse(sandbox_config=config)

    async def RecreateLocalSandbox(
        self, request: pb.RecreateLocalSandboxRequest, context: _Context
    ) -> pb.RecreateLocalSandboxResponse:
        config = await self._configs.default(current_actor(), _LOCAL)
        return pb.RecreateLocalSandboxResponse(sandbox_config=config)

    async def ListSandboxConfigs(
        self, request: pb.ListSandboxConfigsRequest, context: _Context
    ) -> pb.ListSandboxConfigsResponse:
        configs = await self._store.list_configs(current_actor(), request.sandbox_type, Page.of(request))
        return pb.ListSandboxConfigsResponse(sandbox_configs=configs)

    async def UpdateSandboxConfig(
        self, request: pb.UpdateSandboxConfigRequest, context: _Context
    ) -> pb.UpdateSandboxConfigResponse:
        given = request.sandbox_config
        paths = changed_paths(given, request.update_mask)
        config = await self._configs.update(current_actor(), request.sandbox_config_id, given.config, paths)
        return pb.UpdateSandboxConfigResponse(sandbox_config=config)

    async def DeleteSandboxConfig(
        self, request: pb.DeleteSandboxConfigRequest, context: _Context
    ) -> pb.DeleteSandboxConfigResponse:
        await self._configs.delete(current_actor(), request.sandbox_config_id)
        return pb.DeleteSandboxConfigResponse()

    async def CreateSandboxEnvironmentVariable(
        self, request: pb.CreateSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.CreateSandboxEnvironmentVariableResponse:
        variable = await self._configs.set_variable(
            current_actor(), request.sandbox_config_id, request.environment_variable
        )
        return pb.CreateSandboxEnvironmentVariableResponse(environment_variable=variable)

    async def ListSandboxEnvironmentVariables(
        self, request: pb.ListSandboxEnvironmentVariablesRequest, context: _Context
    ) -> pb.ListSandboxEnvironmentVariablesResponse:
        found = await self._configs.find_variables(current_actor(), request.sandbox_config_id, Page.of(request))
        return pb.ListSandboxEnvironmentVariablesResponse(environment_variables=found)

    async def UpdateSandboxEnvironmentVariable(
        self, request: pb.UpdateSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.UpdateSandboxEnvironmentVariableResponse:
        given = request.environment_variable
        paths = changed_paths(given, request.update_mask)
        variable = await self._configs.update_variable(current_actor(), request.environment_variable_id, given, paths)
        return pb.UpdateSandboxEnvironmentVariableResponse(environment_variable=variable)

    async def DeleteSandboxEnvironmentVariable(
        self, request: pb.DeleteSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.DeleteSandboxEnvironmentVariableResponse:
        await self._configs.delete_variable(current_actor(), request.environment_variable_id)
        return pb.DeleteSandboxEnvironmentVariableResponse()
