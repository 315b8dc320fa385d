"""What a search costs: archives of several sizes among a thousand others, and one of a small vocabulary.

Figures are processor time in milliseconds, of the backend of Postgres (`/proc/PID/schedstat`) and of this process,
for one connection whose statements are prepared. Words are as rare as those of talk without its stop words; vectors
lie around topics. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np  # noqa: TID253

from letta.common.v1.message_pb2 import Message, MessageRole
from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.archive_pb2 import Archive
from letta.memory.v1.passage_pb2 import Passage
from letta.memory.v1.passage_service_pb2 import SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_memory.domain.passages import PassageScope
from letta_memory.domain.search.cells import CellMaker
from letta_memory.domain.search.index import LateConversations, SearchKeeper
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.search.cells import SqlSearchCellStore
from letta_memory.store.search.index import SqlSearchIndexStore
from letta_postgres.db import Database, DatabaseOptions
from letta_postgres.migrations import upgrade

SIZES = {"1k": 1_000, "10k": 10_000, "100k": 100_000}
OTHERS, OTHER_SIZE = 1_000, 50
SMALL_VOCABULARY, SMALL_SIZE = 60, 1_441
GOALS = {"1k": 5.0, "10k": 10.0, "100k": 15.0, "small_vocabulary": 6.0}
WORDS, TOPICS, DIMENSIONS = 20_000, 2_000, 512
MODEL = "bench/vectors"
BATCH, SEARCHES, WARM = 500, 60, 8
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass
class Corpus:
    """Texts and vectors, the same in each run."""

    numbers: np.random.Generator = field(default_factory=lambda: np.random.default_rng(1))
    letters: random.Random = field(default_factory=lambda: random.Random(1))

    def __post_init__(self) -> None:
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = ["w" + "".join(self.letters.choices(letters, k=self.letters.randint(3, 8))) for _ in range(WORDS)]
        weights = 1 / (np.arange(1, WORDS + 1) + 100.0)
        self.weights = weights / weights.sum()
        self.topics = self.numbers.normal(size=(TOPICS, DIMENSIONS)).astype("f4")

    def texts(self, count: int, *, vocabulary: int = WORDS) -> list[str]:
        """Return texts of 16 words."""
        if vocabulary < WORDS:
            return [" ".join(self.letters.choices(self.words[:vocabulary], k=16)) for _ in range(count)]
        chosen = self.numbers.choice(WORDS, (count, 16), p=self.weights)
        return [" ".join(self.words[index] for index in row) for row in chosen]

    def vectors(self, count: int) -> np.ndarray[Any, Any]:
        """Return vectors of length one around the topics."""
        rows = self.topics[self.numbers.integers(TOPICS, size=count)]
        rows = rows + self.numbers.normal(size=rows.shape).astype("f4") * 0.8
        made: np.ndarray[Any, Any] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return made


class Meter:
    """Processor time of the one backend and of this process."""

    def __init__(self, pid: int) -> None:
        self._file = Path(f"/proc/{pid}/schedstat")

    def read(self) -> tuple[float, float]:
        """Return milliseconds used so far, of Postgres and of this process."""
        return int(self._file.read_text().split()[0]) / 1e6, time.process_time() * 1e3


class Bench:
    """The stores of memory on one connection."""

    def __init__(self, db: Database, meter: Meter) -> None:
        self.db, self.meter, self.corpus = db, meter, Corpus()
        self.actor = Actor(new_id("org"), new_id("user"))
        self.archives, self.passages = SqlArchiveStore(db), SqlPassageStore(db)
        self.late = LateConversations()
        cells = CellMaker(SqlSearchCellStore(db))
        self.keeper = SearchKeeper(SqlSearchIndexStore(db), self.late, cells, embed_messages=False)

    async def archive(self) -> str:
        """Make an archive."""
        stamp = stamp_of(START)
        archive = Archive(id=new_id("archive"), name="bench", created_at=stamp, updated_at=stamp)
        return (await self.archives.create(self.actor, archive)).id

    async def fill(self, archive_id: str, count: int, *, vocabulary: int = WORDS, batch: int = BATCH) -> list[Passage]:
        """Write passages with their vectors; return the last batch."""
        written: list[Passage] = []
        for start in range(0, count, batch):
            size = min(batch, count - start)
            texts, vectors = self.corpus.texts(size, vocabulary=vocabulary), self.corpus.vectors(size)
            drafts = [
                Passage(
                    id=new_id("passage"),
                    text=text,
                    metadata="{}",
                    created_at=stamp_of(START + timedelta(minutes=start + number)),
                    embedding=vector.tolist(),
                )
                for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
            ]
            scope = PassageScope(archive_id=archive_id)
            made = await self.passages.create(self.actor, scope, drafts, embedder=MODEL, request_hash=b"", now=START)
            written = list(made.rows)
        return written

    async def search(self, archive_id: str, query: str, vector: list[float], limit: int = 10) -> list[Any]:
        """Search an archive as the service does."""
        question = EmbedResponse(model=MODEL, embeddings=[Embedding(values=vector)])
        request = SearchPassagesRequest(query=query, limit=limit)
        return await self.passages.search(self.actor, [archive_id], request, [question], embeddings=False, now=START)

    async def searches(self, archive_id: str, like: list[Passage]) -> dict[str, float]:
        """Return what searches of six words cost, whose vectors lie near passages."""
        spent = []
        for number in range(SEARCHES + WARM):
            passage = self.corpus.letters.choice(like)
            query = " ".join(self.corpus.letters.sample(passage.text.split(), 6))
            before = self.meter.read()
            await self.search(archive_id, query, list(passage.embedding))
            if number >= WARM:
                spent.append([after - was for after, was in zip(self.meter.read(), before, strict=True)])
        found = {}
        for name, values in zip(("postgres", "service"), zip(*spent, strict=True), strict=True):
            ordered = sorted(values)
            found[f"{name}_p50_ms"] = round(statistics.median(ordered), 2)
            found[f"{name}_p95_ms"] = round(ordered[int(len(ordered) * 0.95)], 2)
        return found

    async def recall(self, archive_id: str, like: list[Passage]) -> float:
        """Return how many of the ten nearest of all a search has among its ten nearest.

        Nearest as search means it: to the query less the mean of the scope.
        """
        exact = (
            "select t.passage_id from memory.search_scopes s join memory.search_texts t "
            "on t.organization_id = s.organization_id and t.scope = s.scope "
            "where s.organization_id = %s and s.owner_id = %s order by "
            "t.embedding operator(extensions.<#>) (%s::extensions.halfvec operator(extensions.-) s.mean) limit 10"
        )
        shares = []
        for passage in self.corpus.letters.sample(like, 40):
            vector = (np.array(passage.embedding) + self.corpus.numbers.normal(size=DIMENSIONS) * 0.02).tolist()
            nearest = {
                row[0] for row in await self.db.hot(exact, (self.actor.organization_id, archive_id, str(vector)))
            }
            hits = await self.search(archive_id, "nothing", vector, limit=50)
            shares.append(len(nearest & {hit.passage.id for hit in hits if hit.ranks.meaning_rank <= 10}) / 10)
        return round(statistics.mean(shares), 3)

    async def one_more(self, archive_id: str) -> dict[str, float]:
        """Return what one passage and one message more cost Postgres, and what indexing the message does later."""
        before = self.meter.read()
        await self.fill(archive_id, 300, batch=1)
        passage = (self.meter.read()[0] - before[0]) / 300
        contexts = SqlContextStore(self.db, self.late)
        agent_id = new_id("agent")
        await contexts.provision_agent(self.actor, pb.ProvisionAgentRequest(agent_id=agent_id), [])
        owner: dict[str, Any] = {"agent_id": agent_id, "conversation_id": agent_id, "run_id": new_id("run"), "fence": 1}
        await contexts.begin_step(self.actor, pb.BeginStepRequest(**owner))
        texts = self.corpus.texts(600)
        before = self.meter.read()
        for step in range(300):
            request = pb.CommitStepRequest(**owner, step_index=step, messages=[_message(texts[step])])
            await contexts.commit_step(self.actor, request)
        one = (self.meter.read()[0] - before[0]) / 300
        before = self.meter.read()
        for step in range(300):
            pair = [_message(texts[step]), _message(texts[step + 300])]
            await contexts.commit_step(self.actor, pb.CommitStepRequest(**owner, step_index=300 + step, messages=pair))
        two = (self.meter.read()[0] - before[0]) / 300
        before = self.meter.read()
        await self.keeper.settle()
        indexed = (self.meter.read()[0] - before[0]) / 900
        costs = {"one_passage_ms": passage, "one_message_ms": two - one, "index_one_message_ms": indexed}
        return {name: round(value, 3) for name, value in costs.items()}


def _message(text: str) -> Message:
    made = Message(id=new_id("message"), role=MessageRole.MESSAGE_ROLE_USER, created_at=stamp_of(START))
    made.parts.add().text.text = text
    return made


async def measure(dsn: str, sizes: dict[str, int], others: int) -> dict[str, Any]:
    """Fill a database and search it; return the report."""
    await upgrade(dsn, package="letta_memory", schema="memory")
    db = await Database.open(dsn, schema="memory", options=DatabaseOptions(pool_size=1, statement_timeout_ms=600_000))
    [(pid,)] = await db.hot("select pg_backend_pid()")
    bench = Bench(db, Meter(pid))
    for _ in range(others):
        await bench.fill(await bench.archive(), OTHER_SIZE)
    report: dict[str, Any] = {"goals_ms": GOALS}
    filled = {}
    for name, size in [*sizes.items(), ("small_vocabulary", SMALL_SIZE)]:
        archive_id, begun = await bench.archive(), time.monotonic()
        small = name == "small_vocabulary"
        filled[name] = archive_id, await bench.fill(archive_id, size, vocabulary=SMALL_VOCABULARY if small else WORDS)
        report[name] = {"bulk_passages_per_second": round(size / (time.monotonic() - begun))}
    await bench.keeper.settle()
    report["scopes_left_to_count"] = (await db.hot("select count(*) from memory.search_scopes where due"))[0][0]
    async with db.raw() as conn:
        await conn.execute("vacuum analyze")
    for name, (archive_id, like) in filled.items():
        report[name] |= await bench.searches(archive_id, like)
        cells = "select cells from memory.search_scopes where organization_id = %s and owner_id = %s"
        report[name]["cells"] = (await db.hot(cells, (bench.actor.organization_id, archive_id)))[0][0]
        _say(name, report[name])
    largest = list(sizes)[-1]
    report["recall_at_10"] = await bench.recall(*filled[largest])
    report |= await bench.one_more(filled["small_vocabulary"][0])
    await db.close()
    return report


def _say(name: str, figures: dict[str, Any]) -> None:
    sys.stdout.write(f"{name}: {figures}\n")
    sys.stdout.flush()


def main() -> None:
    """Measure, and print a report whose last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--small", action="store_true", help="smaller archives, to see whether it works")
    small = parser.parse_args().small
    sizes = {"1k": 1_000, "2k": 2_000} if small else SIZES
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        options = PostgresOptions(durable=False, parameters={"shared_buffers": "1GB", "autovacuum": "off"})
        with EmbeddedPostgres(Path(home) / "pg", options) as server:
            report = asyncio.run(measure(server.dsn(), sizes, 20 if small else OTHERS))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
