"""Answers of vendors made safe to store and to send on: whole characters, bounded sizes, plausible counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import (
    Answer,
    Completed,
    Delta,
    Ended,
    Event,
    Part,
    Reasoning,
    RedactedReasoning,
    Signed,
    Started,
    Text,
    ToolCall,
    Usage,
)
from letta_llm_gateway.providers.errors import redacted
from letta_llm_gateway.providers.wires.wire_json import MOST_COUNT, clean

MOST_BYTES = 2 << 20
"""Most bytes of an answer; several times what models can make at once."""
MOST_PARTS = 512
_MOST_NAME = 256


def plain(text: str) -> str:
    """Return a name without halves of characters and without NUL, which no column of names stores."""
    return clean(text).replace("\0", "")[:_MOST_NAME]


def reason(text: str) -> str:
    """Return what a vendor says of an answer that it blocked, as people may read it."""
    return redacted(" ".join(clean(text).replace("\0", "").split()))


class Cleaner:
    """Cleans the events of one answer, and counts what they hold."""

    def __init__(self, vendor: str) -> None:
        self._vendor = vendor
        self._bytes = self._parts = 0
        self._halves: dict[int, str] = {}  # the first half of a character that was cut between two deltas

    def event(self, event: Event) -> Iterator[Event]:
        """Yield an event as it may go on. Raises LLMInvalidResponse when the answer becomes too large."""
        match event:
            case Delta(index, text):
                yield from self._delta(index, text)
            case Started(index, part):
                yield Started(index, self.part(part))
            case Signed(index, signature):
                yield Signed(index, self._counted(signature))
            case Ended(index):
                if half := self._halves.pop(index, ""):
                    yield Delta(index, self._counted(half))
                yield event
            case Completed():
                id, why = plain(event.response_id), reason(event.why)
                yield replace(event, usage=plausible(event.usage), response_id=id, why=why)

    def answer(self, answer: Answer) -> Answer:
        """Return a whole answer as it may go on. Raises LLMInvalidResponse when it is too large."""
        return replace(
            answer,
            parts=tuple(map(self.part, answer.parts)),
            usage=plausible(answer.usage),
            response_id=plain(answer.response_id),
            why=reason(answer.why),
        )

    def part(self, part: Part) -> Part:
        """Return a part as it may go on."""
        self._parts += 1
        if self._parts > MOST_PARTS:
            raise LLMInvalidResponse(f"{self._vendor} answered in more than {MOST_PARTS} parts", provider=self._vendor)
        match part:
            case Text(text, signature):
                return Text(self._counted(text), self._signed(signature))
            case Reasoning(text, signature):
                return Reasoning(self._counted(text), self._signed(signature))
            case RedactedReasoning(data):
                return RedactedReasoning(self._counted(data))
            case ToolCall(id, name, arguments, signature):
                return ToolCall(id, plain(name), self._counted(arguments), self._signed(signature))

    def _delta(self, index: int, text: str) -> Iterator[Event]:
        text = self._halves.pop(index, "") + text
        if text and "\ud800" <= text[-1] <= "\udbff":
            self._halves[index], text = text[-1], text[:-1]
        if text:
            yield Delta(index, self._counted(text))

    def _signed(self, signature: str | None) -> str | None:
        return self._counted(signature) if signature else None

    def _counted(self, text: str) -> str:
        text = clean(text)
        self._bytes += len(text.encode())
        if self._bytes > MOST_BYTES:
            raise LLMInvalidResponse(
                f"{self._vendor} answered more than {MOST_BYTES} bytes; no model does", provider=self._vendor
            )
        return text


def plausible(usage: Usage | None) -> Usage | None:
    """Return counts of tokens that can be added up and priced."""
    if usage is None:
        return None
    prompt = min(usage.prompt, MOST_COUNT)
    # Cached tokens are taken off the prompt before it is priced.
    cached = min(usage.cached_input, prompt)
    return Usage(
        prompt=prompt,
        completion=min(usage.completion, MOST_COUNT),
        cached_input=cached,
        cache_write=min(usage.cache_write, prompt - cached),
        reasoning=min(usage.reasoning, MOST_COUNT),
    )
