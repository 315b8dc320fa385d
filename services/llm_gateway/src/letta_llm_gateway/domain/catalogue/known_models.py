"""What is known of models by name: windows and abilities, for what vendors do not say themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

UNKNOWN_WINDOW = 30_000


@dataclass(frozen=True, slots=True)
class Known:
    """Facts of a family of models."""

    window: int = UNKNOWN_WINDOW
    max_output: int = 4096
    images: bool | None = None
    reasoning: bool = False
    tools: bool = True
    certain: bool = True
    """The window is known and not assumed."""


_TABLE: tuple[tuple[str, Known], ...] = (
    (r"gpt-5(\.\d+)?-nano", Known(400_000, 128_000, True, True)),
    (r"gpt-5(\.\d+)?-mini", Known(400_000, 128_000, True, True)),
    (r"gpt-5", Known(400_000, 128_000, True, True)),
    (r"gpt-4\.1-nano", Known(1_047_576, 32_768, True, False)),
    (r"gpt-4\.1-mini", Known(1_047_576, 32_768, True, False)),
    (r"gpt-4\.1", Known(1_047_576, 32_768, True, False)),
    (r"gpt-4o-mini", Known(128_000, 16_384, True, False)),
    (r"gpt-4o|chatgpt-4o", Known(128_000, 16_384, True, False)),
    (r"gpt-4-turbo", Known(128_000, 4096, True, False)),
    (r"gpt-4-32k", Known(32_768, 4096, False)),
    (r"gpt-4", Known(8192, 4096, False, False)),
    (r"gpt-3\.5-turbo", Known(16_385, 4096, False, False)),
    (r"gpt-oss", Known(131_072, 32_768, False, True)),
    (r"o[34](-mini|-pro)?", Known(200_000, 100_000, True, True)),
    (r"o1", Known(200_000, 100_000, True, True)),
    (r"claude-(opus-4-[1-9]|opus-4\b|3-opus|opus)", Known(200_000, 32_000, True, True)),
    (r"claude-(sonnet-4|3-7-sonnet)", Known(200_000, 64_000, True, True)),
    (r"claude-haiku-4", Known(200_000, 64_000, True, True)),
    (r"claude-3-5-haiku", Known(200_000, 8192, True, False)),
    (r"claude-3-5-sonnet", Known(200_000, 8192, True, False)),
    (r"claude-3-haiku", Known(200_000, 4096, True, False)),
    (r"claude", Known(200_000, 8192, True)),
    (r"gemini-2\.5-pro", Known(1_048_576, 65_536, True, True)),
    (r"gemini-2\.5-flash-lite", Known(1_048_576, 65_536, True, True)),
    (r"gemini-2\.5-flash", Known(1_048_576, 65_536, True, True)),
    (r"gemini", Known(1_048_576, 8192, True)),
    (r"deepseek-reasoner", Known(128_000, 64_000, False, True)),
    (r"deepseek-chat", Known(128_000, 8192, False, False)),
    (r"grok-4", Known(256_000, 64_000, True, True)),
    (r"grok-3", Known(131_072, 16_384, False, False)),
    (r"llama-?3\.[123]", Known(131_072, 8192)),
    (r"mistral-large", Known(131_072, 8192, None, False)),
    (r"qwen-?3", Known(32_768, 8192, None, True)),
)
_PATTERNS = tuple((re.compile(rf"(?:^|/|:|\.)(?:{pattern})", re.IGNORECASE), known) for pattern, known in _TABLE)
_NOT_CHAT = re.compile(
    r"whisper|tts|dall-e|moderation|image|audio|realtime|transcribe|davinci|babbage|sora|search-api|computer-use|instruct$",
    re.IGNORECASE,
)
DIMENSIONS = {
    "text-embedding-3-small": 1536,
    "text-embedding-3-large": 3072,
    "text-embedding-ada-002": 1536,
    "nomic-embed-text": 768,
    "mxbai-embed-large": 1024,
    "all-minilm": 384,
    "bge-m3": 1024,
    "text-embedding-004": 768,
    "gemini-embedding-001": 3072,
}


@lru_cache(maxsize=4096)
def known(name: str) -> Known:
    """Return what is known of a model by its name at the vendor."""
    for pattern, facts in _PATTERNS:
        if pattern.search(name):
            return facts
    return Known(certain=False)


def talks(name: str) -> bool:
    """Say whether a model that OpenAI lists answers chats."""
    return _NOT_CHAT.search(name) is None


def dimensions(name: str) -> int | None:
    """Return the components of an embedder's vectors, as far as the name tells."""
    return DIMENSIONS.get(name.split(":", maxsplit=1)[0].rpartition("/")[2])
