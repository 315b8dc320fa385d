"""Requirements of tools: what may be written down."""

from __future__ import annotations

import re
from collections.abc import Iterable

from packaging.requirements import Requirement as Parsed
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from letta_sandbox.requirements import not_a_requirement, read_python
from letta_tools.domain.registry.records import Requirement

_NPM_NAME = re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_NPM_VERSION = re.compile(r"(?:[A-Za-z0-9+~^*][A-Za-z0-9.+~^*_-]*)?")


def check_python(requirement: Requirement) -> None:
    """Refuse a package whose name or version is none. Raises InvalidArgument."""
    if requirement.version:
        try:
            # `1.2.*` may be required but is no version by itself.
            Version(requirement.version.removesuffix(".*"))
        except InvalidVersion as error:
            raise not_a_requirement(requirement.specifier(), f"{requirement.version!r} is no version") from error
    read_python(requirement.specifier())


def check_npm(requirement: Requirement) -> None:
    """Refuse a package whose name or version is none. Raises InvalidArgument."""
    if not _NPM_NAME.fullmatch(requirement.name) or not _NPM_VERSION.fullmatch(requirement.version):
        raise not_a_requirement(requirement.specifier(), "name a package and a version")


def joined_python(own: Iterable[Requirement], common: Iterable[Requirement]) -> tuple[str, ...]:
    """Return specifiers of the packages of a tool, and of those of all tools that it does not name itself."""
    mine = [item.specifier() for item in own]
    names = {_name_of(text) for text in mine}
    others = (item.specifier() for item in common)
    return (*mine, *(text for text in others if _name_of(text) not in names))


def _name_of(specifier: str) -> str:
    return canonicalize_name(Parsed(read_python(specifier)).name)
