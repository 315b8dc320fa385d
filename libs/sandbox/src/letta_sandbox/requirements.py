"""What packages a call may ask an installer for: requirements, written down anew so that nothing else is in them."""

from __future__ import annotations

import re

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from letta_common.errors import InvalidArgument

_LONGEST = 512
_LONGEST_SHOWN = 120
# Nothing that a requirements file gives a meaning: options, comments, variables, paths, addresses, continued lines.
_PLAIN = re.compile(r"""(?!.*[ ]-)[A-Za-z0-9 ._,*+!<>=~()\[\]"';-]+""")


def read_python(text: str) -> str:
    """Return a requirement put together anew from its parts, as one line that is nothing else.

    Raises:
        InvalidArgument: it is no requirement of a package of the index: an address, a path, an option, several lines.
    """
    stripped = text.strip(" ")
    if len(stripped) > _LONGEST:
        raise not_a_requirement(text, f"it is longer than {_LONGEST} characters")
    if not stripped.isprintable():
        raise not_a_requirement(text, "it has control characters")
    try:
        parsed = Requirement(stripped)
    except (InvalidRequirement, RecursionError) as error:
        raise not_a_requirement(text, "name a package and versions") from error
    if parsed.url is not None:
        raise not_a_requirement(text, "packages come from the index alone, never from an address")
    extras = f"[{','.join(sorted(map(canonicalize_name, parsed.extras)))}]" if parsed.extras else ""
    marker = f"; {parsed.marker}" if parsed.marker else ""
    line = f"{canonicalize_name(parsed.name)}{extras}{parsed.specifier}{marker}"
    if not _PLAIN.fullmatch(line):
        raise not_a_requirement(text, "it has characters that no name, version or marker needs")
    return line


def not_a_requirement(text: str, why: str) -> InvalidArgument:
    """Return the refusal of what is no requirement."""
    shown = text[:_LONGEST_SHOWN]
    return InvalidArgument(f"{shown!r} is not a requirement such as `requests>=2,<3`: {why}", requirement=shown)
