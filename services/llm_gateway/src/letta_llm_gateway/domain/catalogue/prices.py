"""What tokens cost: the vendors' list prices, which `genai-prices` collects, and the deployment's own on top of them.

The list comes with the package, so that nothing is fetched, and is as new as the package.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from fnmatch import fnmatchcase
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.model_pb2 import ModelPrices
from letta_common.clock import Clock, SystemClock
from letta_common.errors import InvalidArgument
from letta_llm_gateway.domain.catalogue.known_models import SELLERS

if TYPE_CHECKING:
    from genai_prices.data_snapshot import DataSnapshot
    from genai_prices.types import ModelPrice, StartDateConstraint, TieredPrices, TimeOfDateConstraint

    _When: TypeAlias = StartDateConstraint | TimeOfDateConstraint | None
    """When a price holds; None is always."""


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars for a million tokens. Where a kind of token has no price of its own, the usual one holds."""

    input: float
    output: float
    cached_input: float | None = None
    cache_write: float | None = None
    reasoning: float | None = None
    steps: tuple[tuple[int, Price], ...] = ()
    """What holds for prompts of more tokens, the longest first."""

    def cost(self, used: TokenUsage) -> int:
        """Return what a call costs, in millionths of a dollar, rounded."""
        cached, written = used.cached_input_tokens, used.cache_write_tokens
        said, thought = used.completion_tokens, used.reasoning_tokens
        held = self._held(used.prompt_tokens) if self.steps else self
        return round(
            max(0, used.prompt_tokens - cached - written) * held.input
            + cached * _or(held.cached_input, held.input)
            + written * _or(held.cache_write, held.input)
            + max(0, said - thought) * held.output
            + min(thought, said) * _or(held.reasoning, held.output)
        )

    def _held(self, prompt_tokens: int) -> Price:
        return next((price for start, price in self.steps if prompt_tokens > start), self)


_NAMES = ("input", "output", "cached_input", "cache_write", "reasoning")
_FREE = Price(0.0, 0.0)


def _or(price: float | None, usual: float) -> float:
    return usual if price is None else price


def listed(provider_type: str, name: str, at: datetime) -> Price | None:
    """Return the list price of a model at a vendor at a time, or None when it is not known."""
    if provider_type == "builtin":
        return _FREE
    offers = _offers(provider_type, name)
    for when, price in offers:
        if when is None or when.active(at):
            return price
    # What the list tells last holds where nothing else does, whatever it says of when.
    return offers[-1][1] if offers else None


def warm(provider_type: str) -> None:
    """Read the list where it knows the vendor, apart from the loop, so that no call waits for it."""
    if provider_type in SELLERS:
        _list()


@cache
def _list() -> DataSnapshot:
    from genai_prices.data_snapshot import get_snapshot  # noqa: PLC0415 a tenth of a second that rules need not take

    return get_snapshot()


@lru_cache(maxsize=4096)
def _offers(provider_type: str, name: str) -> tuple[tuple[_When, Price], ...]:
    """Return what the list says of a model, and when each holds: the first that does."""
    seller = SELLERS.get(provider_type)
    if seller is None:
        return ()
    # Not by the library's own search, which would remember every name that anybody ever asked for.
    snapshot = _list()
    model = snapshot.find_provider(None, seller, None).find_model(name, all_providers=snapshot.providers)
    if model is None:
        return ()
    terms: list[tuple[_When, ModelPrice]]
    if isinstance(model.prices, list):
        terms = [(each.constraint, each.prices) for each in reversed(model.prices)]
    else:
        terms = [(None, model.prices)]
    return tuple((when, _price_of(found)) for when, found in terms if found.input_mtok is not None)


def _price_of(found: ModelPrice) -> Price:
    kinds = (
        found.input_mtok,
        found.output_mtok,
        found.cache_read_mtok,
        found.cache_write_mtok,
        found.output_reasoning_mtok,
    )
    steps = {tier.start for kind in kinds for tier in getattr(kind, "tiers", ())}
    longer = tuple((start, _at(kinds, start + 1)) for start in sorted(steps, reverse=True))
    return replace(_at(kinds, 0), steps=longer)


def _at(kinds: Sequence[Decimal | TieredPrices | None], prompt_tokens: int) -> Price:
    told = (None if kind is None else float(_step(kind, prompt_tokens)) for kind in kinds)
    usual, said, cached, written, thought = told
    return Price(usual or 0.0, said or 0.0, cached, written, thought)


def _step(kind: Decimal | TieredPrices, prompt_tokens: int) -> Decimal:
    if isinstance(kind, Decimal):
        return kind
    reached = [tier.price for tier in kind.tiers if prompt_tokens > tier.start]
    return reached[-1] if reached else kind.base


class Prices:
    """Prices of handles: what the deployment says, else the list."""

    def __init__(self, own: Mapping[str, Price | None] | None = None, clock: Clock | None = None) -> None:
        given, self._clock = own or {}, clock or SystemClock()
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
        return listed(provider_type, name, self._clock.now())


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
    good = isinstance(value, Mapping) and {"input", "output"} <= value.keys() <= {*_NAMES}
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


def told(price: Price) -> ModelPrices:
    """Return a price as the catalogue tells it: that of prompts of usual length."""
    return ModelPrices(**{name: getattr(price, name) for name in _NAMES})
