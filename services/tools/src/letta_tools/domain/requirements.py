"""Requirements of tools: what a tenant may ask an installer for, and how it is written down for one."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement
from packaging.requirements import Requirement as PythonRequirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from letta_common.errors import InvalidArgument
from letta_tools.domain.tool_records import Requirement

_LONGEST = 512
_LONGEST_SHOWN = 120
# Nothing that a requirements file gives a meaning: options, comments, variables, paths, addresses, continued lines.
_PLAIN = re.compile(r"""(?!.*[ ]-)[A-Za-z0-9 ._,*+!<>=~()\[\]"';-]+""")
_NPM_NAME = re.compile(r"(?:@[a-z0-9~][a-z0-9._~-]*/)?[a-z0-9~][a-z0-9._~-]*")
_NPM_VERSION = re.compile(r"(?:[A-Za-z0-9+~^*][A-Za-z0-9.+~^*_-]*)?")


def read_python(text: str) -> str:
    """Return a requirement put together anew from its parts, as one line that is nothing else.

    Raises:
        InvalidArgument: it is no requirement of a package of the index: an address, a path, an option, several lines.
    """
    stripped = text.strip(" ")
    if len(stripped) > _LONGEST:
        raise _refusal(text, f"it is longer than {_LONGEST} characters")
    if not stripped.isprintable():
        raise _refusal(text, "it has control characters")
    try:
        parsed = PythonRequirement(stripped)
    except (InvalidRequirement, RecursionError) as error:
        raise _refusal(text, "name a package and versions") from error
    if parsed.url is not None:
        raise _refusal(text, "packages come from the index alone, never from an address")
    extras = f"[{','.join(sorted(map(canonicalize_name, parsed.extras)))}]" if parsed.extras else ""
    marker = f"; {parsed.marker}" if parsed.marker else ""
    line = f"{canonicalize_name(parsed.name)}{extras}{parsed.specifier}{marker}"
    if not _PLAIN.fullmatch(line):
        raise _refusal(text, "it has characters that no name, version or marker needs")
    return line


def check_python(requirement: Requirement) -> None:
    """Refuse a package whose name or version is none. Raises InvalidArgument."""
    if requirement.version:
        try:
            Version(requirement.version.removesuffix(".*"))
        except InvalidVersion as error:
            raise _refusal(requirement.specifier(), f"{requirement.version!r} is no version") from error
    read_python(requirement.specifier())


def check_npm(requirement: Requirement) -> None:
    """Refuse a package whose name or version is none. Raises InvalidArgument."""
    if not _NPM_NAME.fullmatch(requirement.name) or not _NPM_VERSION.fullmatch(requirement.version):
        raise _refusal(requirement.specifier(), "name a package and a version")


def _refusal(text: str, why: str) -> InvalidArgument:
    shown = text[:_LONGEST_SHOWN]
    return InvalidArgument(f"{shown!r} is not a requirement such as `requests>=2,<3`: {why}", requirement=shown)
