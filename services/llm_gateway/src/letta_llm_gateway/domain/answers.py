"""What a model makes of a prompt: parts, events, usage."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any, TypeAlias

Prompt: TypeAlias = Any
"""The contract's `letta.llm.v1.Prompt` as it came: only providers look inside, so it is converted once."""


class FinishReason(Enum):
    """Why a model stopped, numbered as the contract numbers it."""

    STOP = 1
    TOOL_CALLS = 2
    LENGTH = 3
    CONTENT_FILTER = 4


class CountSource(Enum):
    """Where a count of tokens comes from, numbered as the contract numbers it."""

    PROVIDER = 1
    TOKENIZER = 2
    ESTIMATE = 3


@dataclass(frozen=True, slots=True)
class Text:
    """Text of an answer."""

    text: str = ""
    signature: str | None = None
    """The vendor's, which must be sent back with the text."""


@dataclass(frozen=True, slots=True)
class Reasoning:
    """Reasoning in clear, with the signature that must be sent back."""

    reasoning: str = ""
    signature: str | None = None


@dataclass(frozen=True, slots=True)
class RedactedReasoning:
    """Reasoning that the vendor encrypted."""

    data: str = ""


@dataclass(frozen=True, slots=True)
class ToolCall:
    """The wish to call a tool; `input` is a JSON object as text."""

    id: str
    name: str
    input: str = ""
    signature: str | None = None
    """The vendor's, which must be sent back with the call."""


Part: TypeAlias = Text | Reasoning | RedactedReasoning | ToolCall


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens used."""

    prompt: int = 0
    completion: int = 0
    cached_input: int = 0
    cache_write: int = 0
    reasoning: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a provider answers. Without usage the gateway counts for itself."""

    parts: tuple[Part, ...]
    finish_reason: FinishReason = FinishReason.STOP
    usage: Usage | None = None
    response_id: str = ""
    warnings: tuple[str, ...] = ()
    """What could not be asked as the prompt says, for people."""
    why: str = ""
    """Why the vendor blocked it, in its own words."""


@dataclass(frozen=True, slots=True)
class Started:
    """A part began; indices are the provider's order, from 0."""

    index: int
    part: Part


@dataclass(frozen=True, slots=True)
class Delta:
    """More of a part: text, reasoning, or text of a call's arguments."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class Signed:
    """The vendor signed a part: a text, reasoning or a call."""

    index: int
    signature: str


@dataclass(frozen=True, slots=True)
class Ended:
    """A part is complete."""

    index: int


@dataclass(frozen=True, slots=True)
class Completed:
    """The model stopped. A stream without it was cut."""

    finish_reason: FinishReason
    usage: Usage | None = None
    response_id: str = ""
    warnings: tuple[str, ...] = ()
    thoughts: frozenset[int] = frozenset()
    """Parts that were told as text and turned out to be reasoning."""
    objects: bool = False
    """The vendor's whole answers carry arguments as objects, so that they show no cut; its streams are read alike."""
    why: str = ""
    """Why the vendor blocked the answer, in its own words."""


Event: TypeAlias = Started | Delta | Signed | Ended | Completed


@dataclass(frozen=True, slots=True)
class Call:
    """One call of a provider: the vendor's name of the model and the prompt."""

    model: str
    prompt: Prompt
    max_output_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """An answer with where it came from."""

    answer: Answer
    usage: Usage
    usage_source: CountSource
    model: str
    provider_type: str
    context_window: int


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """Nothing happened for a while."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a generation that succeeded."""

    generation: Generation


Spoken: TypeAlias = Started | Delta | Ended | Heartbeat | Finished
"""What the gateway says of a running generation."""
