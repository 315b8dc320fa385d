"""What the log is told of a vendor's failure: where it was and why, neither keys nor what was asked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import httpx2

from letta.llm.v1.generation_service_pb2 import Prompt
from letta_common.errors import AppError
from letta_llm_gateway.domain.generation.fragments import read
from letta_llm_gateway.providers.errors import redacted

_WINDOW, _STEP = 24, 6
"""Vendors repeat parts of what they refuse: so many characters of it are no chance."""
# Anything shorter also stands in ordinary words, which would be struck out with it.
_SHORTEST = 6
_SPEAK_FOR_THEMSELVES = (OSError, httpx2.HTTPError, AppError)
"""Causes whose texts are of the connection; those of others hold what was read or sent."""


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield what an error came from, the nearest first."""
    cause = error.__cause__
    while cause is not None:
        yield cause
        cause = cause.__cause__


def told(causes: Iterable[BaseException]) -> str:
    """Return causes as a text, in the words of those that hold nothing of what was read or sent."""
    return "; ".join(
        f"{type(cause).__name__}: {cause}" if isinstance(cause, _SPEAK_FOR_THEMSELVES) else type(cause).__name__
        for cause in causes
    )


def hushed(text: str, keys: Iterable[str], prompt: Prompt | None) -> str:
    """Return a text as the log may have it."""
    text = _without_keys(text, keys)
    return redacted(_without_prompt(text, prompt) if prompt else text)


def _without_keys(text: str, keys: Iterable[str]) -> str:
    """Return a text without these keys, as they are or as a program writes them."""
    for key in keys:
        for form in (key, repr(key)[1:-1]):
            if len(key) >= _SHORTEST:
                text = text.replace(form, "[redacted]")
    return text


def _without_prompt(text: str, prompt: Prompt) -> str:
    """Return a vendor's text without what it repeats of a prompt."""
    asked = [" ".join(each.split()) for each in _texts(prompt)]
    for each in asked:
        if _SHORTEST <= len(each) <= _WINDOW + _STEP:
            text = text.replace(each, "[prompt]")
    starts = range(0, len(text) - _WINDOW + 1, _STEP)
    spans = [at for at in starts if any(text[at : at + _WINDOW] in each for each in asked)]
    hidden = {place for at in spans for place in range(at, at + _WINDOW)}
    marked = ((char, at in hidden, at - 1 in hidden) for at, char in enumerate(text))
    return "".join(char if not hide else "" if follows else "[prompt]" for char, hide, follows in marked)


def _texts(prompt: Prompt) -> Iterator[str]:
    yield prompt.system
    for message in map(read, prompt.messages):
        for part in message.parts:
            match part.WhichOneof("part"):
                case "text":
                    yield part.text.text
                case "tool_call":
                    yield part.tool_call.input
                case "tool_return":
                    yield part.tool_return.content
                case "reasoning":
                    yield part.reasoning.reasoning
