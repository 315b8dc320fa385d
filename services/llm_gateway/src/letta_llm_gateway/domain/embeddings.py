"""Embedding: vectors of unit length, remembered by content; the texts of callers at once go out in common batches."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial

from letta_common.actor import Actor
from letta_common.errors import AppError, InternalError, LLMRateLimit, LLMUnavailable
from letta_llm_gateway.domain.embedding_usage import EmbeddingBook
from letta_llm_gateway.domain.models import Embedder, Models
from letta_llm_gateway.domain.providers import Provider, Vector
from letta_llm_gateway.domain.resilience import Retry
from letta_llm_gateway.domain.vectors import TextKey, VectorCache, key_of, unit


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and the handle of the model that made them."""

    vectors: list[Vector]
    model: str


@dataclass(frozen=True, slots=True)
class Options:
    """How embedding behaves."""

    batch: int = 96
    """Most texts of one call of a vendor."""
    at_once: int = 4
    """Most calls of one embedder at once; of those that nobody waits for, one."""
    window: float = 0.002
    """Seconds over which the texts of callers are joined."""
    background_pause: float = 0.0
    """Seconds between two batches that nobody waits for."""
    cache_bytes: int = 64 << 20
    cache_bytes_of_one: int = 16 << 20
    """What one organization may hold of the cache."""
    retry: Retry = field(default_factory=Retry)


@dataclass(slots=True, eq=False)
class _Item:
    """A text that waits for its vector."""

    key: TextKey
    text: str
    caller: object
    made: asyncio.Future[Vector]
    taken: bool = False
    """It is in a batch, or was."""


class Embeddings:
    """Operations that turn texts into vectors."""

    def __init__(self, models: Models, options: Options | None = None, book: EmbeddingBook | None = None) -> None:
        self._models, self._options, self._book = models, options or Options(), book
        self._cache = VectorCache(self._options.cache_bytes, self._options.cache_bytes_of_one)
        self._asked: dict[TextKey, _Item] = {}
        self._lines: dict[tuple[str, str], _Line] = {}

    async def embed(
        self, actor: Actor | None, handle: str, texts: Sequence[str], *, background: bool = False
    ) -> Embedded:
        """Embed texts. Raises ModelNotFound, CapabilityMissing, or what the vendor's refusal means.

        Without a handle it is the deployment's default, whatever the organization chose: what was embedded without a
        name must be found without one, also by work of nobody.
        """
        embedder = await self._models.embedder(actor, handle or self._models.default_embedding_handle)
        provider = await self._models.embedding_provider(embedder)
        owner = actor.organization_id if actor else ""
        keys = [key_of(owner, embedder.handle, text) for text in texts]
        found: dict[TextKey, Vector] = {}
        items: dict[TextKey, _Item] = {}
        new: list[_Item] = []
        hurried: list[_Item] = []  # asked for in the background, and now by somebody who waits
        for key, text in zip(keys, texts, strict=True):
            if key in found or key in items:
                continue
            if (vector := self._cache.get(key)) is not None:
                found[key] = vector
                continue
            item = self._asked.get(key)
            if item is None:
                item = self._asked[key] = _Item(key, text, items, asyncio.get_running_loop().create_future())
                item.made.add_done_callback(partial(self._keep, key))
                new.append(item)
            elif not background:
                hurried.append(item)
            items[key] = item
        line = self._line(embedder, provider)
        line.put([*new, *hurried] if not background else new, background=background)
        for key, item in items.items():
            found[key] = await asyncio.shield(item.made)
        if self._book is not None and new and actor is not None:
            self._book.book(actor, embedder, sum(len(item.text.encode()) for item in new))
        return Embedded([found[key] for key in keys], embedder.handle)

    async def close(self) -> None:
        """End what is under way."""
        for line in self._lines.values():
            await line.close()

    def _keep(self, key: TextKey, made: asyncio.Future[Vector]) -> None:
        self._asked.pop(key, None)
        if not made.cancelled() and made.exception() is None:
            self._cache.put(key, made.result())

    def _line(self, embedder: Embedder, provider: Provider) -> _Line:
        key = (embedder.account.organization_id, embedder.handle)
        line = self._lines.get(key)
        if line is None or line.provider is not provider:
            if len(self._lines) > 1000:
                self._lines = {key: line for key, line in self._lines.items() if line.busy}
            line = self._lines[key] = _Line(provider, embedder.name, self._options)
        return line


class _Line:
    """Texts that wait for one embedder: those that somebody waits for go first."""

    def __init__(self, provider: Provider, name: str, options: Options) -> None:
        self.provider = provider
        self._name, self._options = name, options
        self._urgent: deque[_Item] = deque()
        self._background: deque[_Item] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._quiet = False
        """A batch that nobody waits for is under way, or its pause."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def busy(self) -> bool:
        """Say whether anything waits or is under way."""
        return bool(self._urgent or self._background or self._running)

    async def close(self) -> None:
        """End what is under way."""
        if self._timer is not None:
            self._timer.cancel()
        self._urgent.clear()
        self._background.clear()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def put(self, items: Sequence[_Item], *, background: bool) -> None:
        """Take texts; they go out after the window, or at once when a batch is full."""
        (self._background if background else self._urgent).extend(items)
        if len(self._urgent) >= self._options.batch:
            self._send()
        elif items and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._options.window, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._urgent and len(self._running) < self._options.at_once:
            if batch := self._taken(self._urgent):
                self._begin(batch, background=False)
        while self._background and not self._quiet and len(self._running) < self._options.at_once:
            if batch := self._taken(self._background):
                self._quiet = True
                self._begin(batch, background=True)

    def _taken(self, waiting: deque[_Item]) -> list[_Item]:
        batch: list[_Item] = []
        while waiting and len(batch) < self._options.batch:
            item = waiting.popleft()
            if not item.taken:
                item.taken = True
                batch.append(item)
        return batch

    def _begin(self, batch: list[_Item], *, background: bool) -> None:
        task = asyncio.create_task(self._run(batch, background=background))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._send()

    async def _run(self, batch: list[_Item], *, background: bool) -> None:
        try:
            await self._made(batch)
        finally:
            for item in batch:
                if not item.made.done():
                    item.made.set_exception(InternalError("the embedding was not made"))
                    item.made.exception()
            if background:
                if self._options.background_pause:
                    await asyncio.sleep(self._options.background_pause)
                self._quiet = False

    async def _made(self, batch: list[_Item]) -> None:
        try:
            vectors = await self._embedded([item.text for item in batch])
        except AppError as error:
            callers: dict[int, list[_Item]] = {}
            for item in batch:
                callers.setdefault(id(item.caller), []).append(item)
            if len(callers) > 1 and not isinstance(error, (LLMUnavailable, LLMRateLimit)):
                for each in callers.values():  # one caller's text must not fail what others asked
                    await self._made(each)
                return
            for item in batch:
                item.made.set_exception(error)
                item.made.exception()  # nobody may wait for it
            return
        for item, vector in zip(batch, vectors, strict=True):
            item.made.set_result(unit(vector))

    async def _embedded(self, texts: list[str]) -> list[Vector]:
        attempt = 0
        while True:
            attempt += 1
            try:
                return await self.provider.embed(self._name, texts)
            except AppError as error:
                pause = self._options.retry.wait(error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)
