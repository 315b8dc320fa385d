"""The background work on texts that wait to be embedded."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta_common.errors import LLMUnavailable
from letta_common.process.periodic import Periodic
from letta_memory.domain.embeddings import Failure, Indexer, PendingText


class Store:
    """Texts that wait, and the vectors of those that no longer do."""

    def __init__(self, count: int) -> None:
        self.waiting = [
            PendingText("passage", "org-a", f"passage-{number}", "m/a" if number % 2 else "m/b", f"text {number}")
            for number in range(count)
        ]
        self.settled: dict[str, str] = {}
        self.failures: dict[tuple[str, str], str] = {}
        self.empty = asyncio.Event()

    async def list_pending(self, limit: int) -> list[PendingText]:
        return self.waiting[:limit]

    async def fail(self, texts: Sequence[PendingText], failure: Failure) -> None:
        self.failures[texts[0].organization_id, texts[0].embedder] = failure.reason

    async def settle(self, texts: Sequence[PendingText], vectors: EmbedResponse) -> None:
        self.settled |= {text.id: vectors.model for text in texts}
        self.waiting = [text for text in self.waiting if text.id not in self.settled]
        if not self.waiting:
            self.empty.set()


class Embedder:
    """Answers with vectors of length one, unless it is down."""

    def __init__(self, failures: int = 0) -> None:
        self.failures = failures
        self.batches: list[int] = []

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> EmbedResponse:
        assert organization_id == "org-a"
        self.batches.append(len(texts))
        if self.failures:
            self.failures -= 1
            raise LLMUnavailable("down")
        return EmbedResponse(model=model, embeddings=[Embedding(values=[1.0])] * len(texts))


async def test_a_step_takes_one_batch_grouped_by_model() -> None:
    store, embedder = Store(5), Embedder()
    indexer = Indexer(store, embedder, batch=4)
    assert await indexer.step() == 4
    assert embedder.batches == [2, 2]
    assert store.settled == {"passage-0": "m/b", "passage-1": "m/a", "passage-2": "m/b", "passage-3": "m/a"}
    assert [await indexer.step(), await indexer.step()] == [1, 0]


async def test_it_runs_on_until_nothing_waits_and_survives_failures() -> None:
    store = Store(9)
    indexer = Indexer(store, Embedder(failures=1), batch=2)
    background = Periodic("embed", indexer.turn, 0.001, at_once=True)
    background.start()
    async with asyncio.timeout(10):
        await store.empty.wait()
    await background.stop()
    assert len(store.settled) == 9


async def test_an_embedder_that_fails_holds_up_no_other() -> None:
    class Picky(Embedder):
        async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> EmbedResponse:
            if model == "m/a":
                raise LLMUnavailable("down")
            return await super().embed(model, texts, organization_id=organization_id)

    store = Store(6)
    assert await Indexer(store, Picky(), batch=6).step() == 3
    assert set(store.settled) == {"passage-0", "passage-2", "passage-4"}
    assert store.failures == {("org-a", "m/a"): "LLM_UNAVAILABLE"}
