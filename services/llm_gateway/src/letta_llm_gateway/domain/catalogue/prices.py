"""What tokens cost: list prices by vendor and name, and the deployment's own on top of them.

Source: the vendors' public price pages as they stood in October 2025, from memory of them; standard tier, the cheaper
step where a price depends on the length of the prompt, caches of five minutes. Prices change: a deployment that bills
by them sets its own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from functools import lru_cache
from pathlib import Path
from typing import Any

from letta.common.v1.usage_pb2 import TokenUsage
from letta_common.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens. Where a kind of token has no price of its own, the usual one holds."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None

    def cost(self, used: TokenUsage) -> int:
        """Return what a call costs, in millionths of a dollar, rounded."""
        cached, written = used.cached_input_tokens, used.cache_write_tokens
        said, thought = used.completion_tokens, used.reasoning_tokens
        return round(
            max(0, used.prompt_tokens - cached - written) * self.input
            + cached * _or(self.cached_input, self.input)
            + written * _or(self.cache_write, self.input)
            + max(0, said - thought) * self.output
            + min(thought, said) * _or(self.reasoning, self.output)
        )


def _or(price: float | None, usual: float) -> float:
    return usual if price is None else price


_OPENAI = (
    (r"gpt-5(\.\d+)?-pro", Price(15.00, 120.00)),
    (r"gpt-5(\.\d+)?-nano", Price(0.05, 0.40, 0.005)),
    (r"gpt-5(\.\d+)?-mini", Price(0.25, 2.00, 0.025)),
    (r"gpt-5(\.1)?(-chat|-codex|-\d{4}|$)", Price(1.25, 10.00, 0.125)),
    (r"gpt-4\.1-nano", Price(0.10, 0.40, 0.025)),
    (r"gpt-4\.1-mini", Price(0.40, 1.60, 0.10)),
    (r"gpt-4\.1", Price(2.00, 8.00, 0.50)),
    (r"gpt-4o-mini", Price(0.15, 0.60, 0.075)),
    (r"gpt-4o", Price(2.50, 10.00, 1.25)),
    (r"chatgpt-4o", Price(5.00, 15.00)),
    (r"gpt-4-turbo", Price(10.00, 30.00)),
    (r"gpt-4-32k", Price(60.00, 120.00)),
    (r"gpt-4(-\d{4}|$)", Price(30.00, 60.00)),
    (r"gpt-3\.5-turbo", Price(0.50, 1.50)),
    (r"o4-mini", Price(1.10, 4.40, 0.275)),
    (r"o3-pro", Price(20.00, 80.00)),
    (r"o3-mini", Price(1.10, 4.40, 0.55)),
    (r"o3(-\d{4}|$)", Price(2.00, 8.00, 0.50)),
    (r"o1-pro", Price(150.00, 600.00)),
    (r"o1-mini", Price(1.10, 4.40, 0.55)),
    (r"o1(-\d{4}|-preview|$)", Price(15.00, 60.00, 7.50)),
    (r"text-embedding-3-small", Price(0.02, 0.0)),
    (r"text-embedding-3-large", Price(0.13, 0.0)),
    (r"text-embedding-ada-002", Price(0.10, 0.0)),
)
_CLAUDE = (
    (r"claude-opus-4-5", Price(5.00, 25.00, 0.50, 6.25)),
    (r"claude-(opus-4(-[01])?(-\d{8}|@|$|-v)|3-opus)", Price(15.00, 75.00, 1.50, 18.75)),
    (r"claude-(sonnet-4|3-7-sonnet|3-5-sonnet)", Price(3.00, 15.00, 0.30, 3.75)),
    (r"claude-haiku-4-5", Price(1.00, 5.00, 0.10, 1.25)),
    (r"claude-3-5-haiku", Price(0.80, 4.00, 0.08, 1.00)),
    (r"claude-3-haiku", Price(0.25, 1.25, 0.03, 0.30)),
)
_GEMINI = (
    (r"gemini-2\.5-pro", Price(1.25, 10.00, 0.125)),
    (r"gemini-2\.5-flash-lite", Price(0.10, 0.40, 0.01)),
    (r"gemini-2\.5-flash", Price(0.30, 2.50, 0.03)),
    (r"gemini-2\.0-flash-lite", Price(0.075, 0.30)),
    (r"gemini-2\.0-flash", Price(0.10, 0.40, 0.025)),
    (r"gemini-embedding-001", Price(0.15, 0.0)),
)
_DEEPSEEK = ((r"deepseek-(reasoner|chat)", Price(0.28, 0.42, 0.028)),)
_GROK = (
    (r"grok-4-fast", Price(0.20, 0.50, 0.05)),
    (r"grok-4(-\d{4}|$)", Price(3.00, 15.00, 0.75)),
    (r"grok-3-mini", Price(0.30, 0.50, 0.075)),
    (r"grok-3", Price(3.00, 15.00, 0.75)),
)
_MISTRAL = (
    (r"mistral-large", Price(2.00, 6.00)),
    (r"mistral-medium", Price(0.40, 2.00)),
    (r"mistral-small", Price(0.10, 0.30)),
)
_FREE = ((r".*", Price(0.0, 0.0)),)
_Rows = tuple[tuple[str, Price], ...]
_LISTS: dict[str, _Rows] = {
    "builtin": _FREE,
    "openai": _OPENAI,
    "openai-responses": _OPENAI,
    "azure": _OPENAI,
    "anthropic": _CLAUDE,
    "bedrock": _CLAUDE,
    "google_ai": _GEMINI,
    "google_vertex": _GEMINI + _CLAUDE,
    "deepseek": _DEEPSEEK,
    "xai": _GROK,
    "mistral": _MISTRAL,
}
"""Whose prices hold at which type of provider. Elsewhere, and on servers of one's own, nothing is known."""


@lru_cache(maxsize=4096)
def listed(provider_type: str, name: str) -> Price | None:
    """Return the list price of a model at a vendor, or None when it is not known."""
    for pattern, price in _LISTS.get(provider_type, ()):
        if re.search(rf"(?:^|/|:|\.){pattern}" if provider_type != "builtin" else pattern, name, re.IGNORECASE):
            return price
    return None


class Prices:
    """Prices of handles: what the deployment says, else the list."""

    def __init__(self, own: Mapping[str, Price | None] | None = None) -> None:
        given = own or {}
        self._exact = {pattern: price for pattern, price in given.items() if not set(pattern) & set("*?[")}
        patterns = [pattern for pattern in given if pattern not in self._exact]
        self._patterns = [(pattern, given[pattern]) for pattern in sorted(patterns, key=len, reverse=True)]

    def of(self, handle: str, provider_type: str, name: str) -> Price | None:
        """Return the price of a model, or None when nobody knows it."""
        if handle in self._exact:
            return self._exact[handle]
        for pattern, price in self._patterns:
            if fnmatchcase(handle, pattern):
                return price
        return listed(provider_type, name)


_NAMES = frozenset(field.name for field in fields(Price))


def read_prices(given: Mapping[str, Any], file: Path | None = None) -> dict[str, Price | None]:
    """Read prices of a deployment, those of the file under those that are given.

    Raises:
        InvalidArgument: they are not in the form `{handle or pattern: {"input": 1.0, "output": 2.0} or null}`.
    """
    found: dict[str, Any] = {}
    if file is not None:
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InvalidArgument(f"the prices in {file} cannot be read: {error}", field="prices_file") from error
        if not isinstance(found, dict):
            raise InvalidArgument(f"the prices in {file} are no JSON object", field="prices_file")
    return {handle: _price(handle, value) for handle, value in {**found, **given}.items()}


def _price(handle: str, value: Any) -> Price | None:
    if value is None:
        return None
    good = isinstance(value, Mapping) and {"input", "output"} <= value.keys() <= _NAMES
    if not good or not all(
        each is None or (isinstance(each, int | float) and not isinstance(each, bool) and each >= 0)
        for each in value.values()
    ):
        raise InvalidArgument(
            f"the price of {handle} must have input and output, dollars for a million tokens, and may have "
            "cached_input, cache_write and reasoning",
            field="prices",
        )
    return Price(**value)
