"""Settings of sandboxes as the database keeps them: a JSON object in the words of REST."""

from __future__ import annotations

import json
from typing import Any

from letta.compat.tools.v1.sandbox_pb2 import SandboxLanguage
from letta.tools.v1.sandbox_config_pb2 import (
    NamedPackage,
    SandboxPackage,
    SandboxPackages,
    SandboxSettings,
)
from letta_tools.domain.executions.surroundings import of_kind

_PREFIX = "SANDBOX_LANGUAGE_"
_LANGUAGE = "language"


def write_settings(settings: SandboxSettings) -> str:
    """Return settings as they are kept."""
    return json.dumps(dict(_plain(field.name, value) for field, value in of_kind(settings).ListFields()))


def read_settings(kind: str, kept: str) -> SandboxSettings:
    """Return the settings of a kind that were kept. What is not known or null is nothing said."""
    settings = SandboxSettings()
    member = getattr(settings, kind)
    member.SetInParent()
    for name, value in json.loads(kept).items():
        if value is not None and name in {*member.DESCRIPTOR.fields_by_name, _LANGUAGE}:
            _fill(member, name, value)
    return settings


def _plain(name: str, value: Any) -> tuple[str, Any]:
    """Return a setting as it is kept, and under which name."""
    if name == "timeout":
        return name, value.seconds
    if name == "compat":
        return _LANGUAGE, SandboxLanguage.Name(value.language).removeprefix(_PREFIX).lower()
    if name == "egress_hosts":
        return name, list(value.hosts)
    return name, [_plain_package(each) for each in value.packages] if isinstance(value, SandboxPackages) else value


def _plain_package(package: SandboxPackage) -> Any:
    if package.WhichOneof("package") == "specifier":
        return package.specifier
    named = package.named
    return {"name": named.name, "version": named.version} if named.HasField("version") else {"name": named.name}


def _fill(member: Any, name: str, value: Any) -> None:
    if name == _LANGUAGE:
        member.compat.language = SandboxLanguage.Value(f"{_PREFIX}{value.upper()}")
        return
    target = getattr(member, name)
    if name == "timeout":
        target.seconds = value
    elif name == "egress_hosts":
        target.SetInParent()
        target.hosts.extend(value)
    elif isinstance(target, SandboxPackages):
        target.SetInParent()
        target.packages.extend(map(_package, value))
    else:
        setattr(member, name, value)


def _package(kept: Any) -> SandboxPackage:
    if isinstance(kept, str):
        return SandboxPackage(specifier=kept)
    return SandboxPackage(named=NamedPackage(name=kept["name"], version=kept.get("version")))
