"""How well search finds what was said: LoCoMo and BEAM, from paths, or a generated corpus of the same shapes.

`python -m benchmarks.memory.quality --locomo locomo10.json --beam chats/100K`. Each conversation becomes the messages
of an agent; the local embedder embeds them, no model is called. One search gives the places in both lanes, so the same
run tells what words alone, meaning alone and their reciprocal ranks would find. The last line printed is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.memory.corpora import Corpus, Question, beam, generated, locomo
from letta.common.v1.message_pb2 import Message, MessageRole
from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.message_service_pb2 import SearchStoredMessagesRequest, StoredMessageResult
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_embedded_postgres import EmbeddedPostgres, PostgresOptions
from letta_llm_gateway.providers.local_embedder import LocalEmbedder
from letta_memory.domain.embeddings import Indexer
from letta_memory.domain.search.cells import CellMaker
from letta_memory.domain.search.index import LateConversations, SearchKeeper
from letta_memory.store.contexts import SqlContextStore
from letta_memory.store.messages import SqlMessageStore
from letta_memory.store.pending import SqlPendingStore
from letta_memory.store.search.cells import SqlSearchCellStore
from letta_memory.store.search.index import SqlSearchIndexStore
from letta_postgres.db import Database
from letta_postgres.migrations import upgrade

GOALS = {"locomo_r10": 80, "locomo_hit1": 76, "beam_r10": 62}
LIMIT, TOP, CHUNK = 100, 10, 500
ROLES = {"user": MessageRole.MESSAGE_ROLE_USER, "assistant": MessageRole.MESSAGE_ROLE_ASSISTANT}
Embed = Callable[[Sequence[str]], list[list[float]]]
Order = Callable[[StoredMessageResult], tuple[float, ...]]


def _reciprocal(hit: StoredMessageResult) -> float:
    return sum(1 / (60 + rank) for rank in (hit.word_rank, hit.meaning_rank) if rank)


METHODS: dict[str, Order] = {
    "search": lambda hit: (-hit.score,),
    "words": lambda hit: (hit.word_rank or LIMIT * 10,),
    "meaning": lambda hit: (hit.meaning_rank or LIMIT * 10,),
    "reciprocal_ranks": lambda hit: (-_reciprocal(hit),),
}
"""Orders of what was found: of all lanes together, and of what each alone would say."""


class Local:
    """The embedder of the package, as memory's background sees one."""

    def __init__(self, embed: Embed) -> None:
        self._embed = embed

    async def embed(self, model: str, texts: Sequence[str], *, organization_id: str = "") -> EmbedResponse:  # noqa: ARG002
        """Embed texts."""
        vectors = [Embedding(values=values) for values in self._embed(texts)]
        return EmbedResponse(model="builtin/local", embeddings=vectors)


@dataclass
class Found:
    """The turns that a search found, best first, by method, and the milliseconds that it took."""

    question: Question
    turns: dict[str, list[str]]
    newest: list[str]
    ms: float


class Memory:
    """Agents with conversations, and searches in them."""

    def __init__(self, db: Database, embed: Embed) -> None:
        self.actor, self.late, self.embedder = Actor(new_id("org"), new_id("user")), LateConversations(), Local(embed)
        self.contexts, self.messages = SqlContextStore(db, self.late), SqlMessageStore(db)
        cells = CellMaker(SqlSearchCellStore(db))
        self.keeper = SearchKeeper(SqlSearchIndexStore(db), self.late, cells, embed_messages=True)
        self.indexer = Indexer(SqlPendingStore(db), self.embedder, batch=64)

    async def remember(self, corpus: Corpus) -> str:
        """Make the turns of a conversation the messages of an agent; return the agent's id."""
        agent_id = new_id("agent")
        await self.contexts.provision_agent(self.actor, pb.ProvisionAgentRequest(agent_id=agent_id), [])
        owner: dict[str, Any] = {"agent_id": agent_id, "conversation_id": agent_id, "run_id": new_id("run"), "fence": 1}
        await self.contexts.begin_step(self.actor, pb.BeginStepRequest(**owner))
        for step, start in enumerate(range(0, len(corpus.turns), CHUNK)):
            messages = []
            for turn in corpus.turns[start : start + CHUNK]:
                made = Message(
                    id=new_id("message"),
                    role=ROLES[turn.role],
                    name=turn.speaker,
                    created_at=stamp_of(turn.at),
                    otid=turn.id,
                )
                made.parts.add().text.text = turn.text
                messages.append(made)
            await self.contexts.commit_step(
                self.actor, pb.CommitStepRequest(**owner, step_index=step, messages=messages)
            )
        return agent_id

    async def settle(self) -> None:
        """Do all that the background would: index, embed, count."""
        await self.keeper.settle()
        while await self.indexer.step():
            pass
        await self.keeper.settle()

    async def ask(self, agent_id: str, question: Question) -> Found:
        """Search for what answers a question."""
        begun = time.perf_counter()
        asked = await self.embedder.embed("", [question.text])
        request = SearchStoredMessagesRequest(agent_id=agent_id, query=question.text, limit=LIMIT)
        hits = [hit.found for hit in await self.messages.search(self.actor, request, asked, types=0)]
        ms = (time.perf_counter() - begun) * 1000
        turns = {name: [_turn(hit) for hit in sorted(hits, key=order)] for name, order in METHODS.items()}
        times = {_turn(hit): Message.FromString(hit.message).created_at.ToNanoseconds() for hit in hits}
        order = {turn: place for place, turn in enumerate(turns["search"])}
        newest = sorted(turns["search"][:TOP], key=lambda turn: (-times[turn], -order[turn]))
        return Found(question, turns, newest, ms)


def _turn(hit: StoredMessageResult) -> str:
    return Message.FromString(hit.message).otid


def _recall(found: Iterable[Found], method: str) -> float:
    """Return which share of the gold turns is among the ten best, in percent, on average over the questions."""
    shares = [len(set(one.turns[method][:TOP]) & one.question.gold) / len(one.question.gold) for one in found]
    return round(100 * statistics.mean(shares), 1) if shares else 0.0


def _session_first(found: Iterable[Found], method: str, corpora: dict[str, str]) -> float:
    """Return for how many questions the best turn is of a session with a gold turn, in percent."""
    hits = [
        bool(one.turns[method]) and corpora[one.turns[method][0]] in {corpora[turn] for turn in one.question.gold}
        for one in found
    ]
    return round(100 * statistics.mean(hits), 1) if hits else 0.0


def _fresh(found: Iterable[Found]) -> float:
    """Return for how many pairs the newer turn is above the outdated one, the ten best being shown newest first."""
    above = []
    for one in found:
        for old, new in one.question.updates:
            places = {turn: place for place, turn in enumerate(one.newest)}
            above.append(new in places and places[new] < places.get(old, TOP))
    return round(100 * statistics.mean(above), 1) if above else 0.0


async def measure(dsn: str, sets: dict[str, list[Corpus]], embed: Embed) -> dict[str, Any]:
    """Remember each conversation and ask its questions; return the report."""
    await upgrade(dsn, package="letta_memory", schema="memory")
    db = await Database.open(dsn, schema="memory")
    report: dict[str, Any] = {"goals": GOALS, "methods": {}}
    spent: list[float] = []
    for name, corpora in sets.items():
        memory, found, sessions = Memory(db, embed), [], {}
        for corpus in corpora:
            agent_id = await memory.remember(corpus)
            await memory.settle()
            found += [await memory.ask(agent_id, question) for question in corpus.questions]
            sessions |= {turn.id: turn.session for turn in corpus.turns}
        gold = [one for one in found if one.question.gold]
        spent += [one.ms for one in found]
        report["methods"][name] = {
            method: {"r10": _recall(gold, method), "hit1": _session_first(gold, method, sessions)} for method in METHODS
        }
        report[f"{name}_r10"] = _recall(gold, "search")
        report[f"{name}_hit1"] = _session_first(gold, "search", sessions)
        if any(one.question.updates for one in found):
            report["fresh_top10"] = _fresh(found)
        sys.stdout.write(f"{name}: {report['methods'][name]}\n")
        sys.stdout.flush()
    report["p50_ms"] = round(statistics.median(spent), 2) if spent else 0.0
    await db.close()
    return report


def main() -> None:
    """Measure what the arguments name, or a generated corpus; the last line is JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--locomo", type=Path, help="locomo10.json")
    parser.add_argument("--beam", type=Path, help="the folder chats/100K")
    given = parser.parse_args()
    sets = {}
    if given.locomo:
        sets["locomo"] = locomo(json.loads(given.locomo.read_text()))
    if given.beam:
        sets["beam"] = beam(given.beam)
    with tempfile.TemporaryDirectory() as home:
        Path(home).chmod(0o755)
        with EmbeddedPostgres(Path(home) / "pg", PostgresOptions(durable=False)) as server:
            report = asyncio.run(measure(server.dsn(), sets or {"generated": generated()}, LocalEmbedder().embed_now))
    sys.stdout.write(json.dumps(report) + "\n")


if __name__ == "__main__":
    main()
