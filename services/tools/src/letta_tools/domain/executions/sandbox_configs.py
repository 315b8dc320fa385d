"""Sandbox configurations and the environment variables of tools."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from typing import Protocol

from letta.tools.v1.sandbox_config_pb2 import SandboxConfig, SandboxEnvironmentVariable, SandboxType
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AlreadyExists, InvalidArgument, SandboxConfigNotFound, StaleEtag
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_rpc.masks import copy_paths
from letta_sandbox.destinations import Destinations
from letta_tools.domain.executions.egress import EgressPolicy
from letta_tools.domain.registry.records import Requirement
from letta_tools.domain.registry.requirements import check_npm, check_python

LOCAL, E2B, MODAL = SandboxType.SANDBOX_TYPE_LOCAL, SandboxType.SANDBOX_TYPE_E2B, SandboxType.SANDBOX_TYPE_MODAL
MASK = "********"
"""What callers see of the value of a variable."""
# The settings that V1 knows, with the values that it gives them.
_DEFAULTS: Mapping[SandboxType.ValueType, Mapping[str, object]] = {
    LOCAL: {"sandbox_dir": None, "use_venv": False, "venv_name": "venv", "pip_requirements": []},
    E2B: {"timeout": 300, "template": None, "pip_requirements": None},
    MODAL: {"timeout": 60, "pip_requirements": None, "npm_requirements": None, "language": "python"},
}
# Settings that configurations may have besides, which V1 did not know.
_MORE: Mapping[SandboxType.ValueType, tuple[str, ...]] = {LOCAL: ("egress_hosts",)}
_ANY = SandboxType.SANDBOX_TYPE_UNSPECIFIED
# So often settings are merged anew when somebody else wrote them meanwhile.
_ATTEMPTS = 5
# An equals sign or a NUL would end the name in the environment of a process.
_NAME = re.compile(r"[^=\x00-\x1f\x7f]{1,256}")


VARIABLES = "tools.environment_variables.value"


class KeyTaken(Exception):
    """The configuration has a variable of this name."""


class SandboxConfigStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def put(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration, or replace the settings of the one of its type; return it as it stands."""
        ...

    async def create(self, actor: Actor, config: SandboxConfig) -> SandboxConfig:
        """Add a configuration unless there is one of its type, which stays; return the one that is there."""
        ...

    async def update(self, actor: Actor, config: SandboxConfig, *, expected: str) -> SandboxConfig | None:
        """Replace the settings of the one of a type if they still are `expected`; return it as it stands then."""
        ...

    async def find(self, actor: Actor, config_id: str) -> SandboxConfig | None:
        """Return one configuration."""
        ...

    async def list_configs(self, actor: Actor, kind: SandboxType.ValueType, page: Page) -> list[SandboxConfig]:
        """Return a page of configurations, of one type unless it is unspecified. Raises CursorNotFound."""
        ...

    async def delete(self, actor: Actor, config_id: str) -> bool:
        """Remove a configuration with its variables; say whether there was one."""
        ...

    async def put_variable(
        self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes
    ) -> SandboxEnvironmentVariable:
        """Add a variable, or replace the one of its name; return it as it stands."""
        ...

    async def find_variable(self, actor: Actor, variable_id: str) -> tuple[SandboxEnvironmentVariable, bytes] | None:
        """Return one variable and its sealed value."""
        ...

    async def update_variable(self, actor: Actor, variable: SandboxEnvironmentVariable, sealed: bytes) -> bool:
        """Write a variable; say whether there was one. Raises KeyTaken."""
        ...

    async def list_variables(self, actor: Actor, config_id: str, page: Page) -> list[SandboxEnvironmentVariable]:
        """Return a page of variables. Raises CursorNotFound."""
        ...

    async def delete_variable(self, actor: Actor, variable_id: str) -> bool:
        """Remove a variable; say whether there was one."""
        ...

    async def list_values(self, actor: Actor, kind: SandboxType.ValueType) -> list[tuple[str, str, bytes]]:
        """Return configurations, names and values of the variables of the configuration of a type, in one statement."""
        ...


class SandboxConfigs:
    """Operations on configurations and variables."""

    def __init__(
        self, store: SandboxConfigStore, sealer: Sealer, clock: Clock, egress: EgressPolicy | None = None
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._egress = egress or EgressPolicy()

    async def create(self, actor: Actor, config: str, kind: SandboxType.ValueType = _ANY) -> SandboxConfig:
        """Make a configuration, or replace the one of its type. Raises InvalidArgument."""
        given = _settings(config)
        return await self._store.put(actor, self._new(actor, kind or _kind_of(given), given))

    async def default(self, actor: Actor, kind: SandboxType.ValueType) -> SandboxConfig:
        """Return the configuration of a type; make it when there is none."""
        found = await self._store.list_configs(actor, kind, Page(limit=1))
        return found[0] if found else await self._store.create(actor, self._new(actor, kind, {}))

    async def update(self, actor: Actor, config_id: str, config: str) -> SandboxConfig:
        """Change settings of a configuration; the others stay, also those that somebody changes at the same time.

        Raises:
            SandboxConfigNotFound: there is no such configuration.
            InvalidArgument: the settings are none, or not for this organization.
            StaleEtag: others write it again and again.
        """
        given = _settings(config)
        for _ in range(_ATTEMPTS):
            known = await self._get(actor, config_id)
            changed = self._new(actor, known.type, json.loads(known.config) | given)
            written = await self._store.update(actor, changed, expected=known.config)
            if written is not None:
                return written
        raise StaleEtag(f"{config_id} is being written by others; try again", sandbox_config_id=config_id)

    async def delete(self, actor: Actor, config_id: str) -> None:
        """Remove a configuration with its variables. Raises SandboxConfigNotFound."""
        if not await self._store.delete(actor, config_id):
            raise _missing(config_id)

    async def set_variable(
        self, actor: Actor, config_id: str, given: SandboxEnvironmentVariable
    ) -> SandboxEnvironmentVariable:
        """Add a variable, or replace the one of its name. Raises SandboxConfigNotFound, InvalidArgument."""
        await self._get(actor, config_id)
        now = stamp_of(self._clock.now())
        variable = SandboxEnvironmentVariable(
            id=new_id("sandbox-env"),
            sandbox_config_id=config_id,
            key=_key(given.key),
            description=given.description if given.HasField("description") else None,
            created_by_id=actor.user_id,
            last_updated_by_id=actor.user_id,
            created_at=now,
            updated_at=now,
        )
        return await self._store.put_variable(actor, variable, self._sealed(actor, variable, given.value))

    async def update_variable(
        self, actor: Actor, variable_id: str, given: SandboxEnvironmentVariable, paths: Collection[str]
    ) -> SandboxEnvironmentVariable:
        """Change key, value or description of a variable; a masked value stays as it is.

        Raises:
            SandboxConfigNotFound: there is no such variable.
            AlreadyExists: the configuration has another one of the new name.
        """
        found = await self._store.find_variable(actor, variable_id)
        if found is None:
            raise _missing(variable_id)
        written, sealed = found
        value = given.value if "value" in paths and given.value != MASK else None
        if "key" in paths and given.key:
            if value is None:  # it is sealed for its name
                value = self._opened(actor, written.sandbox_config_id, written.key, sealed)
            written.key = _key(given.key)
        if value is not None:
            sealed = self._sealed(actor, written, value)
        if "description" in paths:
            copy_paths(given, written, ["description"])
        written.last_updated_by_id = actor.user_id
        written.updated_at.FromDatetime(self._clock.now())
        try:
            if not await self._store.update_variable(actor, written, sealed):
                raise _missing(variable_id)
        except KeyTaken as error:
            raise AlreadyExists(f"there is a variable `{written.key}` already", key=written.key) from error
        return written

    async def find_variables(self, actor: Actor, config_id: str, page: Page) -> list[SandboxEnvironmentVariable]:
        """Return a page of variables. Raises SandboxConfigNotFound, CursorNotFound."""
        await self._get(actor, config_id)
        return await self._store.list_variables(actor, config_id, page)

    async def delete_variable(self, actor: Actor, variable_id: str) -> None:
        """Remove a variable. Raises SandboxConfigNotFound."""
        if not await self._store.delete_variable(actor, variable_id):
            raise _missing(variable_id)

    async def variables(self, actor: Actor) -> Mapping[str, str]:
        """Return the variables of the local sandbox."""
        sealed = await self._store.list_values(actor, LOCAL)
        return {key: self._opened(actor, config_id, key, value) for config_id, key, value in sealed}

    async def destinations(self, actor: Actor) -> Destinations:
        """Return what the organization's tools may reach."""
        # Saves each call a statement where organizations may open nothing.
        if not self._egress.ceiling.destinations:
            return Destinations(self._egress.operator)
        found = await self._store.list_configs(actor, LOCAL, Page(limit=1))
        texts = _hosts(json.loads(found[0].config)) if found else []
        return Destinations(self._egress.operator, self._egress.ceiling.cut(texts))

    async def _get(self, actor: Actor, config_id: str) -> SandboxConfig:
        config = await self._store.find(actor, config_id)
        if config is None:
            raise _missing(config_id)
        return config

    def _new(self, actor: Actor, kind: SandboxType.ValueType, given: Mapping[str, object]) -> SandboxConfig:
        _check_packages(given)
        if kind == LOCAL:
            self._egress.ceiling.check(_hosts(given))
        now = stamp_of(self._clock.now())
        return SandboxConfig(
            id=new_id("sandbox"),
            type=kind,
            config=json.dumps({**_DEFAULTS[kind], **given}),
            created_by_id=actor.user_id,
            last_updated_by_id=actor.user_id,
            created_at=now,
            updated_at=now,
        )

    def _opened(self, actor: Actor, config_id: str, key: str, sealed: bytes) -> str:
        return self._sealer.open(_place(actor, config_id, key), sealed).decode()

    def _sealed(self, actor: Actor, variable: SandboxEnvironmentVariable, value: str) -> bytes:
        if "\0" in value:
            raise InvalidArgument("the value holds a NUL character", field="value")
        return self._sealer.seal(_place(actor, variable.sandbox_config_id, variable.key), value.encode())


def _place(actor: Actor, config_id: str, key: str) -> SealedAt:
    return SealedAt(VARIABLES, actor.organization_id, f"{config_id}/{key}")


def _missing(id: str) -> SandboxConfigNotFound:
    return SandboxConfigNotFound(f"there is nothing of the id {id}", sandbox_config_id=id)


def _key(key: str) -> str:
    if not _NAME.fullmatch(key):
        raise InvalidArgument(f"{key[:100]!r} is no name of an environment variable", field="key")
    return key


def _check_packages(given: Mapping[str, object]) -> None:
    """Refuse packages that no tool could ask for either."""
    for name, check in (("pip_requirements", check_python), ("npm_requirements", check_npm)):
        packages = given.get(name) or []
        if not isinstance(packages, list):
            raise InvalidArgument(f"{name} must be a list", field=f"config.{name}")
        for package in packages:
            parts = package if isinstance(package, dict) else {"name": package}
            called, version = parts.get("name"), parts.get("version") or ""
            if not isinstance(called, str) or not isinstance(version, str):
                raise InvalidArgument(f"{name} must name packages and versions", field=f"config.{name}")
            check(Requirement(called, version))


def _settings(config: str) -> dict[str, object]:
    try:
        value = json.loads(config or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidArgument("config is not JSON", field="config") from error
    if not isinstance(value, dict):
        raise InvalidArgument("config must be a JSON object", field="config")
    return value


def _hosts(given: Mapping[str, object]) -> list[str]:
    hosts = given.get("egress_hosts") or []
    if not isinstance(hosts, list) or not all(isinstance(host, str) for host in hosts):
        raise InvalidArgument("egress_hosts must be a list of texts", field="egress_hosts")
    return hosts


def _kind_of(given: Mapping[str, object]) -> SandboxType.ValueType:
    """Tell the type by the keys; the first type that knows them all."""
    for kind in (LOCAL, E2B, MODAL):
        if given.keys() <= {*_DEFAULTS[kind], *_MORE.get(kind, ())}:
            return kind
    raise InvalidArgument(f"no sandbox has all of the settings {', '.join(sorted(given))}", field="config")
