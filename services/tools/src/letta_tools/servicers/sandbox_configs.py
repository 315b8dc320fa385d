"""SandboxConfigService: how tools are executed, over gRPC."""

from __future__ import annotations

import json
from typing import Any

import grpc.aio

from letta.tools.v1 import sandbox_config_pb2, sandbox_config_service_pb2_grpc
from letta.tools.v1 import sandbox_config_service_pb2 as pb
from letta_common.actor import Actor, current_actor
from letta_common.errors import InvalidArgument
from letta_common.values.paging import Page
from letta_rpc.masks import changed_values
from letta_tools.domain.executions.sandbox_configs import (
    E2B,
    LOCAL,
    EnvironmentVariable,
    SandboxConfig,
    SandboxConfigs,
    SandboxConfigStore,
)

_Context = grpc.aio.ServicerContext[Any, Any]
_MASK = "********"


class SandboxConfigServicer(sandbox_config_service_pb2_grpc.SandboxConfigServiceServicer):
    """Answers for configurations and variables."""

    def __init__(self, configs: SandboxConfigs, store: SandboxConfigStore) -> None:
        self._store = store
        self._configs = configs

    async def CreateSandboxConfig(
        self, request: pb.CreateSandboxConfigRequest, context: _Context
    ) -> pb.CreateSandboxConfigResponse:
        actor = current_actor()
        config = await self._configs.create(actor, request.config)
        return pb.CreateSandboxConfigResponse(sandbox_config=_pack(actor, config))

    async def CreateLocalSandboxConfig(
        self, request: pb.CreateLocalSandboxConfigRequest, context: _Context
    ) -> pb.CreateLocalSandboxConfigResponse:
        actor = current_actor()
        config = await self._configs.create(actor, _local_settings(request.config), LOCAL)
        return pb.CreateLocalSandboxConfigResponse(sandbox_config=_pack(actor, config))

    async def GetDefaultLocalSandboxConfig(
        self, request: pb.GetDefaultLocalSandboxConfigRequest, context: _Context
    ) -> pb.GetDefaultLocalSandboxConfigResponse:
        actor = current_actor()
        config = await self._configs.default(actor, LOCAL)
        return pb.GetDefaultLocalSandboxConfigResponse(sandbox_config=_pack(actor, config))

    async def GetDefaultE2bSandboxConfig(
        self, request: pb.GetDefaultE2bSandboxConfigRequest, context: _Context
    ) -> pb.GetDefaultE2bSandboxConfigResponse:
        actor = current_actor()
        config = await self._configs.default(actor, E2B)
        return pb.GetDefaultE2bSandboxConfigResponse(sandbox_config=_pack(actor, config))

    async def RecreateLocalSandbox(
        self, request: pb.RecreateLocalSandboxRequest, context: _Context
    ) -> pb.RecreateLocalSandboxResponse:
        actor = current_actor()
        config = await self._configs.default(actor, LOCAL)
        return pb.RecreateLocalSandboxResponse(sandbox_config=_pack(actor, config))

    async def ListSandboxConfigs(
        self, request: pb.ListSandboxConfigsRequest, context: _Context
    ) -> pb.ListSandboxConfigsResponse:
        actor = current_actor()
        kind = sandbox_config_pb2.SandboxType.Name(request.sandbox_type).removeprefix("SANDBOX_TYPE_").lower()
        configs = await self._store.list_configs(actor, "" if kind == "unspecified" else kind, Page.of(request))
        return pb.ListSandboxConfigsResponse(sandbox_configs=(_pack(actor, config) for config in configs))

    async def UpdateSandboxConfig(
        self, request: pb.UpdateSandboxConfigRequest, context: _Context
    ) -> pb.UpdateSandboxConfigResponse:
        actor = current_actor()
        config = await self._configs.update(actor, request.sandbox_config_id, request.config)
        return pb.UpdateSandboxConfigResponse(sandbox_config=_pack(actor, config))

    async def DeleteSandboxConfig(
        self, request: pb.DeleteSandboxConfigRequest, context: _Context
    ) -> pb.DeleteSandboxConfigResponse:
        await self._configs.delete(current_actor(), request.sandbox_config_id)
        return pb.DeleteSandboxConfigResponse()

    async def CreateSandboxEnvironmentVariable(
        self, request: pb.CreateSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.CreateSandboxEnvironmentVariableResponse:
        actor = current_actor()
        given = request.environment_variable
        description = given.description if given.HasField("description") else None
        variable = await self._configs.set_variable(
            actor, request.sandbox_config_id, given.key, given.value, description
        )
        return pb.CreateSandboxEnvironmentVariableResponse(environment_variable=_pack_variable(actor, variable))

    async def ListSandboxEnvironmentVariables(
        self, request: pb.ListSandboxEnvironmentVariablesRequest, context: _Context
    ) -> pb.ListSandboxEnvironmentVariablesResponse:
        actor = current_actor()
        found = await self._configs.find_variables(actor, request.sandbox_config_id, Page.of(request))
        packed = (_pack_variable(actor, variable) for variable in found)
        return pb.ListSandboxEnvironmentVariablesResponse(environment_variables=packed)

    async def UpdateSandboxEnvironmentVariable(
        self, request: pb.UpdateSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.UpdateSandboxEnvironmentVariableResponse:
        actor = current_actor()
        changes = changed_values(request.environment_variable, request.update_mask)
        if changes.get("value") == _MASK:
            del changes["value"]
        variable = await self._configs.update_variable(actor, request.environment_variable_id, changes)
        return pb.UpdateSandboxEnvironmentVariableResponse(environment_variable=_pack_variable(actor, variable))

    async def DeleteSandboxEnvironmentVariable(
        self, request: pb.DeleteSandboxEnvironmentVariableRequest, context: _Context
    ) -> pb.DeleteSandboxEnvironmentVariableResponse:
        await self._configs.delete_variable(current_actor(), request.environment_variable_id)
        return pb.DeleteSandboxEnvironmentVariableResponse()


def _local_settings(config: pb.LocalSandboxConfig) -> str:
    settings: dict[str, Any] = {"use_venv": config.use_venv}
    if config.HasField("sandbox_dir"):
        settings["sandbox_dir"] = config.sandbox_dir
    if config.HasField("venv_name"):
        settings["venv_name"] = config.venv_name
    if config.pip_requirements:
        try:
            settings["pip_requirements"] = json.loads(config.pip_requirements)
        except (ValueError, RecursionError) as error:
            raise InvalidArgument("pip_requirements is not JSON", field="config.pip_requirements") from error
    return json.dumps(settings)


def _pack(actor: Actor, config: SandboxConfig) -> sandbox_config_pb2.SandboxConfig:
    packed = sandbox_config_pb2.SandboxConfig(
        id=config.id,
        type=sandbox_config_pb2.SandboxType.Value(f"SANDBOX_TYPE_{config.type.upper()}"),
        organization_id=actor.organization_id,
        config=config.config,
        created_by_id=config.created_by_id or None,
        last_updated_by_id=config.last_updated_by_id or None,
    )
    packed.created_at.FromDatetime(config.created_at)
    packed.updated_at.FromDatetime(config.updated_at)
    return packed


def _pack_variable(actor: Actor, variable: EnvironmentVariable) -> sandbox_config_pb2.SandboxEnvironmentVariable:
    packed = sandbox_config_pb2.SandboxEnvironmentVariable(
        id=variable.id,
        key=variable.key,
        value=_MASK,
        description=variable.description,
        organization_id=actor.organization_id,
        sandbox_config_id=variable.sandbox_config_id,
        created_by_id=variable.created_by_id or None,
        last_updated_by_id=variable.last_updated_by_id or None,
    )
    packed.created_at.FromDatetime(variable.created_at)
    packed.updated_at.FromDatetime(variable.updated_at)
    return packed
