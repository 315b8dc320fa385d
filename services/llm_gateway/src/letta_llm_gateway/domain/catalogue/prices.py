"""What tokens cost: list prices by vendor and name (`models.toml`), and the deployment's own on top of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from letta.common.v1.usage_pb2 import TokenUsage
from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.catalogue.known_models import list_price


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


def listed(provider_type: str, name: str) -> Price | None:
    """Return the list price of a model at a vendor, or None when it is not known."""
    price = list_price(provider_type, name)
    return Price(*price) if price else None


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
