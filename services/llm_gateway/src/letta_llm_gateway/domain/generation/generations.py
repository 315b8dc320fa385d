"""Generating: a model is asked, again when that helps, another one when it does not; all of it is booked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass, field

from cachetools import LRUCache

from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import Finished, FinishReason, Generation, Prompt, TokenCountSource
from letta.llm.v1.usage_pb2 import ModelCall
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, CapabilityMissing, ContextWindowExceeded, LLMInvalidResponse
from letta_common.values.ids import new_id
from letta_common.values.times import duration_of, stamp_of
from letta_llm_gateway.domain.accounting.budgets import Budgets, Hold
from letta_llm_gateway.domain.accounting.traces import TraceDraft, Tracing
from letta_llm_gateway.domain.accounting.usage import BookedCall, UsageWriter
from letta_llm_gateway.domain.answers import Call, Event, Spoken
from letta_llm_gateway.domain.catalogue.models import Models, Route
from letta_llm_gateway.domain.catalogue.prices import Price, Prices
from letta_llm_gateway.domain.catalogue.tokens import Counts, Exactly, of_parts
from letta_llm_gateway.domain.generation.streams import (
    Assembler,
    PhaseLimits,
    Pump,
    ReadCalls,
    answer_within_limits,
    lacking,
    moved,
    within_limits,
)
from letta_llm_gateway.domain.generation.tapes import Tape, begin_tape
from letta_llm_gateway.domain.resilience import FAILOVER, Breaker, Retry, Slots

_USUAL_ANSWER = 300
"""Tokens that an answer is expected to have before it is there."""
# Organizations bring providers of their own, so keys come from outside.
_MOST_BREAKERS = 10_000


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """A prompt with what the rules must know of it."""

    prompt: Prompt
    handle: str
    tokens: int
    """About how many tokens the prompt has."""
    exactly: Exactly
    """Counts the tokens of the prompt with a tokenizer."""
    images: bool = False
    """The prompt has images."""
    tools: bool = False
    describe: Callable[[], str] = lambda: "{}"
    """Writes the prompt down for the trace of an engine without a wire."""


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How generations behave."""

    limits: PhaseLimits = field(default_factory=PhaseLimits)
    retry: Retry = field(default_factory=Retry)
    fallbacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Handles to try after a handle, in order."""
    provider_slots: int = 0
    special_slots: Mapping[str, int] = field(default_factory=dict)
    """Slots of single providers, by name."""
    organization_slots: int = 0
    window: float = 0.015
    """Seconds over which deltas are joined."""
    heartbeat: float = 15.0
    tracing: Tracing = field(default_factory=Tracing)
    counts: Counts = field(default_factory=Counts)


@dataclass(frozen=True, slots=True)
class Accounting:
    """What is asked and told about money."""

    usage: UsageWriter
    budgets: Budgets
    prices: Prices = field(default_factory=Prices)


class Generations:
    """Operations that make models speak."""

    def __init__(
        self, models: Models, accounting: Accounting, *, read: ReadCalls, clock: Clock, options: GenerationOptions
    ) -> None:
        self._models, self._read = models, read
        self._usage, self._budgets, self._prices = accounting.usage, accounting.budgets, accounting.prices
        self._clock, self._options, self._counts = clock, options, options.counts
        self._breakers: LRUCache[str, Breaker] = LRUCache(_MOST_BREAKERS)
        self._by_provider = Slots(options.provider_slots, "provider", special=options.special_slots)
        self._by_organization = Slots(options.organization_slots, "organization")

    async def generate(self, actor: Actor, ask: PromptFacts) -> Generation:
        """Answer once.

        Raises:
            ModelNotFound: no provider offers the handle.
            ContextWindowExceeded: the prompt does not fit; compact and ask again.
            CapabilityMissing: the model cannot read such a prompt.
            BudgetExceeded: a budget that covers the call is used up.
            LLMUnavailable: and the other LLM errors, after retries and fail-over.
        """
        async with self._by_organization.hold(actor.organization_id, actor.user_id):
            routes = await self._routes(actor, ask)
            ends = self._options.limits.ends()
            # The end is the same for all: a model that stands in gets the time that is left.
            for route in routes[:-1]:
                try:
                    return await self._booked(actor, ask, route, ends)
                except FAILOVER as error:
                    if _is_over(error):
                        raise
            return await self._booked(actor, ask, routes[-1], ends)

    async def stream(self, actor: Actor, ask: PromptFacts) -> AsyncGenerator[Spoken, None]:
        """Answer as the model speaks, the whole answer last. Raises what `generate` raises."""
        async with self._by_organization.hold(actor.organization_id, actor.user_id):
            routes = await self._routes(actor, ask)
            ends = self._options.limits.ends()
            for at, route in enumerate(routes):
                assembler = Assembler()
                try:
                    async with aclosing(self._speak(actor, ask, route, assembler, ends=ends)) as spoken:
                        async for event in spoken:
                            yield event
                except FAILOVER as error:
                    # Behind a word that was said, another model's answer would be a second one.
                    if assembler.begun or at == len(routes) - 1 or _is_over(error):
                        raise
                else:
                    return

    async def count(self, actor: Actor, ask: PromptFacts) -> tuple[int, TokenCountSource.ValueType]:
        """Count the tokens of a prompt without sending it to be answered. Raises ModelNotFound."""
        route = await self._models.route(actor, ask.handle)
        return await self._counts.prompt(route.provider, _call(ask, route), ask.exactly, ask.tokens)

    async def _routes(self, actor: Actor, ask: PromptFacts) -> list[Route]:
        first = await self._models.route(actor, ask.handle)
        _require(first, ask)
        others = [
            await self._models.route(actor, handle) for handle in self._options.fallbacks.get(first.model.handle, ())
        ]
        able = [route for route in others if not _lacks(route, ask)]
        if first.model.is_language_model:  # rules never stand in for a model
            able = [route for route in able if route.model.is_language_model]
        return [first, *able]

    async def _booked(self, actor: Actor, ask: PromptFacts, route: Route, ends: float) -> Generation:
        running = await self._admitted(actor, ask, route, ends)
        outcome, made = "cancelled", None
        try:
            answer = await self._attempts(running)
            made = await self._counted(route, ask, answer)
            outcome = "ok"
        except AppError as error:
            outcome = error.reason
            raise
        finally:
            self._book(running, outcome, made)
        return made

    async def _counted(self, route: Route, ask: PromptFacts, answer: Generation) -> Generation:
        if answer.HasField("usage"):
            return _told(route, answer, TokenCountSource.TOKEN_COUNT_SOURCE_PROVIDER)
        used, source = await self._counts.usage(route.model.name, ask.exactly, answer.parts, ask.tokens)
        answer.usage.CopyFrom(used)
        return _told(route, answer, source)

    async def _admitted(self, actor: Actor, ask: PromptFacts, route: Route, ends: float) -> _Running:
        """Let the call begin. Raises BudgetExceeded."""
        model = route.model
        price = self._prices.of(model.handle, model.account.provider_type, model.name)
        hold = await self._budgets.admit(actor, ask.prompt.attribution.agent_id, lambda: _expected(price, ask))
        tape = begin_tape() if self._options.tracing.wants(ask.prompt.attribution.step_id) else None
        return _Running(actor, ask, route, price, hold, tape, self._clock.monotonic_ns(), ends)

    async def _attempts(self, running: _Running) -> Generation:
        """Run a call, again when the vendor's refusal may pass; an open breaker refuses at once."""
        attempt, breaker = 0, self._breaker(running.route)
        while True:
            attempt += 1
            breaker.check()
            try:
                return await self._at_once(running, breaker)
            except AppError as error:
                pause = self._options.retry.wait(error, attempt, left=_left(running.ends))
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _at_once(self, running: _Running, breaker: Breaker) -> Generation:
        route, limits = running.route, self._options.limits
        try:
            async with self._slot(running):
                asked = route.provider.generate(_call(running.ask, route))
                answer = await answer_within_limits(asked, limits, ends=running.ends, who=route.model.handle)
                if route.model.is_language_model and (why := lacking(answer)):
                    raise _no_answer(route, why, answer)
        except AppError as error:
            breaker.note(error)
            raise
        breaker.note(None)
        return answer

    async def _speak(
        self, actor: Actor, ask: PromptFacts, route: Route, assembler: Assembler, *, ends: float
    ) -> AsyncGenerator[Spoken, None]:
        running = await self._admitted(actor, ask, route, ends)
        outcome, made = "cancelled", None
        pump = Pump(window=self._options.window, heartbeat=self._options.heartbeat)
        try:
            async with aclosing(pump.run(self._events(running, assembler))) as spoken:
                async for event in spoken:
                    yield event
            answer = assembler.answer(self._read)
            made = await self._counted(route, ask, answer)
            outcome = "ok"
            yield Finished(generation=made)
        except AppError as error:
            outcome = error.reason
            raise
        finally:
            if made is None and assembler.begun:  # what was said before the cut was paid for
                made = _partial(route, ask, assembler)
            self._book(running, outcome, made)

    async def _events(self, running: _Running, assembler: Assembler) -> AsyncGenerator[Event, None]:
        """Yield the events of the first attempt that begins to speak."""
        route, ends, limits = running.route, running.ends, self._options.limits
        attempt, breaker, first = 0, self._breaker(route), 0
        while True:
            attempt += 1
            breaker.check()
            try:
                async with self._slot(running):
                    said = route.provider.stream(_call(running.ask, route))
                    source = within_limits(said, limits, ends=ends, who=route.model.handle)
                    async with aclosing(source) as events:
                        async for told in events:
                            event = moved(told, first)
                            assembler.feed(event)
                            yield event
                breaker.note(None)
                made = assembler.answer(self._read)
                if not route.model.is_language_model or not (why := lacking(made)):
                    return
                raise _no_answer(route, why, made)
            except AppError as error:
                breaker.note(error)
                thought = isinstance(error, LLMInvalidResponse) and "finish_reason" in error.metadata
                told_all = assembler.spoken if thought else assembler.begun
                pause = None if told_all else self._options.retry.wait(error, attempt, left=_left(ends))
                if pause is None:
                    raise
                first = assembler.begin_again()
            await asyncio.sleep(pause)

    def _slot(self, running: _Running) -> AbstractAsyncContextManager[None]:
        """Hold a slot at the provider; an organization's own provider has slots of its own."""
        account = running.route.model.account
        key = f"{account.organization_id}/{account.name}" if account.organization_id else account.name
        return self._by_provider.hold(key, running.actor.organization_id)

    def _breaker(self, route: Route) -> Breaker:
        account = route.model.account
        key = f"{account.organization_id}/{account.name}"
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker(account.name, lambda: self._clock.monotonic_ns() / 1e9)
        return breaker

    def _book(self, running: _Running, outcome: str, made: Generation | None) -> None:
        used, model, actor = made.usage if made else TokenUsage(), running.route.model, running.actor
        cost = None if running.price is None else running.price.cost(used)
        self._budgets.settle(running.hold, cost)
        booked = running.ask.prompt.attribution
        call = ModelCall(
            id=new_id("usage"),
            created_at=stamp_of(self._clock.now()),
            user_id=actor.user_id,
            agent_id=booked.agent_id or None,
            run_id=booked.run_id or None,
            step_id=booked.step_id or None,
            purpose=booked.purpose,
            model=model.handle,
            provider_type=model.account.provider_type,
            usage=used,
            usage_source=made.usage_source if made else TokenCountSource.TOKEN_COUNT_SOURCE_UNSPECIFIED,
            cost_microdollars=cost,
            duration=duration_of(self._clock.monotonic_ns() - running.begun),
            outcome=outcome,
        )
        draft = None if running.tape is None else _draft(running.ask, running.tape.sent, made, outcome)
        self._usage.put(BookedCall(actor.organization_id, call), draft)


@dataclass(frozen=True, slots=True)
class _Running:
    """A call that was let through, until it is booked."""

    actor: Actor
    ask: PromptFacts
    route: Route
    price: Price | None
    hold: Hold
    tape: Tape | None
    begun: int
    ends: float


def _draft(ask: PromptFacts, sent: bytes, made: Generation | None, outcome: str) -> TraceDraft:
    """Return what is kept for the trace of a call: the prompt only where nothing was sent, and counted with it."""
    if sent:
        return TraceDraft(sent, None, made, outcome)
    return TraceDraft(sent, ask.describe, made, outcome, prompt_bytes=ask.prompt.ByteSize())


def _expected(price: Price | None, ask: PromptFacts) -> int:
    """Return about what a call will cost: its prompt by size, and an answer of usual length."""
    return 0 if price is None else price.cost(TokenUsage(prompt_tokens=ask.tokens, completion_tokens=_USUAL_ANSWER))


def _left(ends: float) -> float:
    return ends - asyncio.get_running_loop().time()


def _is_over(error: AppError) -> bool:
    """Say whether the time of the whole generation is used up, so that no other model is asked."""
    return error.metadata.get("phase") == "total"


def _call(ask: PromptFacts, route: Route) -> Call:
    # The vendor may refuse a guess, where its own default always holds.
    return Call(route.model.name, ask.prompt, route.model.facts.max_output if route.model.facts.certain else None)


def _require(route: Route, ask: PromptFacts) -> None:
    if missing := _lacks(route, ask):
        raise missing


def _lacks(route: Route, ask: PromptFacts) -> AppError | None:
    """Return why the model cannot take the prompt; only what is certain refuses."""
    facts, handle = route.model.facts, route.model.handle
    if facts.images is False and ask.images:
        return CapabilityMissing(f"{handle} sees no images; choose a model that does, or send text", handle=handle)
    if ask.tools and not facts.tools:
        return CapabilityMissing(f"{handle} calls no tools; choose a model that does", handle=handle)
    if facts.certain and ask.tokens > facts.window:
        return ContextWindowExceeded(
            f"about {ask.tokens} tokens do not fit the window of {handle}, {facts.window} tokens",
            handle=handle,
            tokens=str(ask.tokens),
            context_window=str(facts.window),
        )
    return None


def _told(route: Route, answer: Generation, source: TokenCountSource.ValueType) -> Generation:
    """Return an answer that says who made it, and who counted it."""
    model = route.model
    answer.usage_source, answer.context_window = source, model.facts.window
    answer.model, answer.provider_type = model.handle, model.account.provider_type
    return answer


def _no_answer(route: Route, why: str, answer: Generation) -> LLMInvalidResponse:
    return LLMInvalidResponse(
        f"{route.model.handle} gave no answer: {why}; say it in another way or choose another model",
        provider=route.model.account.name,
        finish_reason=FinishReason.Name(answer.finish_reason).removeprefix("FINISH_REASON_").lower(),
    )


def _partial(route: Route, ask: PromptFacts, assembler: Assembler) -> Generation:
    parts = assembler.parts()
    used = TokenUsage(prompt_tokens=ask.tokens, completion_tokens=of_parts(parts))
    answer = Generation(parts=parts, finish_reason=FinishReason.FINISH_REASON_STOP, usage=used)
    return _told(route, answer, TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE)
