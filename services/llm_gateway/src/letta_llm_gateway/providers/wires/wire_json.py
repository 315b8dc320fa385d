"""JSON of vendors, read so that nothing in it harms who reads on."""

from __future__ import annotations

import json
import math
from typing import Any

import orjson

from letta_common.errors import LLMInvalidResponse

MOST_COUNT = 10_000_000
"""More tokens than any model takes or makes; a larger count is none."""


def read(data: bytes | str, vendor: str) -> Any:
    """Return what a vendor wrote; numbers that JSON does not have are null. Raises LLMInvalidResponse."""
    try:
        return orjson.loads(data)
    except ValueError:  # halves of characters, numbers without end, other bytes than UTF-8: read patiently
        text = data if isinstance(data, str) else data.decode("utf-8", "replace")
    try:
        return json.loads(text, parse_constant=lambda _: None, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise LLMInvalidResponse(f"{vendor} answered something that is no JSON", provider=vendor) from error


def clean(text: str) -> str:
    """Return a text without halves of characters, which nothing can encode."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def whole(value: Any) -> Any:
    """Return a JSON value without halves of characters."""
    return json.loads(clean(json.dumps(value, ensure_ascii=False)))


def finite(text: str) -> float | None:
    """Return a number; None for one that is too large."""
    value = float(text)
    return value if math.isfinite(value) else None


def count(value: Any) -> int:
    """Return a number of tokens; 0 for what cannot be one."""
    # `True` is a whole number to Python.
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
