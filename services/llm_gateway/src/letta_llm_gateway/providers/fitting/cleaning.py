"""Answers of vendors made safe to store and to send on: whole characters, bounded sizes, plausible counts."""

from __future__ import annotations

from collections.abc import Iterator

from letta.common.v1.message_pb2 import ContentPart
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import Generation, PartDelta, PartEnded, PartStarted
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import Completed, Delta, Event, Signed
from letta_llm_gateway.providers.wires.wire_json import MOST_COUNT, clean

MOST_BYTES = 2 << 20
"""Most bytes of an answer; several times what models can make at once."""
MOST_PARTS = 512


class Cleaner:
    """Cleans the events of one answer, and counts what they hold."""

    def __init__(self, vendor: str) -> None:
        self._vendor = vendor
        self._bytes = self._parts = 0
        self._halves: dict[int, str] = {}  # the first half of a character that was cut between two deltas

    def event(self, event: Event) -> Iterator[Event]:
        """Yield an event as it may go on. Raises LLMInvalidResponse when the answer becomes too large."""
        if isinstance(event, Delta):
            yield from self._delta(event.index, event.raw)
            return
        if isinstance(event, PartStarted):
            self._count_part(event.part)
        elif isinstance(event, Signed):
            event = Signed(event.index, self._counted(event.signature))
        elif isinstance(event, PartEnded):
            if half := self._halves.pop(event.index, ""):
                yield PartDelta(index=event.index, delta=self._counted(half))
        elif isinstance(event, Completed):
            _make_plausible(event.answer)
        yield event

    def answer(self, answer: Generation) -> Generation:
        """Return a whole answer as it may go on. Raises LLMInvalidResponse when it is too large."""
        for part in answer.parts:
            self._count_part(part)
        _make_plausible(answer)
        return answer

    def _count_part(self, part: ContentPart) -> None:
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise LLMInvalidResponse(f"{self._vendor} answered in more than {MOST_PARTS} parts", provider=self._vendor)
        self._count(part.ByteSize())

    def _delta(self, index: int, raw: str) -> Iterator[Event]:
        text = self._halves.pop(index, "") + raw
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._halves[index], text = text[-1], text[:-1]
        if text:
            yield PartDelta(index=index, delta=self._counted(text))

    def _counted(self, text: str) -> str:
        text = clean(text)
        self._count(len(text.encode()))
        return text

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes > MOST_BYTES:
            raise LLMInvalidResponse(
                f"{self._vendor} answered more than {MOST_BYTES} bytes; no model does", provider=self._vendor
            )


def _make_plausible(answer: Generation) -> None:
    """Correct counts of tokens so that they can be added up and priced."""
    if answer.HasField("usage"):
        answer.usage.CopyFrom(plausible(answer.usage))


def plausible(usage: TokenUsage) -> TokenUsage:
    """Return counts of tokens that can be added up and priced."""
    prompt = min(usage.prompt_tokens, MOST_COUNT)
    # Cached tokens are taken off the prompt before it is priced.
    cached = min(usage.cached_input_tokens, prompt)
    return TokenUsage(
        prompt_tokens=prompt,
        completion_tokens=min(usage.completion_tokens, MOST_COUNT),
        cached_input_tokens=cached,
        cache_write_tokens=min(usage.cache_write_tokens, prompt - cached),
        reasoning_tokens=min(usage.reasoning_tokens, MOST_COUNT),
    )
