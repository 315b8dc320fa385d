"""Counting tokens: what the vendor says, else a tokenizer on this machine, else an estimate by size."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

from letta.common.v1.message_pb2 import ContentPart
from letta.common.v1.usage_pb2 import TokenUsage
from letta.llm.v1.generation_service_pb2 import TokenCountSource
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Call, said_in
from letta_llm_gateway.domain.catalogue.providers import Provider

# About what English has in today's vocabularies.
_BYTES_A_TOKEN = 4
# A count is worth no longer wait: an estimate stands in for it.
_VENDOR_SECONDS = 5.0
# The role and the marks around a message are three or four tokens with OpenAI's chat models.
_TOKENS_AROUND_A_MESSAGE = 4


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

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        ...


Exactly = Callable[[Tokenizer], Awaitable[int]]
"""Counts the tokens of a prompt, when that is wanted."""


class Counts:
    """Counts prompts and answers by the best means there is, and says which it was."""

    def __init__(self, tokenizer: Tokenizer | None = None) -> None:
        self._tokenizer = tokenizer

    async def prompt(
        self, provider: Provider, call: Call, exactly: Exactly, estimate: int
    ) -> tuple[int, TokenCountSource.ValueType]:
        """Count a prompt before it is sent."""
        if (told := await _told(provider, call)) is not None:
            return told, TokenCountSource.TOKEN_COUNT_SOURCE_PROVIDER
        if self._tokenizer is not None and self._tokenizer.knows(call.model):
            return await exactly(self._tokenizer), TokenCountSource.TOKEN_COUNT_SOURCE_TOKENIZER
        return estimate, TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE

    async def usage(
        self, model: str, exactly: Exactly, parts: Sequence[ContentPart], estimate: int
    ) -> tuple[TokenUsage, TokenCountSource.ValueType]:
        """Count what a vendor did not count. A tokenizer that is not loaded is loaded for the next time."""
        tokenizer = self._tokenizer
        if tokenizer is not None and tokenizer.knows(model):
            if tokenizer.ready:
                said = sum(await tokenizer.count(_texts(parts)))
                return _usage(await exactly(tokenizer), said), TokenCountSource.TOKEN_COUNT_SOURCE_TOKENIZER
            tokenizer.prepare()
        return _usage(estimate, of_parts(parts)), TokenCountSource.TOKEN_COUNT_SOURCE_ESTIMATE


async def _told(provider: Provider, call: Call) -> int | None:
    try:
        async with asyncio.timeout(_VENDOR_SECONDS):
            return await provider.count(call)
    except (AppError, TimeoutError):
        return None


async def of_texts(tokenizer: Tokenizer, messages: Sequence[Sequence[str]]) -> list[int]:
    """Return the tokens of messages, each given as its texts."""
    counted = iter(await tokenizer.count([text for texts in messages for text in texts]))
    return [sum(next(counted) + _TOKENS_AROUND_A_MESSAGE for _ in texts) for texts in messages]


def _usage(prompt: int, completion: int) -> TokenUsage:
    return TokenUsage(prompt_tokens=prompt, completion_tokens=completion)


def _texts(parts: Iterable[ContentPart]) -> list[str]:
    found: list[str] = []
    for part in parts:
        found += [part.tool_call.name, said_in(part)] if part.HasField("tool_call") else [said_in(part)]
    return found


def of_bytes(size: int) -> int:
    """Return the tokens of a text of this size in UTF-8."""
    return -(-size // _BYTES_A_TOKEN)


def of_parts(parts: Iterable[ContentPart]) -> int:
    """Return the tokens of an answer."""
    return of_bytes(sum(len(text.encode()) for text in _texts(parts)))
