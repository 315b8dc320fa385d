"""Booking what embedding used: vendors of embeddings seldom count, so tokens are estimated from bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import CallPurpose, TokenCountSource
from letta.llm.v1.usage_pb2 import ModelCall
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.values.ids import new_id
from letta_common.values.times import duration_of, stamp_of
from letta_llm_gateway.domain.accounting.budgets import Budgets, Hold
from letta_llm_gateway.domain.accounting.usage import BookedCall, UsageWriter
from letta_llm_gateway.domain.catalogue.models import AccountEmbedder
from letta_llm_gateway.domain.catalogue.prices import Prices
from letta_llm_gateway.domain.catalogue.tokens import of_bytes


class EmbeddingBook:
    """Books texts that a vendor embedded. They count for budgets, which refuse them to callers and never to memory."""

    def __init__(self, usage: UsageWriter, budgets: Budgets, prices: Prices, clock: Clock) -> None:
        self._usage, self._budgets, self._prices, self._clock = usage, budgets, prices, clock

    @asynccontextmanager
    async def held(self, actor: Actor, embedder: AccountEmbedder, size: int) -> AsyncIterator[None]:
        """Hold what texts of so many bytes may cost while they are embedded. Raises BudgetExceeded."""
        if embedder.account.provider_type == "builtin":
            yield
            return
        hold = await self._budgets.admit(actor, "", lambda: self._cost(embedder, _used(size)) or 0)
        try:
            yield
        finally:
            self._budgets.settle(hold, None)

    def book(self, actor: Actor, embedder: AccountEmbedder, size: int) -> None:
        """Book texts of so many bytes; what this machine embeds is not booked."""
        provider_type = embedder.account.provider_type
        if provider_type == "builtin":
            return
        used = _used(size)
        cost = self._cost(embedder, used)
        self._budgets.settle(Hold(actor.organization_id, actor.user_id, "", 0), cost)
        call = ModelCall(
            id=new_id("usage"),
            created_at=stamp_of(self._clock.now()),
            user_id=actor.user_id,
            purpose=CallPurpose.CALL_PURPOSE_EMBEDDING,
            model=embedder.handle,
            provider_type=provider_type,
            usage=used,
            usage_source=TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE,
            cost_microdollars=cost,
            duration=duration_of(0),
            outcome="ok",
        )
        self._usage.put(BookedCall(actor.organization_id, call))

    def _cost(self, embedder: AccountEmbedder, used: TokenUsage) -> int | None:
        """Return what texts cost in millionths of a dollar; None where nobody knows the price."""
        price = self._prices.of(embedder.handle, embedder.account.provider_type, embedder.name)
        return None if price is None else price.cost(used)


def _used(size: int) -> TokenUsage:
    return TokenUsage(prompt_tokens=of_bytes(size))
