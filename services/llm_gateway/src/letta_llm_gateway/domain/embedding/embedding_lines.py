"""The line of pieces that wait for one embedder: served by organization in turn, sent in bounded common batches."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import prometheus_client

from letta_common.errors import AppError, InternalError, LLMInvalidResponse, LLMRateLimit, LLMUnavailable, RateLimited
from letta_llm_gateway.domain.catalogue.providers import Provider, Vector
from letta_llm_gateway.domain.embedding.vectors import TextKey, unit
from letta_llm_gateway.domain.embedding.windows import EmbeddingLimits
from letta_llm_gateway.domain.resilience import Retry

_RETRY_SECONDS = "5"
_WAITING = prometheus_client.Gauge("letta_embedding_waiting_bytes", "Bytes of texts that wait to be embedded.")
_REFUSED = prometheus_client.Counter("letta_embedding_refused", "Calls refused: too many texts of one tenant wait.")


@dataclass(frozen=True, slots=True)
class LineOptions:
    """How pieces wait and go out."""

    batch: int = 96
    """Most pieces of one call of a vendor, whatever it would take."""
    window: float = 0.002
    """Seconds over which the pieces of callers are joined."""
    background_pause: float = 0.0
    """Seconds between two batches that nobody waits for."""
    waiting_bytes_of_one: int = 16 << 20
    """Bytes of one organization that may wait."""
    retry: Retry = field(default_factory=Retry)


@dataclass(slots=True, eq=False)
class Item:
    """A piece of text that waits for its vector."""

    key: TextKey
    text: str
    caller: object
    made: asyncio.Future[Vector]
    size: int = 0
    taken: bool = False
    """It is in a batch, or was."""

    @property
    def tenant(self) -> str:
        """The organization whose text it is."""
        return self.key.organization_id


class _Turns:
    """Items of many tenants; each tenant gives one in turn."""

    def __init__(self) -> None:
        self._queues: dict[str, deque[Item]] = {}

    def __bool__(self) -> bool:
        return bool(self._queues)

    def add(self, items: Sequence[Item]) -> None:
        for item in items:
            self._queues.setdefault(item.tenant, deque()).append(item)

    def next(self) -> Item | None:
        """Take the item whose turn it is."""
        while self._queues:
            tenant = next(iter(self._queues))
            queue = self._queues.pop(tenant)
            item = queue.popleft()
            if queue:
                self._queues[tenant] = queue  # behind the others
            if not item.taken:
                return item
        return None

    def put_back(self, item: Item) -> None:
        """Let an item be the next one."""
        queue = self._queues.pop(item.tenant, deque())
        queue.appendleft(item)
        self._queues = {item.tenant: queue, **self._queues}

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    def clear(self) -> list[Item]:
        items = [item for queue in self._queues.values() for item in queue]
        self._queues.clear()
        return items


class Line:
    """Pieces that wait for one embedder: those that somebody waits for go first, and each organization in turn."""

    def __init__(self, provider: Provider, name: str, limits: EmbeddingLimits, options: LineOptions) -> None:
        self.provider = provider
        self._name, self._limits, self._options = name, limits, options
        self._batch = min(limits.batch, options.batch)
        self._urgent, self._background = _Turns(), _Turns()
        self._waiting: Counter[str] = Counter()
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
        for item in (*self._urgent.clear(), *self._background.clear()):
            self._take(item)
            item.made.cancel()
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def check_room(self, tenant: str, size: int) -> None:
        """Raise RateLimited when so much more of a tenant may not wait. What comes to an empty line may."""
        if self._waiting[tenant] and self._waiting[tenant] + size > self._options.waiting_bytes_of_one:
            _REFUSED.inc()
            text = f"{self._waiting[tenant]} bytes of the organization's texts wait to be embedded already; try later"
            raise RateLimited(text, retry_after=_RETRY_SECONDS)

    def put(self, new: Sequence[Item], hurried: Sequence[Item], *, background: bool) -> None:
        """Take pieces; they go out after the window, or at once when a batch is full. The hurried ones wait already."""
        for item in new:
            self._waiting[item.tenant] += item.size
            _WAITING.inc(item.size)
        (self._background if background else self._urgent).add(new)
        self._urgent.add([item for item in hurried if not item.taken])
        if len(self._urgent) >= self._batch:
            self._send()
        elif (new or hurried) and self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._options.window, self._send)

    def _send(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._urgent and len(self._running) < self._limits.at_once:
            if batch := self._taken(self._urgent):
                self._begin(batch, background=False)
        while self._background and not self._quiet and len(self._running) < self._limits.at_once:
            if batch := self._taken(self._background):
                self._quiet = True
                self._begin(batch, background=True)

    def _taken(self, waiting: _Turns) -> list[Item]:
        """Take a batch, one piece of each organization in turn."""
        batch: list[Item] = []
        left = self._limits.batch_bytes
        while len(batch) < self._batch and (item := waiting.next()) is not None:
            if batch and item.size > left:
                waiting.put_back(item)
                break
            left -= item.size
            self._take(item)
            batch.append(item)
        return batch

    def _take(self, item: Item) -> None:
        if not item.taken:
            item.taken = True
            self._waiting[item.tenant] -= item.size
            _WAITING.dec(item.size)
            if not self._waiting[item.tenant]:
                del self._waiting[item.tenant]

    def _begin(self, batch: list[Item], *, background: bool) -> None:
        task = asyncio.create_task(self._run(batch, background=background))
        self._running.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._send()

    async def _run(self, batch: list[Item], *, background: bool) -> None:
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

    async def _made(self, batch: list[Item]) -> None:
        try:
            vectors = await self._embedded([item.text for item in batch])
        except AppError as error:
            callers: dict[int, list[Item]] = {}
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
                return self._checked(await self.provider.embed(self._name, texts))
            except AppError as error:
                pause = self._options.retry.wait(error, attempt)
                if pause is None:
                    raise
            await asyncio.sleep(pause)

    def _checked(self, vectors: list[Vector]) -> list[Vector]:
        if len({len(vector) for vector in vectors}) > 1 or not all(map(len, vectors)):
            raise LLMInvalidResponse(f"{self._name} made vectors of several dimensions, or empty ones")
        return vectors
