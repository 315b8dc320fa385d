"""Embedding: vectors of unit length, remembered by content, calls joined in batches."""

from __future__ import annotations

import asyncio
import hashlib
import math
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

from letta_common.actor import Actor
from letta_common.errors import AppError
from letta_llm_gateway.domain.models import Embedder, Models
from letta_llm_gateway.domain.providers import Vector
from letta_llm_gateway.domain.resilience import Retry

_BATCH = 128
_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and the handle of the model that made them."""

    vectors: list[Vector]
    model: str


class Embeddings:
    """Operations that turn texts into vectors."""

    def __init__(self, models: Models, *, retry: Retry | None = None, remembered: int = 2048) -> None:
        self._models = models
        self._retry = retry or Retry()
        self._remembered = remembered
        self._cache: OrderedDict[tuple[str, str, bytes], Vector] = OrderedDict()
        self._asked: dict[tuple[str, str, bytes], asyncio.Future[Vector]] = {}

    async def embed(self, actor: Actor | None, handle: str, texts: Sequence[str]) -> Embedded:
        """Embed texts. Raises ModelNotFound, CapabilityMissing, or what the vendor's refusal means."""
        embedder = await self._models.embedder(actor, handle)
        owner = embedder.account.organization_id
        keys = [(owner, embedder.handle, hashlib.sha256(text.encode()).digest()) for text in texts]
        found = {key: vector for key in keys if (vector := self._cache.get(key)) is not None}
        elsewhere = {key: self._asked[key] for key in keys if key in self._asked and key not in found}
        missing = {
            key: text for key, text in zip(keys, texts, strict=True) if key not in found and key not in elsewhere
        }
        found.update(await self._made(embedder, missing))
        for key, future in elsewhere.items():
            found[key] = await asyncio.shield(future)
        return Embedded([found[key] for key in keys], embedder.handle)

    async def _made(
        self, embedder: Embedder, missing: dict[tuple[str, str, bytes], str]
    ) -> dict[tuple[str, str, bytes], Vector]:
        """Embed what is new; whoever asks for the same meanwhile waits for these."""
        loop = asyncio.get_running_loop()
        futures = {key: loop.create_future() for key in missing}
        self._asked.update(futures)
        try:
            vectors = await self._batched(embedder, list(missing.values()))
        except BaseException as error:
            for future in futures.values():
                future.set_exception(error if isinstance(error, AppError) else AppError("the embedding was not made"))
                future.exception()  # nobody may wait for it
            raise
        finally:
            for key in missing:
                self._asked.pop(key, None)
        made = dict(zip(missing, map(unit, vectors), strict=True))
        for key, vector in made.items():
            futures[key].set_result(vector)
            self._cache[key] = vector
        while len(self._cache) > self._remembered:
            self._cache.popitem(last=False)
        return made

    async def _batched(self, embedder: Embedder, texts: list[str]) -> list[Vector]:
        provider = await self._models.embedding_provider(embedder)
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(batch: list[str]) -> list[Vector]:
            attempt = 0
            while True:
                attempt += 1
                try:
                    async with slots:
                        return await provider.embed(embedder.name, batch)
                except AppError as error:
                    pause = self._retry.wait(error, attempt)
                    if pause is None:
                        raise
                await asyncio.sleep(pause)

        batches = [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]
        return [vector for made in await asyncio.gather(*map(one, batches)) for vector in made]


def unit(vector: Vector) -> Vector:
    """Return the vector with length 1; one of length 0 stays as it is."""
    length = math.sqrt(sum(value * value for value in vector))
    return vector if not length or abs(length - 1) < 1e-4 else [value / length for value in vector]
