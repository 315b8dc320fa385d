"""What an embedder reads at once, and how longer texts are cut to it.

A text that is longer than the window of its embedder is cut into pieces, each is embedded, and the mean of their
vectors, weighted by their length, stands for the text: so all of it counts when passages are searched by meaning. Sizes
are bytes of UTF-8, since no vocabulary makes more tokens of a text than it has bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from letta_llm_gateway.domain.catalogue.providers import Vector

_BREAKS = re.compile(rb"[.!?\n]\s|\s")
_SOFT = 0.8
"""Part of a window after which a break between words ends it."""


@dataclass(frozen=True, slots=True)
class EmbeddingLimits:
    """What one call of an embedder may carry."""

    window: int = 2_000
    """Bytes of one piece. Embedders that nothing is known of read 512 tokens or more."""
    batch: int = 96
    """Pieces of one call."""
    batch_bytes: int = 64_000
    """Bytes of one call."""
    at_once: int = 4
    """Calls at once."""


_LOCAL = EmbeddingLimits(window=2_000, batch=4, batch_bytes=8_000, at_once=1)  # about 50 ms of one thread
_VENDORS: tuple[tuple[str, str, EmbeddingLimits], ...] = (
    (r"builtin", "", _LOCAL),
    (r"openai|openai-responses|azure", "", EmbeddingLimits(window=8_000, batch_bytes=256_000)),  # 8,191, 300,000 tokens
    (r"google_vertex", r"gemini-embedding", EmbeddingLimits(window=2_000, batch=1)),  # one text a call
    (r"google_ai|google_vertex", "", EmbeddingLimits(window=2_000, batch_bytes=20_000)),  # 2,048, 20,000 tokens
    (r"mistral", "", EmbeddingLimits(window=8_000, batch_bytes=16_000)),  # 8,192, 16,384 tokens
    (r"bedrock", r"titan", EmbeddingLimits(window=8_000)),  # 8,192 tokens; one text a call anyhow
    (r"bedrock", r"cohere", EmbeddingLimits(window=1_500, batch_bytes=96 * 1_500)),  # 512 tokens, 2,048 characters
    (r".*", r"text-embedding-3|text-embedding-ada", EmbeddingLimits(window=8_000, batch_bytes=256_000)),
)


def limits_of(provider_type: str, name: str) -> EmbeddingLimits:
    """Return what one call of an embedder may carry, by the type of its provider and its name there."""
    for vendor, model, limits in _VENDORS:
        if re.fullmatch(vendor, provider_type) and re.search(model, name):
            return limits
    return EmbeddingLimits()


def pieces_of(text: str, window: int) -> list[str]:
    """Cut a text into pieces of at most `window` bytes, between words where that can be, never within a character."""
    data = text.encode(errors="surrogatepass")
    if len(data) <= window:
        return [text]
    found, at = [], 0
    while at < len(data):
        end = _end(data, at, window)
        if piece := data[at:end].strip():
            found.append(piece.decode(errors="surrogatepass"))
        at = end
    return found or [text[:1]]


def _end(data: bytes, at: int, window: int) -> int:
    """Return where a piece ends that begins at a place."""
    last = at + window
    if last >= len(data):
        return len(data)
    breaks = [found.end() for found in _BREAKS.finditer(data, at + int(window * _SOFT), last)]
    if breaks:
        return breaks[-1]
    while last > at + 1 and data[last] & 0xC0 == 0x80:  # within a character
        last -= 1
    return last


def mean(vectors: Sequence[Vector], weights: Sequence[int]) -> Vector:
    """Return the weighted mean of vectors."""
    if len(vectors) == 1:
        return vectors[0]
    total = sum(weights)
    shares = [weight / total for weight in weights]
    return [
        sum(share * value for share, value in zip(shares, column, strict=True)) for column in zip(*vectors, strict=True)
    ]
