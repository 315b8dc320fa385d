"""What vendors' answers are read with, whatever the wire: names, reasons to stop, the parts of a stream."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from letta.common.v1.message_pb2 import ContentPart
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import FinishReason, PartEnded, PartStarted
from letta_common.errors import LLMInvalidResponse
from letta_llm_gateway.domain.answers import Event
from letta_llm_gateway.providers.wires.bodies import Json
from letta_llm_gateway.providers.wires.wire_json import words


def read_object(value: Any, vendor: str) -> Json:
    """Return an answer or an event of a stream. Raises LLMInvalidResponse when it is no JSON object."""
    if not isinstance(value, dict):
        raise LLMInvalidResponse(f"{vendor} answered something that is no JSON object", provider=vendor)
    return value


def read_name(call: Json, vendor: str) -> str:
    """Return the name of the tool that is called. Raises LLMInvalidResponse when there is none."""
    if not (name := words(call.get("name"))):
        raise LLMInvalidResponse(f"{vendor} called a tool without naming it", provider=vendor)
    return name


def finish_of(reason: Any, known: Mapping[str, FinishReason.ValueType], *, calls: bool) -> FinishReason.ValueType:
    """Return why the model stopped, by the vendor's word for it."""
    found = known.get(reason) if isinstance(reason, str) else None
    if found in {None, FinishReason.FINISH_REASON_STOP}:  # some servers say `stop` when they call, some say nothing
        return FinishReason.FINISH_REASON_TOOL_CALLS if calls else FinishReason.FINISH_REASON_STOP
    return found or FinishReason.FINISH_REASON_STOP


def usage_of(prompt: int, completion: int, *, read: int, written: int) -> TokenUsage | None:
    """Return usage by vendors that count cached tokens apart; the contract counts them in. None for zeros."""
    if not (whole := prompt + read + written):
        return None
    return TokenUsage(
        prompt_tokens=whole, completion_tokens=completion, cached_input_tokens=read, cache_write_tokens=written
    )


def cut(vendor: str) -> LLMInvalidResponse:
    """Return the error for a stream that ended too early."""
    return LLMInvalidResponse(f"{vendor} ended the stream before the model stopped", provider=vendor)


class OpenParts:
    """The parts of a stream that are not complete, by the vendor's indices; ours count what is told, in order."""

    def __init__(self) -> None:
        self._open: dict[int, int] = {}
        self._kept: dict[int, int] = {}
        self._next = 0
        self.calls = False
        """A tool was called."""

    def __contains__(self, at: int) -> bool:
        return at in self._open

    def __getitem__(self, at: int) -> int:
        return self._open[at]

    def keep(self, at: int) -> None:
        """Keep the next place for a part that was announced: it may be told after what follows it."""
        self._place(at)

    def begin(self, at: int, part: ContentPart) -> Iterator[Event]:
        """Begin a part."""
        index = self._open[at] = self._place(at)
        del self._kept[at]
        self.calls = self.calls or part.HasField("tool_call")
        yield PartStarted(index=index, part=part)

    def end(self, at: int) -> Iterator[Event]:
        """End a part, if it is open."""
        index = self._open.pop(at, None)
        if index is not None:
            yield PartEnded(index=index)

    def end_all(self) -> Iterator[Event]:
        """End what is open, in order."""
        for index in sorted(self._open.values()):
            yield PartEnded(index=index)

    def _place(self, at: int) -> int:
        if at not in self._kept:
            self._kept[at] = self._next
            self._next += 1
        return self._kept[at]
