"""References within the schema of a tool."""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

_ANCHORS = ("$anchor", "$dynamicAnchor", "$id")


def resolve(root: Any, ref: str) -> Any:
    """Return what a reference within a schema names; None for others, which nobody fetches."""
    place, _, inside = ref.partition("#")
    if place and place != root.get("$id"):
        return _anchored(root, ref)
    if inside and not inside.startswith("/"):
        return _anchored(root, inside)
    found: Any = root
    for step in inside.split("/")[1:]:
        name = unquote(step).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and name in found:
            found = found[name]
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found


def _anchored(root: Any, name: str) -> Any:
    """Return the schema that has a name of its own."""
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if isinstance(each, dict):
            if name in (each.get(key) for key in _ANCHORS):
                return each
            waiting.extend(each.values())
        elif isinstance(each, list):
            waiting.extend(each)
    return None
