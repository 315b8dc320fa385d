"""Embedding: vectors of unit length, remembered by content; the texts of callers at once go out in common batches."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from functools import partial

from letta_common.actor import Actor
from letta_llm_gateway.domain.catalogue.models import AccountEmbedder, Models
from letta_llm_gateway.domain.catalogue.providers import Provider, Vector
from letta_llm_gateway.domain.embedding.embedding_lines import Item, Line, LineOptions
from letta_llm_gateway.domain.embedding.embedding_usage import EmbeddingBook
from letta_llm_gateway.domain.embedding.vectors import TextKey, VectorCache, key_of, unit
from letta_llm_gateway.domain.embedding.windows import limits_of, mean, pieces_of


@dataclass(frozen=True, slots=True)
class Embedded:
    """Vectors in the order of the texts, and the handle of the model that made them."""

    vectors: list[Vector]
    model: str


@dataclass(frozen=True, slots=True)
class EmbeddingOptions:
    """How embedding behaves."""

    line: LineOptions = field(default_factory=LineOptions)
    cache_bytes: int = 64 << 20
    cache_bytes_of_one: int = 16 << 20
    """What one organization may hold of the cache."""


@dataclass(slots=True)
class _Call:
    """The pieces of one caller: those that are known, those that are awaited, and which of these nobody asked yet."""

    background: bool
    found: dict[TextKey, Vector] = field(default_factory=dict)
    items: dict[TextKey, Item] = field(default_factory=dict)
    new: list[Item] = field(default_factory=list)
    hurried: list[Item] = field(default_factory=list)
    """Asked for in the background, and now by somebody who waits."""


class Embeddings:
    """Operations that turn texts into vectors."""

    def __init__(
        self, models: Models, options: EmbeddingOptions | None = None, book: EmbeddingBook | None = None
    ) -> None:
        self._models, self._options, self._book = models, options or EmbeddingOptions(), book
        self._cache = VectorCache(self._options.cache_bytes, self._options.cache_bytes_of_one)
        self._asked: dict[TextKey, Item] = {}
        self._lines: dict[tuple[str, str], Line] = {}

    async def embed(
        self,
        actor: Actor | None,
        handle: str,
        texts: Sequence[str],
        *,
        background: bool = False,
        within_budget: bool = False,
    ) -> Embedded:
        """Embed texts. Raises ModelNotFound, CapabilityMissing, RateLimited, or what the vendor's refusal means.

        BudgetExceeded where it is to be within the budgets of the actor, which memory's own work is not held to.

        Without a handle it is the deployment's default, whatever the organization chose: what was embedded without a
        name must be found without one, also by work of nobody.
        """
        embedder = await self._models.embedder(actor, handle or self._models.default_embedding_handle)
        async with AsyncExitStack() as ends:
            if within_budget and self._book is not None and actor is not None:
                size = sum(map(_size, texts))
                await ends.enter_async_context(self._book.held(actor, embedder, size))
            return await self._embedded(actor, embedder, texts, background=background)

    async def _embedded(
        self, actor: Actor | None, embedder: AccountEmbedder, texts: Sequence[str], *, background: bool
    ) -> Embedded:
        line = self._line(embedder, await self._models.embedding_provider(embedder))
        window = limits_of(embedder.account.provider_type, embedder.name).window
        owner = actor.organization_id if actor else ""
        cut = [[(key_of(owner, embedder.handle, piece), piece) for piece in pieces_of(text, window)] for text in texts]
        call = self._ask(line, [piece for text in cut for piece in text], _Call(background))
        for key, item in call.items.items():
            call.found[key] = await asyncio.shield(item.made)
        if self._book is not None and call.new and actor is not None:
            self._book.book(actor, embedder, sum(item.size for item in call.new))
        joined = [mean([call.found[key] for key, _ in text], [_size(piece) for _, piece in text]) for text in cut]
        return Embedded([unit(vector) for vector in joined], embedder.handle)

    async def close(self) -> None:
        """End what is under way."""
        for line in self._lines.values():
            await line.close()

    def _ask(self, line: Line, pieces: Sequence[tuple[TextKey, str]], call: _Call) -> _Call:
        """Put what is neither known nor asked for into the line. Raises RateLimited before anything is put there."""
        for key, piece in pieces:
            if key in call.found or key in call.items:
                continue
            if (vector := self._cache.get(key)) is not None:
                call.found[key] = vector
                continue
            item = self._asked.get(key)
            if item is None:
                made = asyncio.get_running_loop().create_future()
                item = Item(key, piece, call, made, _size(piece))
                call.new.append(item)
            elif not call.background:
                call.hurried.append(item)
            call.items[key] = item
        if call.new:
            line.check_room(call.new[0].tenant, sum(item.size for item in call.new))
        for item in call.new:
            self._asked[item.key] = item
            item.made.add_done_callback(partial(self._keep, item.key))
        line.put(call.new, call.hurried, background=call.background)
        return call

    def _keep(self, key: TextKey, made: asyncio.Future[Vector]) -> None:
        self._asked.pop(key, None)
        if not made.cancelled() and made.exception() is None:
            self._cache.put(key, made.result())

    def _line(self, embedder: AccountEmbedder, provider: Provider) -> Line:
        key = (embedder.account.organization_id, embedder.handle)
        line = self._lines.get(key)
        if line is None or line.provider is not provider:
            if len(self._lines) > 1000:
                self._lines = {key: line for key, line in self._lines.items() if line.busy}
            limits = limits_of(embedder.account.provider_type, embedder.name)
            line = self._lines[key] = Line(provider, embedder.name, limits, self._options.line)
        return line


def _size(text: str) -> int:
    return len(text.encode(errors="surrogatepass"))
