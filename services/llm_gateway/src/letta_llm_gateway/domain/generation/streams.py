"""Running a provider's stream: limits on its phases, the answer put together, deltas coalesced."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from typing import Protocol

from letta.common.v1.message_pb2 import ContentPart, ReasoningContent
from letta.llm.v1.generation_service_pb2 import (
    FinishReason,
    Generation,
    Heartbeat,
    PartDelta,
    PartEnded,
    PartStarted,
)
from letta_common.errors import LLMInvalidResponse, LLMTimeout
from letta_llm_gateway.domain.answers import Completed, Delta, Event, Signed, said_in, say_on

_MOST_WHY = 500
_SIGNED = ("text", "reasoning", "tool_call")


class ReadCalls(Protocol):
    """Reads the arguments of the calls of an answer."""

    def __call__(self, answer: Generation, *, objects: bool = False) -> Generation:
        """Return the answer with arguments that are JSON objects, or that nobody will take for whole."""
        ...


@dataclass(frozen=True, slots=True)
class PhaseLimits:
    """How long the phases of a generation may take, in seconds."""

    first: float = 120.0
    """Until the model says its first word; for an answer at once, until it is there."""
    between: float = 60.0
    """Between two words."""
    total: float = 600.0
    """From the first attempt to the last word."""

    def ends(self) -> float:
        """Return when a generation that begins now must be over, on the clock of the loop."""
        return asyncio.get_running_loop().time() + self.total


class Assembler:
    """Puts the parts of an answer together from the events of its stream."""

    def __init__(self) -> None:
        self._parts: dict[int, ContentPart] = {}
        self._texts: dict[int, list[str]] = {}
        self._signatures: dict[int, str] = {}
        self._completed: Completed | None = None

    @property
    def begun(self) -> bool:
        """Say whether the model has said anything."""
        return bool(self._parts)

    @property
    def spoken(self) -> bool:
        """Say whether there is a word or a call, beside thoughts."""
        return any(part.HasField("tool_call") or _words(part) for part in self.parts())

    def begin_again(self) -> int:
        """Keep the thoughts that were told, without what binds them to an answer; return the index that comes next."""
        self._signatures.clear()
        for index, part in list(self._parts.items()):
            if part.HasField("reasoning"):
                self._parts[index] = _thought(part.reasoning.reasoning)
            else:
                del self._parts[index]
        return max(self._parts, default=-1) + 1

    def feed(self, event: Event) -> None:
        """Take the next event."""
        if isinstance(event, PartDelta):
            self._texts[event.index].append(event.delta)
        elif isinstance(event, PartStarted):
            self._parts[event.index] = event.part
            self._texts[event.index] = []
        elif isinstance(event, Signed):
            self._signatures[event.index] = event.signature
        elif isinstance(event, Completed):
            self._completed = event

    def answer(self, read: ReadCalls) -> Generation:
        """Return the whole answer; `read` reads the arguments of its calls.

        Raises:
            LLMInvalidResponse: the stream was cut.
        """
        if self._completed is None:
            raise LLMInvalidResponse("the stream ended before the model stopped")
        done = self._completed
        for index in done.thoughts & self._parts.keys():
            self._parts[index] = _thought()
        made = Generation(parts=self.parts())
        made.MergeFrom(done.answer)
        return read(made, objects=done.objects)

    def parts(self) -> list[ContentPart]:
        """Return the parts as far as they have come, in the order in which they began."""
        return [self._whole(index, part) for index, part in sorted(self._parts.items())]

    def _whole(self, index: int, part: ContentPart) -> ContentPart:
        whole = ContentPart()
        whole.CopyFrom(part)
        say_on(whole, "".join(self._texts[index]))
        kind = whole.WhichOneof("part")
        if kind in _SIGNED and index in self._signatures:
            getattr(whole, kind).signature = self._signatures[index]
        return whole


def _thought(reasoning: str = "") -> ContentPart:
    return ContentPart(reasoning=ReasoningContent(is_native=True, reasoning=reasoning))


def moved(event: Event, by: int) -> Event:
    """Return an event whose part stands so many places later."""
    if not by:
        return event
    if isinstance(event, Completed):
        return replace(event, thoughts=frozenset(index + by for index in event.thoughts))
    if isinstance(event, Signed | Delta):
        return replace(event, index=event.index + by)
    event.index += by
    return event


def lacking(answer: Generation) -> str:
    """Say why an answer is none: nothing is said and nothing called, or the vendor blocked it. Empty when it is one."""
    if any(part.HasField("tool_call") for part in answer.parts):
        return ""
    if answer.finish_reason == FinishReason.FINISH_REASON_CONTENT_FILTER:
        words = " ".join(said_in(part) for part in answer.parts if part.HasField("text"))
        why = answer.filter_reason or words[:_MOST_WHY].strip()
        return f"the vendor blocked the answer: {why}" if why else "the vendor blocked the answer"
    if answer.finish_reason == FinishReason.FINISH_REASON_LENGTH or any(map(_words, answer.parts)):
        return ""
    return "the model thought and said nothing" if answer.parts else "the model said nothing"


def _words(part: ContentPart) -> bool:
    return part.HasField("text") and bool(part.text.text.strip())


async def within_limits(
    source: AsyncGenerator[Event, None], limits: PhaseLimits, *, ends: float | None = None, who: str = "the model"
) -> AsyncGenerator[Event, None]:
    """Yield the events of a stream; must be read by one task that does nothing else.

    Raises:
        LLMTimeout: a phase took too long, or the whole; metadata has the `phase`.
    """
    loop = asyncio.get_running_loop()
    last = limits.ends() if ends is None else ends
    late = f"did not begin to answer within {limits.first:g} s", "first_token"
    try:
        async with asyncio.timeout(None) as scope, aclosing(source) as events:
            patience = _Patience(scope, min(loop.time() + limits.first, last))
            try:
                async for event in events:
                    # While the reader uses an event, the silence is not the vendor's.
                    patience.pause()
                    yield event
                    patience.wait_until(min(loop.time() + limits.between, last))
                    late = f"fell silent for {limits.between:g} s", "between_tokens"
            finally:
                patience.end()
    except TimeoutError as error:
        what, phase = _whole(limits) if loop.time() >= last else late
        raise LLMTimeout(f"{who} {what}", phase=phase) from error


class _Patience:
    """Ends a scope in which one thing is waited for too long.

    Its timer is set when it fires, not for each of the many things that come in time: it then looks how long the wait
    of now may last.
    """

    def __init__(self, scope: asyncio.Timeout, until: float) -> None:
        self._scope, self._loop = scope, asyncio.get_running_loop()
        self._until: float | None = until
        self._set(until)

    def pause(self) -> None:
        """Wait for nothing: what came is used."""
        self._until = None

    def wait_until(self, until: float) -> None:
        """Wait for the next thing until this time, on the clock of the loop."""
        self._until = until
        if until < self._fires:
            self._timer.cancel()
            self._set(until)

    def end(self) -> None:
        """Look no more."""
        self._timer.cancel()

    def _set(self, at: float) -> None:
        self._fires, self._timer = at, self._loop.call_at(at, self._look)

    def _look(self) -> None:
        now = self._loop.time()
        if self._until is None:  # whoever uses what came says until when the next wait lasts
            self._fires = math.inf
        elif now >= self._until:
            self._scope.reschedule(now)
        else:
            self._set(self._until)


async def answer_within_limits(
    answer: Awaitable[Generation], limits: PhaseLimits, *, ends: float, who: str = "the model"
) -> Generation:
    """Wait for an answer that comes at once. Raises LLMTimeout, whose metadata has the `phase`."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout_at(min(loop.time() + limits.first, ends)):
            return await answer
    except TimeoutError as error:
        late = f"did not answer within {limits.first:g} s", "first_token"
        what, phase = _whole(limits) if loop.time() >= ends else late
        raise LLMTimeout(f"{who} {what}", phase=phase) from error


def _whole(limits: PhaseLimits) -> tuple[str, str]:
    return f"did not finish its answer within {limits.total:g} s", "total"


class Pump:
    """Reads a source in a task of its own; deltas are joined over `window` seconds, the first is said at once."""

    def __init__(self, *, window: float = 0.015, heartbeat: float = 15.0) -> None:
        self._window = window
        self._heartbeat = heartbeat
        self._ready = asyncio.Event()
        self._held: list[PartStarted | PartEnded | list[PartDelta]] = []

    def _put(self, event: Event) -> None:
        if isinstance(event, PartDelta):
            last = self._held[-1] if self._held else None
            if isinstance(last, list) and last[0].index == event.index:
                last.append(event)
                return
            self._held.append([event])
        elif isinstance(event, (PartStarted, PartEnded)):
            self._held.append(event)
        self._ready.set()

    async def run(
        self, source: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[PartStarted | PartDelta | PartEnded | Heartbeat, None]:
        """Yield what is to be said. Closing the generator closes the source, and so the call at the vendor."""
        task = asyncio.create_task(self._fill(source))
        try:
            while True:
                if not await self._stirred():
                    yield Heartbeat()
                    continue
                held, self._held = self._held, []
                for event in held:
                    yield _joined(event)
                if task.done():
                    # Something may have come between the taking and the end of the task.
                    if not self._held:
                        break
                elif held:
                    # Not a sleep: when the source ends, its last words are said at once.
                    await asyncio.wait((task,), timeout=self._window)
            await task
        finally:
            task.cancel()
            # A failure of the task was raised above, unless the reader left before.
            with suppress(asyncio.CancelledError, Exception):
                await task

    async def _fill(self, source: AsyncGenerator[Event, None]) -> None:
        try:
            async with aclosing(source) as events:
                async for event in events:
                    self._put(event)
        finally:
            self._ready.set()

    async def _stirred(self) -> bool:
        """Wait until something happened; say no when nothing did for a while."""
        if not self._ready.is_set():
            try:
                async with asyncio.timeout(self._heartbeat):
                    await self._ready.wait()
            except TimeoutError:
                return False
        self._ready.clear()
        return True


def _joined(held: PartStarted | PartEnded | list[PartDelta]) -> PartStarted | PartEnded | PartDelta:
    if not isinstance(held, list):
        return held
    if len(held) == 1:
        return held[0]
    return PartDelta(index=held[0].index, delta="".join([delta.delta for delta in held]))
