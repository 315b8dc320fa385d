"""What an organization gives every call of its tools: the configuration of the sandbox that calls run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from letta.tools.v1.sandbox_config_pb2 import (
    E2bSandboxConfig,
    LocalSandboxConfig,
    ModalSandboxConfig,
    SandboxPackage,
    SandboxSettings,
)
from letta_common.actor import Actor
from letta_sandbox.calls import Limits
from letta_sandbox.destinations import Destinations
from letta_tools.domain.registry.records import Requirement

RemoteSandboxConfig = E2bSandboxConfig | ModalSandboxConfig
"""Settings of sandboxes that bound a call."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Environment variables, what may be reached over the network, and the settings of the sandbox."""

    variables: Mapping[str, str] = field(default_factory=dict)
    destinations: Destinations = field(default_factory=Destinations)
    settings: SandboxSettings = field(default_factory=SandboxSettings)

    @property
    def pip_requirements(self) -> Sequence[Requirement]:
        """Python packages of every tool."""
        return [requirement_of(each) for each in of_kind(self.settings).pip_requirements.packages]

    @property
    def npm_requirements(self) -> Sequence[Requirement]:
        """Node packages of every tool."""
        return [requirement_of(each) for each in self.settings.modal.npm_requirements.packages]

    @property
    def template(self) -> str:
        """What machines are made of; nothing where the deployment says it."""
        return self.settings.e2b.template

    def bounded(self, limits: Limits) -> Limits:
        """Return limits of a call with no more time than the settings give it; zero and less give what it has."""
        member = of_kind(self.settings)
        seconds = member.timeout.ToNanoseconds() / 1e9 if isinstance(member, RemoteSandboxConfig) else 0.0
        return replace(limits, timeout_seconds=seconds) if 0 < seconds < limits.timeout_seconds else limits


class Environment(Protocol):
    """What an organization gives its tools."""

    async def variables(self, actor: Actor) -> Mapping[str, str]:
        """Return names and values of environment variables."""
        ...

    async def surroundings(self, actor: Actor) -> Surroundings:
        """Return what calls in a sandbox find there."""
        ...


def kind_of(settings: SandboxSettings) -> str:
    """Return the name of the kind of sandbox that settings are of."""
    return settings.WhichOneof("kind") or "local"


def of_kind(settings: SandboxSettings) -> LocalSandboxConfig | RemoteSandboxConfig:
    """Return the settings of the kind that they are of, the message itself."""
    member: LocalSandboxConfig | RemoteSandboxConfig = getattr(settings, kind_of(settings))
    return member


def requirement_of(package: SandboxPackage) -> Requirement:
    """Return a package as tools name theirs."""
    named = package.named
    return Requirement(named.name, named.version) if package.HasField("named") else Requirement(package.specifier)
