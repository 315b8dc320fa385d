"""Requirements of tools: what may be written down."""

from __future__ import annotations

import re

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
