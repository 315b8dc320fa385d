"""Generating: a model is asked, again when that helps, another one when it does not; all of it is booked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import asdict, dataclass, field, replace

from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import AppError, CapabilityMissing, ContextWindowExceeded, LLMTimeout
from letta_common.ids import new_id
from letta_llm_gateway.domain.answers import (
    Answer,
    Call,
    CountSource,
    Event,
    Finished,
    Generation,
    Prompt,
    Spoken,
    Usage,
)
from letta_llm_gateway.domain.budgets import Budgets
from letta_llm_gateway.domain.known_models import cost_microdollars
from letta_llm_gateway.domain.models import Models, Route
from letta_llm_gateway.domain.resilience import FAILOVER, Breaker, Retry, Slots
from letta_llm_gateway.domain.streams import Assembler, Limits, Pump, within_limits
from letta_llm_gateway.domain.tokens import of_parts
from letta_llm_gateway.domain.usage import Attribution, Trace, UsageRecord, UsageWriter

Checked = Callable[[str, str, str], str]
"""Reads the arguments of a call (raw, tool, vendor) as the text of a JSON object. Raises LLMInvalidResponse."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A prompt with what the rules must know of it."""

    prompt: Prompt
    handle: str
    estimate: Callable[[], int]
    """Counts the prompt's tokens roughly."""
    most_tokens: int
    """More tokens than the prompt can have; known without counting."""
    images: Callable[[], bool]
    """Says whether the prompt has images."""
    tools: bool = False
    attribution: Attribution = field(default_factory=Attribution)
    describe: Callable[[], str] | None = None
    """Writes the prompt down for the trace; None when nothing is traced."""


@dataclass(frozen=True, slots=True)
class Options:
    """How generations behave."""

    limits: Limits = field(default_factory=Limits)
    retry: Retry = field(default_factory=Retry)
    fallbacks: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Handles to try after a handle, in order."""
    provider_slots: int = 0
    organization_slots: int = 0
    window: float = 0.015
    """Seconds over which deltas are joined."""
    heartbeat: float = 15.0


class Generations:
    """Operations that make models speak."""

    def __init__(
        self, models: Models, usage: UsageWriter, *, budgets: Budgets, checked: Checked, clock: Clock, options: Options
    ) -> None:
        self._models, self._usage, self._budgets, self._checked = models, usage, budgets, checked
        self._clock, self._options = clock, options
        self._breakers: dict[str, Breaker] = {}
        self._by_provider = Slots(options.provider_slots, "provider")
        self._by_organization = Slots(options.organization_slots, "organization")

    async def generate(self, actor: Actor, ask: Ask) -> Generation:
        """Answer once.

        Raises:
            ModelNotFound: no provider offers the handle.
            ContextWindowExceeded: the prompt does not fit; compact and ask again.
            CapabilityMissing: the model cannot read such a prompt.
            BudgetExceeded: the organization has spent what it may.
            LLMUnavailable: and the other LLM errors, after retries and fail-over.
        """
        await self._budgets.check(actor)
        async with self._by_organization.hold(actor.organization_id):
            routes = await self._routes(actor, ask)
            for route in routes[:-1]:
                try:
                    return await self._booked(actor, ask, route)
                except FAILOVER:
                    continue
            return await self._booked(actor, ask, routes[-1])

    async def stream(self, actor: Actor, ask: Ask) -> AsyncGenerator[Spoken, None]:
        """Answer as the model speaks, the whole answer last. Raises what `generate` raises."""
        await self._budgets.check(actor)
        async with self._by_organization.hold(actor.organization_id):
            routes = await self._routes(actor, ask)
            for at, route in enumerate(routes):
                assembler = Assembler()
                try:
                    async with aclosing(self._speak(actor, ask, route, assembler)) as spoken:
                        async for event in spoken:
                            yield event
                except FAILOVER:
                    if assembler.begun or at == len(routes) - 1:
                        raise
                else:
                    return

    async def _routes(self, actor: Actor, ask: Ask) -> list[Route]:
        first = await self._models.route(actor, ask.handle)
        _require(first, ask)
        others = [
            await self._models.route(actor, handle) for handle in self._options.fallbacks.get(first.model.handle, ())
        ]
        able = [route for route in others if not _lacks(route, ask)]
        if first.model.is_language_model:  # rules never stand in for a model
            able = [route for route in able if route.model.is_language_model]
        return [first, *able]

    async def _booked(self, actor: Actor, ask: Ask, route: Route) -> Generation:
        begun = self._clock.monotonic_ns()
        outcome, made = "cancelled", None
        try:
            answer = await self._attempts(route, lambda: self._at_once(ask, route))
            made = _generation(route, ask, answer)
            outcome = "ok"
        except AppError as error:
            outcome = error.reason
            raise
        finally:
            self._book(actor, ask, route, outcome=outcome, begun=begun, made=made)
        return made

    async def _at_once(self, ask: Ask, route: Route) -> Answer:
        limit = self._options.limits.first
        try:
            async with asyncio.timeout(limit):
                return await route.provider.generate(_call(ask, route))
        except TimeoutError as error:
            raise LLMTimeout(
                f"{route.model.handle} did not answer within {limit:g} s", provider=route.model.account.name
            ) from error

    async def _attempts(self, route: Route, unit: Callable[[], Awaitable[Answer]]) -> Answer:
        """Run a call, again when the vendor's refusal may pass; an open breaker refuses at once."""
        attempt, breaker = 0, self._breaker(route)
        while True:
            attempt += 1
            breaker.check()
            try:
                return await self._guarded(route, unit)
            except AppError as error:
                pause = self._options.retry.wait(error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    async def _guarded(self, route: Route, unit: Callable[[], Awaitable[Answer]]) -> Answer:
        breaker = self._breaker(route)
        try:
            async with self._by_provider.hold(route.model.account.name):
                answer = await unit()
        except AppError as error:
            breaker.note(error)
            raise
        breaker.note(None)
        return answer

    async def _speak(self, actor: Actor, ask: Ask, route: Route, assembler: Assembler) -> AsyncGenerator[Spoken, None]:
        begun = self._clock.monotonic_ns()
        outcome, made = "cancelled", None
        pump = Pump(window=self._options.window, heartbeat=self._options.heartbeat)
        try:
            async with aclosing(pump.run(self._events(ask, route, assembler))) as spoken:
                async for event in spoken:
                    yield event
            vendor = route.model.account.name
            answer = assembler.answer(lambda raw, tool: self._checked(raw, tool, vendor))
            made = _generation(route, ask, answer)
            outcome = "ok"
            yield Finished(made)
        except AppError as error:
            outcome = error.reason
            raise
        finally:
            if made is None and assembler.begun:  # what was said before the cut was paid for
                made = _partial(route, ask, assembler)
            self._book(actor, ask, route, outcome=outcome, begun=begun, made=made)

    async def _events(self, ask: Ask, route: Route, assembler: Assembler) -> AsyncGenerator[Event, None]:
        """Yield the events of the first attempt that begins to speak."""
        attempt, breaker = 0, self._breaker(route)
        async with self._by_provider.hold(route.model.account.name):
            while True:
                attempt += 1
                breaker.check()
                try:
                    source = within_limits(route.provider.stream(_call(ask, route)), self._options.limits)
                    async with aclosing(source) as events:
                        async for event in events:
                            assembler.feed(event)
                            yield event
                except AppError as error:
                    breaker.note(error)
                    pause = None if assembler.begun else self._options.retry.wait(error, attempt)
                    if pause is None:
                        raise
                else:
                    breaker.note(None)
                    return
                await asyncio.sleep(pause)

    def _breaker(self, route: Route) -> Breaker:
        account = route.model.account
        key = f"{account.organization_id}/{account.name}"
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker(account.name, lambda: self._clock.monotonic_ns() / 1e9)
        return breaker

    def _book(self, actor: Actor, ask: Ask, route: Route, *, outcome: str, begun: int, made: Generation | None) -> None:
        used = made.usage if made else Usage()
        cost = cost_microdollars(
            route.model.name, prompt=used.prompt, completion=used.completion, cached=used.cached_input
        )
        self._budgets.spend(actor, cost)
        record = UsageRecord(
            id=new_id("usage"),
            organization_id=actor.organization_id,
            user_id=actor.user_id,
            created_at=self._clock.now(),
            attribution=ask.attribution,
            model=route.model.handle,
            provider_type=route.model.account.provider_type,
            prompt_tokens=used.prompt,
            completion_tokens=used.completion,
            cached_input_tokens=used.cached_input,
            cache_write_tokens=used.cache_write,
            reasoning_tokens=used.reasoning,
            source=made.usage_source.value if made else 0,
            cost_microdollars=cost,
            duration_ms=(self._clock.monotonic_ns() - begun) // 1_000_000,
            outcome=outcome,
        )
        self._usage.put(record, _trace(record, ask, made))


def _call(ask: Ask, route: Route) -> Call:
    return Call(route.model.name, ask.prompt, route.model.facts.max_output if route.model.facts.certain else None)


def _require(route: Route, ask: Ask) -> None:
    if missing := _lacks(route, ask):
        raise missing


def _lacks(route: Route, ask: Ask) -> AppError | None:
    """Return why the model cannot take the prompt; only what is certain refuses."""
    facts, handle = route.model.facts, route.model.handle
    if facts.images is False and ask.images():
        return CapabilityMissing(f"{handle} sees no images; choose a model that does, or send text", handle=handle)
    if ask.tools and not facts.tools:
        return CapabilityMissing(f"{handle} calls no tools; choose a model that does", handle=handle)
    if facts.certain and ask.most_tokens > facts.window and (tokens := ask.estimate()) > facts.window:
        return ContextWindowExceeded(
            f"about {tokens} tokens do not fit the window of {handle}, {facts.window} tokens",
            handle=handle,
            tokens=str(tokens),
            context_window=str(facts.window),
        )
    return None


def _generation(route: Route, ask: Ask, answer: Answer) -> Generation:
    used, source = answer.usage, CountSource.PROVIDER
    if used is None:
        used, source = Usage(prompt=ask.estimate(), completion=of_parts(answer.parts)), CountSource.ESTIMATE
    return Generation(
        answer, used, source, route.model.handle, route.model.account.provider_type, route.model.facts.window
    )


def _partial(route: Route, ask: Ask, assembler: Assembler) -> Generation:
    answer = Answer(tuple(assembler.parts()))
    return _generation(route, ask, replace(answer, usage=None))


def _trace(record: UsageRecord, ask: Ask, made: Generation | None) -> Trace | None:
    if ask.describe is None:
        return None
    return Trace(
        record.id.replace("usage-", "provider_trace-"),
        record.organization_id,
        record.user_id,
        record.created_at,
        record.attribution,
        record.model,
        record.provider_type,
        ask.describe(),
        _described(made, record.outcome),
    )


def _described(made: Generation | None, outcome: str) -> str:
    parts = [{"type": type(part).__name__, **asdict(part)} for part in made.answer.parts] if made else []
    finish = made.answer.finish_reason.name if made else None
    return json.dumps({"outcome": outcome, "finish_reason": finish, "parts": parts}, ensure_ascii=False)
