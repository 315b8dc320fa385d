"""What an organization gives every call of its tools: the configuration of the sandbox that calls run in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from letta.tools.v1.sandbox_config_pb2 import SandboxPackage, SandboxSettings
from letta_common.actor import Actor
from letta_sandbox.calls import Limits
from letta_sandbox.destinations import Destinations
from letta_tools.domain.registry.records import Requirement


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Environment variables, what may be reached over the network, and the settings of the sandbox."""

    variables: Mapping[str, str] = field(default_factory=dict)
    destinations: Destinations = field(default_factory=Destinations)
    settings: SandboxSettings = field(default_factory=SandboxSettings)

    @property
    def pip_requirements(self) -> Sequence[Requirement]:
        """Python packages of every tool."""
        settings = self.settings
        of_kind = {
            "e2b": settings.e2b.pip_requirements,
            "modal": settings.modal.pip_requirements,
            "local": settings.local.pip_requirements,
        }
        return [requirement_of(each) for each in of_kind[settings.WhichOneof("kind") or "local"].packages]

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
        for member in (self.settings.e2b, self.settings.modal):
            seconds = member.timeout.ToNanoseconds() / 1e9
            if 0 < seconds < limits.timeout_seconds:
                limits = replace(limits, timeout_seconds=seconds)
        return limits


class Environment(Protocol):
    """What an organization gives its tools."""

    async def variables(self, actor: Actor) -> Mapping[str, str]:
        """Return names and values of environment variables."""
        ...

    async def surroundings(self, actor: Actor) -> Surroundings:
        """Return what calls in a sandbox find there."""
        ...


def requirement_of(package: SandboxPackage) -> Requirement:
    """Return a package as tools name theirs."""
    named = package.named
    return Requirement(named.name, named.version) if package.HasField("named") else Requirement(package.specifier)
