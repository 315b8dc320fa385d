"""JSON that others wrote, read with a limit on how deep it nests."""

from __future__ import annotations

import json
from typing import Any

MOST_DEPTH = 100
"""Deeper documents are refused by JSON libraries that read them later."""


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text is; None for anything else, and for one that nests too deep."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) and not too_deep(value) else None


def too_deep(value: Any, most: int = MOST_DEPTH) -> bool:
    """Say whether a value has more than so many levels of lists and objects."""
    level = [value]
    for _ in range(most + 1):
        inner: list[Any] = []
        for each in level:
            if isinstance(each, dict):
                inner.extend(each.values())
            elif isinstance(each, list):
                inner.extend(each)
        if not inner:
            return False
        level = inner
    return any(isinstance(each, (dict, list)) for each in level)
