"""Sandbox configurations and the environment variables of tools."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Protocol

from letta.compat.tools.v1.sandbox_pb2 import SandboxLanguage
from letta.tools.v1.sandbox_config_pb2 import (
    ModalSandboxConfig,
    SandboxConfig,
    SandboxEnvironmentVariable,
    SandboxSettings,
    SandboxType,
)
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
from letta_tools.domain.executions.surroundings import (
    RemoteSandboxConfig,
    Surroundings,
    kind_of,
    of_kind,
    requirement_of,
)
from letta_tools.domain.registry.requirements import check_npm, check_python

LOCAL, E2B, MODAL = SandboxType.SANDBOX_TYPE_LOCAL, SandboxType.SANDBOX_TYPE_E2B, SandboxType.SANDBOX_TYPE_MODAL
MASK = "********"
"""What callers see of the value of a variable."""
KINDS: Mapping[str, SandboxType.ValueType] = {"local": LOCAL, "e2b": E2B, "modal": MODAL}
"""Types of configurations by the names of their settings."""
# What V1 gives settings that nobody made.
_SECONDS = {"e2b": 300, "modal": 60}
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

    async def update(self, actor: Actor, config: SandboxConfig, *, expected: int) -> SandboxConfig | None:
        """Replace the settings of the one of a type if its version is still `expected`; return it as it stands then."""
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

    async def find_kept(
        self, actor: Actor, kind: SandboxType.ValueType
    ) -> tuple[str, SandboxSettings, Mapping[str, bytes]] | None:
        """Return the id, settings and sealed variables of the configuration of a type, in one statement."""
        ...


class SandboxConfigs:
    """Operations on configurations and variables."""

    def __init__(
        self,
        store: SandboxConfigStore,
        sealer: Sealer,
        clock: Clock,
        egress: EgressPolicy | None = None,
        kind: SandboxType.ValueType = LOCAL,
    ) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock
        self._egress = egress or EgressPolicy()
        # The other kinds may be kept too, but no call of this deployment runs there.
        self._kind = kind

    async def create(self, actor: Actor, settings: SandboxSettings) -> SandboxConfig:
        """Make a configuration, or replace the one of its type. Raises InvalidArgument."""
        return await self._store.put(actor, self._new(actor, settings))

    async def default(self, actor: Actor, settings: SandboxSettings) -> SandboxConfig:
        """Return the configuration of the type of some settings; make it of them when there is none."""
        found = await self._store.list_configs(actor, KINDS[kind_of(settings)], Page(limit=1))
        return found[0] if found else await self._store.create(actor, self._new(actor, settings))

    async def update(
        self, actor: Actor, config_id: str, given: SandboxSettings, paths: Collection[str]
    ) -> SandboxConfig:
        """Change settings of a configuration; the others stay, also those that somebody changes at the same time.

        Raises:
            SandboxConfigNotFound: there is no such configuration.
            InvalidArgument: its kind has no such settings, or they are not for this organization.
            StaleEtag: others write it again and again.
        """
        for _ in range(_ATTEMPTS):
            known = await self._get(actor, config_id)
            changed = self._new(actor, _changed(known.config, given, paths))
            written = await self._store.update(actor, changed, expected=known.version)
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
        """Return the variables of the kind of sandbox that calls run in."""
        return (await self.surroundings(actor)).variables

    async def surroundings(self, actor: Actor) -> Surroundings:
        """Return what the configuration of the kind of sandbox that calls run in gives them."""
        found = await self._store.find_kept(actor, self._kind)
        config_id, settings, sealed = found or ("", SandboxSettings(), {})
        variables = {key: self._opened(actor, config_id, key, value) for key, value in sealed.items()}
        opened = self._egress.ceiling.cut(settings.local.egress_hosts.hosts)
        return Surroundings(variables, Destinations(self._egress.operator, opened), settings)

    async def _get(self, actor: Actor, config_id: str) -> SandboxConfig:
        config = await self._store.find(actor, config_id)
        if config is None:
            raise _missing(config_id)
        return config

    def _new(self, actor: Actor, settings: SandboxSettings) -> SandboxConfig:
        _check_settings(settings)
        self._egress.ceiling.check(settings.local.egress_hosts.hosts)
        now = stamp_of(self._clock.now())
        return SandboxConfig(
            id=new_id("sandbox"),
            type=KINDS[kind_of(settings)],
            config=_completed(settings),
            version=1,
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


def _check_settings(settings: SandboxSettings) -> None:
    """Refuse packages that no tool could ask for either, and parts of seconds, which are not kept."""
    member = of_kind(settings)
    if isinstance(member, RemoteSandboxConfig) and member.timeout.nanos:
        raise InvalidArgument("the timeout is no whole number of seconds", field=f"config.{kind_of(settings)}.timeout")
    for package in member.pip_requirements.packages:
        check_python(requirement_of(package))
    for package in settings.modal.npm_requirements.packages:
        check_npm(requirement_of(package))


def _completed(settings: SandboxSettings) -> SandboxSettings:
    """Return settings with the defaults of what they leave out."""
    made = SandboxSettings()
    made.CopyFrom(settings)
    member = of_kind(made)
    if isinstance(member, RemoteSandboxConfig):
        if not member.HasField("timeout"):
            member.timeout.seconds = _SECONDS[kind_of(made)]
    else:
        member.pip_requirements.SetInParent()
    if isinstance(member, ModalSandboxConfig):
        member.compat.language = member.compat.language or SandboxLanguage.SANDBOX_LANGUAGE_PYTHON
    return made


def _changed(known: SandboxSettings, given: SandboxSettings, paths: Collection[str]) -> SandboxSettings:
    """Return the known settings with what a change names: whole settings with what they have, or one of them."""
    made = SandboxSettings()
    made.CopyFrom(known)
    for path in paths:
        kind, *inside = path.split(".")[1:] or [given.WhichOneof("kind") or kind_of(made)]
        source = getattr(given, kind)
        names = inside[:1] or [field.name for field, _ in source.ListFields()]
        target = of_kind(made)
        if lacking := [name for name in names if name not in target.DESCRIPTOR.fields_by_name]:
            raise InvalidArgument(f"a sandbox of {kind_of(made)} has no setting {lacking[0]}", field="config")
        # Keys alone cannot tell what kind settings are of that several kinds have.
        copy_paths(source, target, names)
    return made
