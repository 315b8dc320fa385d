"""JSON of vendors, read so that nothing in it harms who reads on."""

from __future__ import annotations

import json
import math
from typing import Any

from letta_common.errors import LLMInvalidResponse

MOST_COUNT = 10_000_000
"""More tokens than any model takes or makes; a larger count is none."""


def read(data: bytes | str, vendor: str) -> Any:
    """Return what a vendor wrote; numbers that JSON does not have are null. Raises LLMInvalidResponse."""
    text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise LLMInvalidResponse(f"{vendor} answered something that is no JSON", provider=vendor) from error


def finite(text: str) -> float | None:
    """Return a number; None for one that is too large."""
    value = float(text)
    return value if math.isfinite(value) else None


def count(value: Any) -> int:
    """Return a number of tokens; 0 for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= MOST_COUNT:
        return 0
    return int(value)


def table(value: Any) -> dict[str, Any]:
    """Return a JSON object; an empty one for anything else."""
    return value if isinstance(value, dict) else {}


def rows(value: Any) -> list[dict[str, Any]]:
    """Return the JSON objects of a list; none for anything else."""
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


def words(value: Any) -> str:
    """Return a text; an empty one for anything else."""
    return value if isinstance(value, str) else ""
