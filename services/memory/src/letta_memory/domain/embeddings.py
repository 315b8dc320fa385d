"""Turning texts into vectors: what memory asks of an embedder, and the background work of what waits for one."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from cachetools import TTLCache

from letta.llm.v1.embedding_service_pb2 import EmbedResponse
from letta.memory.v1.archive_pb2 import EmbeddingConfig
from letta_common.actor import current_request
from letta_common.clock import Clock
from letta_common.errors import (
    AppError,
    DeadlineExceeded,
    EmbeddingDimensionChanged,
    LLMTimeout,
    LLMUnavailable,
    ModelNotFound,
    ServiceUnavailable,
)
from letta_common.process.periodic import Next

_log = structlog.get_logger("letta.memory.embeddings")


_CHUNK_SIZE, _BATCH_SIZE = 300, 32  # what V1 clients expect to read


class Embedder(Protocol):
    """Turns texts into vectors."""

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> EmbedResponse:
        """Embed texts with a model, or the default one. Raises AppError when it cannot be done now.

        Work of nobody names the organization whose texts they are.
        """
        ...


@dataclass(frozen=True, slots=True)
class PendingText:
    """A text that waits to be embedded, whoever it belongs to."""

    kind: str
    organization_id: str
    id: str
    embedder: str
    text: str
    archive_id: str = ""

    @property
    def batch(self) -> tuple[str, str]:
        """What texts that are embedded with one call have in common: whose they are, and the embedder."""
        return self.organization_id, self.embedder


@dataclass(frozen=True, slots=True)
class Failure:
    """Why texts are not embedded yet: of all archives of a batch, or of the one named."""

    reason: str
    message: str
    archive_id: str = ""


class PendingStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def list_pending(self, limit: int) -> list[PendingText]:
        """Return some texts that wait, of organizations in turn."""
        ...

    async def settle(self, texts: Sequence[PendingText], vectors: EmbedResponse) -> None:
        """Store the vectors of texts of one organization. Raises EmbeddingDimensionChanged."""
        ...

    async def fail(self, texts: Sequence[PendingText], failure: Failure) -> None:
        """Note why texts of one organization are not embedded yet."""
        ...


def embedding_config(handle: str, dimensions: int | None, chunk_size: int = _CHUNK_SIZE) -> EmbeddingConfig | None:
    """Return how an archive or a passage is embedded, as clients read it; None where nothing embeds it."""
    if not handle:
        return None
    provider, _, model = handle.partition("/")
    return EmbeddingConfig(
        embedding_endpoint_type=provider,
        embedding_model=model or provider,
        embedding_dim=dimensions or 0,
        embedding_chunk_size=chunk_size,
        handle=handle,
        batch_size=_BATCH_SIZE,
    )


async def resolve_embedder(embedder: Embedder, model: str, text: str) -> EmbeddingConfig | None:
    """Ask for an embedder's full name and dimension with some text; without an answer the first passage tells.

    Raises:
        ModelNotFound: no provider offers the embedder.
    """
    try:
        vectors = await embedder.embed(model, [text])
    except ModelNotFound:
        raise
    except AppError:
        return embedding_config(model, None)
    return embedding_config(vectors.model, len(vectors.embeddings[0].values))


_SPEAKER = re.compile(r"^[^\W\d_][\w.-]{0,40}: ")
_SHORT = 400  # characters: a turn of talk, which says little without the one before it


def with_turn_before(before: str, text: str) -> str:
    """Return what is embedded of a message: where it and the one before it are short, both, without their speakers."""
    text = _SPEAKER.sub("", text)
    if not before or len(before) > _SHORT or len(text) > _SHORT:
        return text
    return f"{_SPEAKER.sub('', before)}\n{text}"


def dimension_changed(model: str, size: int, archive_id: str, dimensions: int) -> EmbeddingDimensionChanged:
    """Return the error for vectors that cannot be compared with those that an archive has."""
    text = (
        f"{model} makes vectors of {size} components, those of archive {archive_id} have {dimensions}; "
        "its passages are found by their words until it is embedded anew (ReembedArchive)"
    )
    return EmbeddingDimensionChanged(text, archive_id=archive_id)


class Indexer:
    """Embeds, in the background and in batches, what was stored without a vector or with one of a former embedder."""

    def __init__(self, store: PendingStore, embedder: Embedder, *, batch: int) -> None:
        self._store = store
        self._embedder = embedder
        self._batch = batch

    async def turn(self) -> Next:
        """Embed one batch; when there was one, there may be more."""
        return Next.AT_ONCE if await self.step() else Next.AFTER_A_PAUSE

    async def step(self) -> int:
        """Embed some texts; return how many. An embedder that fails holds up the texts of no other."""
        groups: dict[tuple[str, str], list[PendingText]] = {}
        for text in await self._store.list_pending(self._batch):
            groups.setdefault(text.batch, []).append(text)
        return sum(await asyncio.gather(*(self._embed(texts) for texts in groups.values())))

    async def _embed(self, texts: Sequence[PendingText]) -> int:
        done = 0
        for start in range(0, len(texts), self._batch):
            batch = texts[start : start + self._batch]
            owner, model = batch[0].organization_id, batch[0].embedder
            try:
                vectors = await self._embedder.embed(model, [text.text for text in batch], organization_id=owner)
                await self._store.settle(batch, vectors)
                done += len(batch)
            except AppError as error:
                _log.warning("texts wait to be embedded", organization_id=owner, model=model, message=error.message)
                await self._store.fail(
                    batch, Failure(error.reason, error.message, error.metadata.get("archive_id", ""))
                )
                # The same embedder would refuse the next batch as well; the texts come again at a later turn.
                break
        return done


# A refusal that comes at once costs a write nothing, so only slow failures keep the embedder from being asked.
_SLOW_SECONDS, _REST_SECONDS = 1.0, 5.0
_REMEMBERED = 1_000  # pairs of organization and model; one that is forgotten costs one more wait
_AWAY = (ServiceUnavailable, DeadlineExceeded, LLMUnavailable, LLMTimeout)


class Impatient:
    """An embedder that is not asked for a while after it let callers wait in vain, so that not each write waits."""

    def __init__(self, inner: Embedder, clock: Clock) -> None:
        self._inner = inner
        self._clock = clock
        self._away: TTLCache[tuple[str, str], bool] = TTLCache(_REMEMBERED, _REST_SECONDS, self._now)

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> EmbedResponse:
        """Embed texts. Raises AppError when it cannot be done now."""
        actor = current_request().actor
        key = (actor.organization_id if actor else organization_id, model)
        if key in self._away:
            raise ServiceUnavailable("the embedder did not answer a moment ago; texts are embedded later")
        asked = self._now()
        try:
            return await self._inner.embed(model, texts, organization_id=organization_id)
        except _AWAY:
            if self._now() - asked > _SLOW_SECONDS:
                self._away[key] = True
            raise

    def _now(self) -> float:
        return self._clock.monotonic_ns() / 1e9
