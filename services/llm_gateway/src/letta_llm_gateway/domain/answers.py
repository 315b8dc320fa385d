"""What a model makes of a prompt: messages of the contract, and what of a stream no contract has.

A `Generation` is made by a provider, without the fields that say where it came from; without usage the gateway counts
for itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from letta.common.v1.message_pb2 import ContentPart
from letta.llm.v1.generation_service_pb2 import (
    Finished,
    Generation,
    Heartbeat,
    PartDelta,
    PartEnded,
    PartStarted,
    Prompt,
)

_WORDS = {"text": "text", "reasoning": "reasoning", "redacted_reasoning": "data", "tool_call": "input"}
"""The field of each kind of part in which the model's words are."""


@dataclass(frozen=True, slots=True)
class Delta:
    """More of a part as the vendor wrote it: it may end within a character, which no message can hold."""

    index: int
    raw: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The vendor signed a part: a text, reasoning or a call."""

    index: int
    signature: str


@dataclass(frozen=True, slots=True)
class Completed:
    """The model stopped. A stream without it was cut."""

    answer: Generation
    """The answer without its parts."""
    thoughts: frozenset[int] = frozenset()
    """Parts that were told as text and turned out to be reasoning."""
    objects: bool = False
    """The vendor's whole answers carry arguments as objects, so that they show no cut; its streams are read alike."""


Event: TypeAlias = PartStarted | Delta | PartDelta | Signed | PartEnded | Completed
"""What a provider says; a `Delta` becomes a `PartDelta` before it leaves the providers. Indices count from 0."""
Spoken: TypeAlias = PartStarted | PartDelta | PartEnded | Heartbeat | Finished
"""What the gateway says of a running generation."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a provider: the vendor's name of the model and the prompt."""

    model: str
    prompt: Prompt
    max_output_tokens: int | None = None


def said_in(part: ContentPart) -> str:
    """Return the model's words in a part: its text, reasoning or arguments."""
    kind = part.WhichOneof("part")
    return getattr(getattr(part, kind), _WORDS[kind]) if kind in _WORDS else ""


def say_on(part: ContentPart, text: str) -> None:
    """Add to the model's words in a part."""
    kind = part.WhichOneof("part")
    if kind in _WORDS:
        content = getattr(part, kind)
        setattr(content, _WORDS[kind], getattr(content, _WORDS[kind]) + text)
