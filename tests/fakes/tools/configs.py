"""Sandbox configurations in memory, for tests."""

from __future__ import annotations

from dataclasses import replace

from letta_common.actor import Actor
from letta_common.values.paging import Page
from letta_tools.domain.executions.sandbox_configs import EnvironmentVariable, KeyTaken, SandboxConfig


class FakeSandboxConfigStore:
    """Configurations and variables by organization and id."""

    def __init__(self) -> None:
        self._configs: dict[tuple[str, str], SandboxConfig] = {}
        self._variables: dict[tuple[str, str], EnvironmentVariable] = {}

    async def put(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration, or replace the settings of the one of its type; return it as it stands."""
        known = next((item for item in self._mine(actor) if item.type == config.type), None)
        if known is not None:
            config = replace(
                config,
                id=known.id,
                version=known.version + 1,
                created_at=known.created_at,
                created_by_id=known.created_by_id,
            )
        self._configs[actor.organization_id, config.id] = config
        return config

    async def find(self, actor: Actor, config_id: str) -> SandboxConfig | None:
        """Return one configuration."""
        return self._configs.get((actor.organization_id, config_id))

    async def list_configs(self, actor: Actor, kind: str, page: Page) -> list[SandboxConfig]:
        """Return a page of configurations, of one type if `kind` is not empty."""
        wanted = [item for item in self._mine(actor) if not kind or item.type == kind]
        return page.slice(wanted, key=lambda item: (item.created_at, item.id))

    async def delete(self, actor: Actor, config_id: str) -> bool:
        """Remove a configuration with its variables; say whether there was one."""
        for variable in await self.list_variables(actor, config_id, Page(limit=1000)):
            await self.delete_variable(actor, variable.id)
        return self._configs.pop((actor.organization_id, config_id), None) is not None

    async def put_variable(self, actor: Actor, variable: EnvironmentVariable) -> EnvironmentVariable:
        """Add a variable, or replace the one of its name; return it as it stands."""
        known = self._named(actor, variable)
        if known is not None:
            variable = replace(variable, id=known.id, created_at=known.created_at, created_by_id=known.created_by_id)
        self._variables[actor.organization_id, variable.id] = variable
        return variable

    async def find_variable(self, actor: Actor, variable_id: str) -> EnvironmentVariable | None:
        """Return one variable."""
        return self._variables.get((actor.organization_id, variable_id))

    async def update_variable(self, actor: Actor, variable: EnvironmentVariable) -> bool:
        """Write a variable; say whether there was one. Raises KeyTaken."""
        if (actor.organization_id, variable.id) not in self._variables:
            return False
        known = self._named(actor, variable)
        if known is not None and known.id != variable.id:
            raise KeyTaken
        self._variables[actor.organization_id, variable.id] = variable
        return True

    async def list_variables(self, actor: Actor, config_id: str, page: Page) -> list[EnvironmentVariable]:
        """Return a page of variables."""
        wanted = [item for item in self._variables_of(actor) if item.sandbox_config_id == config_id]
        return page.slice(wanted, key=lambda item: (item.created_at, item.id))

    async def delete_variable(self, actor: Actor, variable_id: str) -> bool:
        """Remove a variable; say whether there was one."""
        return self._variables.pop((actor.organization_id, variable_id), None) is not None

    async def list_values(self, actor: Actor, kind: str) -> list[tuple[str, str, bytes]]:
        """Return configuration, name and value of the variables of the configuration of a type."""
        ids = {item.id for item in self._mine(actor) if item.type == kind}
        return [
            (item.sandbox_config_id, item.key, item.value)
            for item in self._variables_of(actor)
            if item.sandbox_config_id in ids
        ]

    def _mine(self, actor: Actor) -> list[SandboxConfig]:
        return [item for (owner, _), item in self._configs.items() if owner == actor.organization_id]

    def _variables_of(self, actor: Actor) -> list[EnvironmentVariable]:
        return [item for (owner, _), item in self._variables.items() if owner == actor.organization_id]

    def _named(self, actor: Actor, variable: EnvironmentVariable) -> EnvironmentVariable | None:
        same = (variable.sandbox_config_id, variable.key)
        return next((item for item in self._variables_of(actor) if (item.sandbox_config_id, item.key) == same), None)
