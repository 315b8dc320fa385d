"""Booking what embedding used: vendors of embeddings seldom count, so tokens are estimated from bytes."""

from __future__ import annotations

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import TokenCountSource
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.values.ids import new_id
from letta_llm_gateway.domain.accounting.budgets import Budgets, Hold
from letta_llm_gateway.domain.accounting.usage import Attribution, UsageRecord, UsageWriter
from letta_llm_gateway.domain.catalogue.models import AccountEmbedder
from letta_llm_gateway.domain.catalogue.prices import Prices
from letta_llm_gateway.domain.catalogue.tokens import of_bytes

PURPOSE = "embedding"


class EmbeddingBook:
    """Books texts that a vendor embedded. They count for budgets and are never refused by them: memory needs them."""

    def __init__(self, usage: UsageWriter, budgets: Budgets, prices: Prices, clock: Clock) -> None:
        self._usage, self._budgets, self._prices, self._clock = usage, budgets, prices, clock

    def book(self, actor: Actor, embedder: AccountEmbedder, size: int) -> None:
        """Book texts of so many bytes; what this machine embeds is not booked."""
        provider_type = embedder.account.provider_type
        if provider_type == "builtin":
            return
        tokens = of_bytes(size)
        price = self._prices.of(embedder.handle, provider_type, embedder.name)
        cost = None if price is None else price.cost(TokenUsage(prompt_tokens=tokens))
        self._budgets.settle(Hold(actor.organization_id, actor.user_id, "", 0), cost)
        self._usage.put(
            UsageRecord(
                id=new_id("usage"),
                organization_id=actor.organization_id,
                user_id=actor.user_id,
                created_at=self._clock.now(),
                attribution=Attribution(purpose=PURPOSE),
                model=embedder.handle,
                provider_type=provider_type,
                prompt_tokens=tokens,
                completion_tokens=0,
                cached_input_tokens=0,
                cache_write_tokens=0,
                reasoning_tokens=0,
                source=TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE,
                cost_microdollars=cost,
                duration_ms=0,
                outcome="ok",
            )
        )
