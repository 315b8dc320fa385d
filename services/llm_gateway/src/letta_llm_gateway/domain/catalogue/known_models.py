"""What is known of models by name, for what vendors do not say themselves: reads `models.toml`, which says how."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files

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


@dataclass(frozen=True)
class Row:
    """A row of the table."""

    name: str
    window: int | None = None
    max_output: int = 4096
    images: bool | None = None
    reasoning: bool = False
    tools: bool = True
    dimensions: int | None = None
    builtin: bool = False

    @cached_property
    def known(self) -> Known | None:
        """Return the facts of a language model."""
        if self.window is None:
            return None
        return Known(self.window, self.max_output, self.images, self.reasoning, self.tools)

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return re.compile(rf"(?:^|/|:|\.)(?:{self.name})", re.IGNORECASE)

    def means(self, provider_type: str, name: str) -> bool:
        """Say whether a model is meant: what this machine is has no name elsewhere."""
        return self.builtin == (provider_type == "builtin") and self._pattern.search(name) is not None


_TABLE = tomllib.loads(files(__package__).joinpath("models.toml").read_text("utf-8"))
ROWS = tuple(Row(**row) for row in _TABLE["models"])
SELLERS: dict[str, str] = _TABLE["sellers"]
PREFERRED: dict[str, list[str]] = _TABLE["preferred"]
UNLISTED: dict[str, str] = _TABLE["unlisted"]
_NO_CHAT = re.compile("|".join(_TABLE["no_chat"]), re.IGNORECASE)


@lru_cache(maxsize=4096)
def known(provider_type: str, name: str) -> Known:
    """Return what is known of a model by its name at the vendor."""
    return next((row.known for row in _meant(provider_type, name) if row.known), Known(certain=False))


def _meant(provider_type: str, name: str) -> Iterator[Row]:
    return (row for row in ROWS if row.means(provider_type, name))


def talks(name: str) -> bool:
    """Say whether a model that OpenAI lists answers chats."""
    return _NO_CHAT.search(name) is None


def dimensions(name: str) -> int | None:
    """Return the components of an embedder's vectors, as far as the name tells."""
    base = name.split(":", maxsplit=1)[0].rpartition("/")[2]
    return next((row.dimensions for row in ROWS if row.name == base and row.dimensions), None)
