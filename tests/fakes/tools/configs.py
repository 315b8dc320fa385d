"""Sandbox configurations in memory, for tests."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

from letta.tools.v1.sandbox_config_pb2 import SandboxConfig, SandboxEnvironmentVariable, SandboxSettings, SandboxType
from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_tools.domain.executions.sandbox_configs import MASK, KeyTaken


class FakeSandboxConfigStore:
    """Configurations and variables by organization and id."""

    def __init__(self) -> None:
        self._configs: dict[tuple[str, str], SandboxConfig] = {}
        self._variables: dict[tuple[str, str], SandboxEnvironmentVariable] = {}
        self._sealed: dict[str, bytes] = {}

    async def put(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration, or replace the settings of the one of its type; return it as it stands."""
        known = next((item for item in self._mine(actor) if item.type == config.type), None)
        if known is not None:
            config.id, config.created_by_id = known.id, known.created_by_id
            config.created_at.CopyFrom(known.created_at)
        config.version = known.version + 1 if known is not None else 1
        config.organization_id = actor.organization_id
        self._configs[actor.organization_id, config.id] = config
        return deepcopy(config)

    async def create(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration unless there is one of its type, which stays; return the one that is there."""
        known = next((item for item in self._mine(actor) if item.type == config.type), None)
        return await self.put(actor, config) if known is None else deepcopy(known)

    async def update(self, actor: Actor, config: SandboxConfig, *, expected: int) -> SandboxConfig | None:
        """Replace the settings of the one of a type if its version is still `expected`; return it as it stands then."""
        if not any(item.type == config.type and item.version == expected for item in self._mine(actor)):
            return None
        return await self.put(actor, config)

    async def find(self, actor: Actor, config_id: str) -> SandboxConfig | None:
        """Return one configuration."""
        return deepcopy(self._configs.get((actor.organization_id, config_id)))

    async def list_configs(self, actor: Actor, kind: SandboxType.ValueType, page: Page) -> list[SandboxConfig]:
        """Return a page of configurations, of one type unless it is unspecified."""
        wanted = [item for item in self._mine(actor) if not kind or item.type == kind]
        return page.slice(deepcopy(wanted), key=lambda item: (time_of(item.created_at), item.id))

    async def delete(self, actor: Actor, config_id: str) -> bool:
        """Remove a configuration with its variables; say whether there was one."""
        for variable in await self.list_variables(actor, config_id, Page(limit=1000)):
            await self.delete_variable(actor, variable.id)
        return self._configs.pop((actor.organization_id, config_id), None) is not None

    async def put_variable(
        self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes
    ) -> SandboxEnvironmentVariable:
        """Add a variable, or replace the one of its name; return it as it stands."""
        known = self._named(actor, variable)
        if known is not None:
            variable.id, variable.created_by_id = known.id, known.created_by_id
            variable.created_at.CopyFrom(known.created_at)
        variable.organization_id, variable.value = actor.organization_id, MASK
        self._variables[actor.organization_id, variable.id] = variable
        self._sealed[variable.id] = sealed
        return deepcopy(variable)

    async def find_variable(self, actor: Actor, variable_id: str) -> tuple[SandboxEnvironmentVariable, bytes] | None:
        """Return one variable and its sealed value."""
        found = self._variables.get((actor.organization_id, variable_id))
        return (deepcopy(found), self._sealed[variable_id]) if found else None

    async def update_variable(self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes) -> bool:
        """Write a variable; say whether there was one. Raises KeyTaken."""
        if (actor.organization_id, variable.id) not in self._variables:
            return False
        known = self._named(actor, variable)
        if known is not None and known.id != variable.id:
            raise KeyTaken
        self._variables[actor.organization_id, variable.id] = deepcopy(variable)
        self._sealed[variable.id] = sealed
        return True

    async def list_variables(self, actor: Actor, config_id: str, page: Page) -> list[SandboxEnvironmentVariable]:
        """Return a page of variables."""
        wanted = [item for item in self._variables_of(actor) if item.sandbox_config_id == config_id]
        return page.slice(deepcopy(wanted), key=lambda item: (time_of(item.created_at), item.id))

    async def delete_variable(self, actor: Actor, variable_id: str) -> bool:
        """Remove a variable; say whether there was one."""
        return self._variables.pop((actor.organization_id, variable_id), None) is not None

    async def find_kept(
        self, actor: Actor, kind: SandboxType.ValueType
    ) -> tuple[str, SandboxSettings, Mapping[str, bytes]] | None:
        """Return the id, settings and sealed variables of the configuration of a type."""
        config = next((item for item in self._mine(actor) if item.type == kind), None)
        if config is None:
            return None
        mine = [item for item in self._variables_of(actor) if item.sandbox_config_id == config.id]
        return config.id, deepcopy(config.config), {item.key: self._sealed[item.id] for item in mine}

    def _mine(self, actor: Actor) -> list[SandboxConfig]:
        return [item for (owner, _), item in self._configs.items() if owner == actor.organization_id]

    def _variables_of(self, actor: Actor) -> list[SandboxEnvironmentVariable]:
        return [item for (owner, _), item in self._variables.items() if owner == actor.organization_id]

    def _named(self, actor: Actor, variable: SandboxEnvironmentVariable) -> SandboxEnvironmentVariable | None:
        same = (variable.sandbox_config_id, variable.key)
        return next((item for item in self._variables_of(actor) if (item.sandbox_config_id, item.key) == same), None)
