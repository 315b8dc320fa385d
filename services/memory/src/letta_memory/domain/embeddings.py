"""Turning texts into vectors: what memory asks of an embedder, and the background work of what waits for one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from letta_common.errors import AppError

Vector = Sequence[float]
_log = logging.getLogger("letta.memory.embeddings")


@dataclass(frozen=True, slots=True)
class Vectors:
    """Vectors of texts, and the handle of the model that made them."""

    model: str
    values: Sequence[Vector]


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, model: str, texts: Sequence[str]) -> Vectors:
        """Embed texts with a model, or the default one. Raises AppError when it cannot be done now."""
        ...


@dataclass(frozen=True, slots=True)
class PendingText:
    """A text that waits to be embedded, whoever it belongs to."""

    kind: str
    organization_id: str
    id: str
    embedder: str
    text: str


class PendingStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def pending(self, limit: int) -> list[PendingText]:
        """Return some texts that wait."""
        ...

    async def settle(self, texts: Sequence[PendingText], vectors: Vectors) -> None:
        """Store the vectors of texts, which then wait no more."""
        ...


class Indexer:
    """Embeds, in the background and in batches, what was stored without a vector."""

    def __init__(self, store: PendingStore, embedder: Embedder, *, batch: int, pause_seconds: float) -> None:
        self._store = store
        self._embedder = embedder
        self._batch = batch
        self._pause_seconds = pause_seconds

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            try:
                busy = await self.step() == self._batch
            except AppError as error:
                _log.warning("texts wait to be embedded: %s", error.message)
                busy = False
            await asyncio.sleep(0 if busy else self._pause_seconds)

    async def step(self) -> int:
        """Embed one batch; return how many texts it had. Raises AppError when the embedder does not answer."""
        waiting = await self._store.pending(self._batch)
        by_model: dict[str, list[PendingText]] = {}
        for text in waiting:
            by_model.setdefault(text.embedder, []).append(text)
        for model, texts in by_model.items():
            vectors = await self._embedder.embed(model, [text.text for text in texts])
            await self._store.settle(texts, vectors)
        return len(waiting)
