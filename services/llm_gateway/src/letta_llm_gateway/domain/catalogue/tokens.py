"""Counting tokens: what the vendor says, else a tokenizer on this machine, else an estimate by size."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import (
    Call,
    CountSource,
    Part,
    Reasoning,
    RedactedReasoning,
    Text,
    ToolCall,
    Usage,
)
from letta_llm_gateway.domain.catalogue.providers import Provider

# About what English has in today's vocabularies.
_BYTES_A_TOKEN = 4
# A count is worth no longer wait: an estimate stands in for it.
_VENDOR_SECONDS = 5.0
# The role and the marks around a message are three or four tokens with OpenAI's chat models.
_TOKENS_AROUND_A_MESSAGE = 4
Texts = Callable[[], Sequence[str]]
"""The texts of a prompt, gathered when they are wanted."""


class Tokenizer(Protocol):
    """Counts tokens on this machine."""

    @property
    def ready(self) -> bool:
        """Say whether it is loaded."""
        ...

    def knows(self, model: str) -> bool:
        """Say whether a model has its vocabulary."""
        ...

    def prepare(self) -> object:
        """Begin to load, elsewhere."""
        ...

    async def count(self, texts: Sequence[str]) -> int:
        """Return the tokens of texts."""
        ...


class Counts:
    """Counts prompts and answers by the best means there is, and says which it was."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer

    async def prompt(self, provider: Provider, call: Call, texts: Texts, estimate: int) -> tuple[int, CountSource]:
        """Count a prompt before it is sent."""
        if (told := await _told(provider, call)) is not None:
            return told, CountSource.PROVIDER
        if self._tokenizer is not None and self._tokenizer.knows(call.model):
            return await _around(self._tokenizer, texts()), CountSource.TOKENIZER
        return estimate, CountSource.ESTIMATE

    async def usage(self, model: str, texts: Texts, parts: Sequence[Part], estimate: int) -> tuple[Usage, CountSource]:
        """Count what a vendor did not count. A tokenizer that is not loaded is loaded for the next time."""
        tokenizer = self._tokenizer
        if tokenizer is not None and tokenizer.knows(model):
            if tokenizer.ready:
                prompt = await _around(tokenizer, texts())
                return Usage(prompt, await tokenizer.count(_texts(parts))), CountSource.TOKENIZER
            tokenizer.prepare()
        return Usage(estimate, of_parts(parts)), CountSource.ESTIMATE


async def _told(provider: Provider, call: Call) -> int | None:
    try:
        async with asyncio.timeout(_VENDOR_SECONDS):
            return await provider.count(call)
    except (AppError, TimeoutError):
        return None


async def _around(tokenizer: Tokenizer, texts: Sequence[str]) -> int:
    return await tokenizer.count(texts) + _TOKENS_AROUND_A_MESSAGE * len(texts)


def _texts(parts: Iterable[Part]) -> list[str]:
    found: list[str] = []
    for part in parts:
        match part:
            case Text(text) | Reasoning(text) | RedactedReasoning(text):
                found.append(text)
            case ToolCall(_, name, arguments):
                found += [name, arguments]
    return found


def of_bytes(size: int) -> int:
    """Return the tokens of a text of this size in UTF-8."""
    return -(-size // _BYTES_A_TOKEN)


def of_parts(parts: Iterable[Part]) -> int:
    """Return the tokens of an answer."""
    return of_bytes(sum(len(text.encode()) for text in _texts(parts)))
