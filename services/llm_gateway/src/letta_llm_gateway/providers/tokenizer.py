"""Counts tokens on this machine, with the vocabulary of OpenAI's newer models; nothing is fetched."""

from __future__ import annotations

import asyncio
import lzma
import re
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tiktoken import Encoding

_MODELS = re.compile(r"(?:^|/)(?:gpt-4o|chatgpt-4o|gpt-4\.[1-9]|gpt-[5-9]|gpt-oss|o[1-9](?:$|-))", re.IGNORECASE)
"""Models whose vocabulary this is; what another one counts differs by more than an estimate is worth."""
_MOST_CHARACTERS = 20_000
"""A text is counted in such pieces: one word of a million letters would take seconds."""
PATTERN = "|".join(
    (
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
        r"\p{N}{1,3}",
        r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
        r"\s*[\r\n]+",
        r"\s+(?!\S)",
        r"\s+",
    )
)
"""How the encoding splits a text before it looks for tokens."""


class LocalTokenizer:
    """Counts in a thread; loaded (about a second) when it is first prepared or used."""

    def __init__(self) -> None:
        self._encoding: Encoding | None = None
        self._loading: asyncio.Task[Encoding] | None = None

    @property
    def ready(self) -> bool:
        """Say whether it is loaded."""
        return self._encoding is not None

    def knows(self, model: str) -> bool:
        """Say whether a model, by its name at the vendor, has this vocabulary."""
        return _MODELS.search(model) is not None

    def prepare(self) -> asyncio.Task[Encoding]:
        """Begin to load."""
        if self._loading is None or (self._loading.done() and not self.ready):
            self._loading = asyncio.create_task(self._load())
        return self._loading

    async def count(self, texts: Sequence[str]) -> list[int]:
        """Return the tokens of each text."""
        encoding = self._encoding
        if encoding is None:
            encoding = await asyncio.shield(self.prepare())
        return await asyncio.to_thread(_count, encoding, texts)

    async def close(self) -> None:
        """Wait for what is being loaded."""
        if self._loading is not None:
            await asyncio.gather(self._loading, return_exceptions=True)

    async def _load(self) -> Encoding:
        self._encoding = await asyncio.to_thread(_encoding)
        return self._encoding


def _count(encoding: Encoding, texts: Sequence[str]) -> list[int]:
    return [sum(len(encoding.encode_ordinary(piece)) for piece in _pieces(text)) for text in texts]


def _pieces(text: str) -> Iterator[str]:
    for at in range(0, len(text), _MOST_CHARACTERS):
        yield text[at : at + _MOST_CHARACTERS]


def vocabulary() -> list[bytes]:
    """Return the tokens in the order of their ranks."""
    packed = lzma.decompress((files("letta_llm_gateway") / "data" / "o200k_base.xz").read_bytes())
    tokens, at = [], 0
    while at < len(packed):
        end = at + 1 + packed[at]
        tokens.append(packed[at + 1 : end])
        at = end
    return tokens


def _encoding() -> Encoding:
    from tiktoken import Encoding

    ranks = {token: rank for rank, token in enumerate(vocabulary())}
    return Encoding(name="o200k_base", pat_str=PATTERN, mergeable_ranks=ranks, special_tokens={})
