"""No field of the contracts always holds one value, is the older name of another one, or changes nothing."""

from __future__ import annotations

import re

from scripts.contracts import ROOT

_TELLS = re.compile(
    r"always (null|false|true|empty|absent|`)|without effect|no effect|older name|kept for clients|words of V1",
    re.IGNORECASE,
)
_FIELD = re.compile(r"^\s*(?:optional |repeated )?[\w.]+(?:<[^>]*>)? (\w+) = \d+")
_MESSAGE = re.compile(r"^message (\w+) \{")


def told() -> set[str]:
    """Return the fields whose comment tells that they have no meaning of their own."""
    found = set()
    for path in sorted((ROOT / "proto" / "letta").rglob("*.proto")):
        message, comment = "", ""
        for line in path.read_text().splitlines():
            if begun := _MESSAGE.match(line):
                message = begun[1]
            if line.strip().startswith("//"):
                comment += f"{line.strip().removeprefix('//')} "
                continue
            if (field := _FIELD.match(line)) and _TELLS.search(comment):
                found.add(f"{message}.{field[1]}")
            comment = ""
    return found


def test_fields_mean_something():
    assert not told()
