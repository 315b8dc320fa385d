"""What search keeps: found before and after it is indexed, gone with what is deleted, whoever dies meanwhile."""

from __future__ import annotations

import asyncio
import random

import pytest
import sqlalchemy as sa

from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta.memory.v1 import context_service_pb2 as pb
from letta.memory.v1.passage_pb2 import Passage
from letta.memory.v1.search_order_pb2 import SearchOrder
from letta_common.errors import PassageNotFound
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of
from letta_memory.domain.passages import PassageScope
from letta_memory.domain.search.index import Conversation
from letta_memory.domain.search.scopes import SearchScope
from letta_memory.store.contexts import SqlContextStore
from letta_postgres.db import Database, DatabaseOptions
from tests.support.databases import Databases
from tests.support.searches import NOW, VECTOR, SearchStore, said


async def test_messages_are_found_alike_before_they_are_indexed_and_after(store: SearchStore) -> None:
    await store.say("I drink oolong tea", "The car is red", "Tea again")
    before = await store.heard("tea or an oolong")
    assert await store.counted("search_texts") == 0
    await store.keep()

    assert await store.counted("search_texts") == 3, "instructions are not searched"
    assert before == await store.heard("tea or an oolong") == ["I drink oolong tea", "Tea again"]
    await store.say("More tea", "green tea")
    assert set(await store.heard("tea")) == {"I drink oolong tea", "Tea again", "More tea", "green tea"}
    assert await store.heard("tea", conversation_id=new_id("conv")) == []


async def test_a_repeated_look_indexes_nothing_twice(store: SearchStore) -> None:
    await store.say("one", "two")
    await store.keep()
    again = Conversation(store.actor.organization_id, store.agent_id)
    assert await store.index.index_messages(again, 100, embed=False) == 0
    assert await asyncio.gather(*(store.index.index_messages(again, 100, embed=False) for _ in range(3))) == [0, 0, 0]
    assert await store.counted("search_texts") == 2


async def test_what_is_withdrawn_leaves_nothing_behind(store: SearchStore) -> None:
    owner = await store.say("a mistake", commit=False)
    await store.keep()
    assert await store.heard("mistake") == ["a mistake"]
    await store.contexts.withdraw_input(store.actor, pb.WithdrawInputRequest(**owner))

    assert await store.heard("mistake") == []
    assert (await store.counted("search_texts"), await store.counted("search_postings")) == (0, 0)


async def test_a_conversation_whose_end_is_withdrawn_is_not_late_for_ever(store: SearchStore) -> None:
    owner = await store.say("a mistake", commit=False)
    await store.contexts.withdraw_input(store.actor, pb.WithdrawInputRequest(**owner))
    conversation = Conversation(store.actor.organization_id, store.agent_id)
    assert conversation in await store.index.list_late(None, 1_000)
    while await store.index.index_messages(conversation, 100, embed=False):
        pass

    assert conversation not in await store.index.list_late(None, 1_000)
    await store.say("tea")
    await store.keep()
    assert await store.counted("search_texts") == 1


async def test_two_conversations_of_an_agent_are_indexed_at_the_same_time(store: SearchStore) -> None:
    """Replicas keep what they noted themselves: one that turns away leaves it to the sweep of some minutes later."""
    await store.say("tea")
    await store.keep()
    await store.say("more tea")
    conversation = Conversation(store.actor.organization_id, store.agent_id)
    async with store.db.begin() as tx:
        await tx.execute(
            sa.text("select from memory.search_scopes where organization_id = :org for no key update"),
            {"org": store.actor.organization_id},
        )
        indexing = asyncio.create_task(store.index.index_messages(conversation, 100, embed=False))
        while not await store.db.hot("select 1 from pg_locks where not granted"):
            assert not indexing.done(), "it turned away"
            await asyncio.sleep(0.01)
    assert await indexing == 1
    assert await store.counted("search_texts") == 2


async def test_what_cannot_be_kept_holds_up_nothing_else(databases: Databases) -> None:
    """What the database refuses to one, a fault of the program, is tried again at the next sweep."""
    db = await Database.open(databases.clone(("memory",)), schema="memory", options=DatabaseOptions(pool_size=6))
    first, second = SearchStore(db), SearchStore(db)
    second.late = first.late
    second.contexts = SqlContextStore(db, first.late)
    for store in (first, second):
        await store.begin()
        await store.say("tea")
        await store.write("tea", vector=False)
    for store in (first, second):
        await db.hot(
            "update memory.search_scopes set due = true where organization_id = %s", (store.actor.organization_id,)
        )
    await db.hot("create function memory.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;")
    await db.hot(
        "create trigger refuse before update on memory.search_scopes for each row "
        f"when (old.organization_id = '{first.actor.organization_id}') execute function memory.refuse()"
    )
    await first.keep()

    assert (await first.counted("search_positions"), await second.counted("search_positions")) == (0, 1)
    due = await db.hot("select organization_id from memory.search_scopes where due")
    assert due == [(first.actor.organization_id,)]
    await db.close()


async def test_many_that_are_forgotten_are_not_found_and_leave_later(store: SearchStore) -> None:
    await store.say(*(f"tea number {number}" for number in range(100)))
    await store.keep()
    await store.say("the last tea", commit=False)
    await store.keep()
    reset = pb.ResetConversationRequest(
        agent_id=store.agent_id, conversation_id=store.agent_id, messages=[said("You are Ada."), said("new tea")]
    )
    await store.contexts.reset_conversation(store.actor, reset)

    assert await store.counted("search_texts") == 0
    assert await store.counted("search_postings") > 300
    assert await store.heard("tea") == ["new tea"]
    await store.keep()
    assert await store.heard("tea") == ["new tea"]
    assert await store.counted("search_removals") == 0
    assert await store.counted("search_postings") == 5, "new, tea, and the date"


async def test_a_deleted_passage_takes_its_postings_along(store: SearchStore) -> None:
    kept, gone = await store.write("green tea", "black tea")
    await store.passages.delete(store.actor, gone.archive_id, gone.id)

    assert await store.found(kept.archive_id, "tea", vector=True) == ["green tea"]
    assert await store.counted("search_postings") == 5
    with pytest.raises(PassageNotFound):
        await store.passages.delete(store.actor, gone.archive_id, gone.id)


async def test_a_deleted_archive_is_cleared_away_in_the_background(store: SearchStore) -> None:
    [made] = await store.write("tea")
    await store.archives.delete(store.actor, made.archive_id)
    assert await store.counted("search_postings") == 4
    await store.keep()
    for table in ("search_texts", "search_postings"):
        assert await store.counted(table) == 0, table
    assert await store.counted("search_scopes") == 1, "the agent's"


async def test_an_agent_that_is_removed_is_cleared_away(store: SearchStore) -> None:
    await store.say("tea")
    await store.keep()
    await store.contexts.deprovision_agent(store.actor, store.agent_id)
    await store.keep()
    for table in ("search_scopes", "search_texts", "search_postings", "search_positions"):
        assert await store.counted(table) == 0, table


async def test_nobody_waits_for_what_search_kept_of_an_agent_that_is_removed(store: SearchStore) -> None:
    await store.say(*(f"tea number {number}" for number in range(100)))
    await store.keep()
    await store.contexts.deprovision_agent(store.actor, store.agent_id)
    assert (await store.counted("search_texts"), await store.counted("search_removals")) == (100, 0)
    await store.keep()
    for table in ("search_scopes", "search_texts", "search_postings"):
        assert await store.counted(table) == 0, table


async def test_counts_of_a_large_scope_find_what_counting_in_a_search_finds(store: SearchStore) -> None:
    texts = [f"word{number % 700} common thing {number}" for number in range(900)]
    for start in range(0, len(texts), 500):
        await store.write(*texts[start : start + 500])
    [extra] = await store.write("word7 common rarity")
    small = (await store.found(extra.archive_id, "common word7 rarity"))[:5]
    await store.write(*(f"filler {number}" for number in range(200)))
    await store.keep()
    assert await store.counted("search_terms") > 700

    assert (await store.found(extra.archive_id, "common word7 rarity"))[:5] == small
    assert small[0] == "word7 common rarity"


async def test_the_newest_may_come_first(store: SearchStore) -> None:
    await store.say("I live in Lyon", "Lyon Lyon Lyon", "I moved from Lyon to Oslo, long after that summer")
    ranked = await store.heard("Lyon")
    assert ranked[0] == "Lyon Lyon Lyon"
    newest = await store.heard("Lyon", order=SearchOrder.SEARCH_ORDER_NEWEST)
    assert set(newest) == set(ranked)


async def test_hostile_queries_are_bounded(store: SearchStore) -> None:
    [made] = await store.write("the tea is green")
    await store.say("the tea is green")
    for query in (
        "the of and",
        "\0tea\0",
        "'",
        "a & | ! ( \\ :*",
        " ".join(f"w{n}" for n in range(2_000)),
        " ".join(chr(0x4E00 + n) for n in range(5_000)),
        "".join(chr(0x4E00 + n) for n in range(10_000)),
        "x" * 10_000,
        "tea " * 2_500,
    ):
        expected = ["the tea is green"] if "tea" in query else []
        assert await store.found(made.archive_id, query) == expected, query
        assert await store.heard(query) == expected, query


class Traffic:
    """Writers, deleters, an embedder and workers that are killed at any moment, all at once."""

    def __init__(self, store: SearchStore, archive_id: str) -> None:
        self.store, self.archive_id = store, archive_id
        self.alive: dict[str, str] = {}
        self.spoken: list[str] = []
        self.rng = random.Random(7)
        self.ending = asyncio.Event()

    async def write(self, name: str) -> None:
        """Write passages and delete some; look for each at once."""
        for number in range(25):
            word = f"{name}{number}z"
            [made] = await self.store.write(f"marker {word}", vector=self.rng.random() < 0.5)
            self.alive[word] = made.id
            assert await self.store.found(self.archive_id, word) == [f"marker {word}"], word
            if self.rng.random() < 0.3:
                gone = self.rng.choice([key for key in self.alive if key.startswith(name)])
                await self.store.passages.delete(self.store.actor, self.archive_id, self.alive.pop(gone))
                assert await self.store.found(self.archive_id, gone) == [], gone

    async def talk(self) -> None:
        """Say things, and look for some of what was said."""
        for number in range(25):
            await self.store.say(f"spoken{number} words", commit=self.rng.random() < 0.8)
            self.spoken.append(f"spoken{number}")
            await self.hear(self.rng.sample(self.spoken, min(3, len(self.spoken))))

    async def hear(self, words: list[str]) -> None:
        for word in words:
            assert await self.store.heard(word) == [f"{word} words"], word

    async def embed(self) -> None:
        while not self.ending.is_set():
            texts = [text for text in await self.store.pending.list_pending(20) if text.archive_id == self.archive_id]
            if texts:
                vectors = EmbedResponse(model="test/two", embeddings=[Embedding(values=VECTOR)] * len(texts))
                await self.store.pending.settle(texts, vectors)
            await asyncio.sleep(0.005)

    async def keep(self) -> None:
        while not self.ending.is_set():
            work = asyncio.create_task(self.store.keep())
            await asyncio.sleep(self.rng.random() * 0.03)
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)


async def test_search_finds_every_acknowledged_row_whatever_happens_meanwhile(store: SearchStore) -> None:
    [first] = await store.write("marker start")
    traffic = Traffic(store, first.archive_id)
    background = [asyncio.create_task(work) for work in (traffic.embed(), traffic.keep(), traffic.keep())]
    try:
        await asyncio.gather(*(traffic.write(name) for name in "abc"), traffic.talk())
    finally:
        traffic.ending.set()
        await asyncio.gather(*background)

    for word in traffic.alive:
        assert await store.found(first.archive_id, word) == [f"marker {word}"], word
    await traffic.hear(traffic.spoken)
    store.late.note(store.actor.organization_id, store.agent_id)
    await store.keep()
    await traffic.hear(traffic.spoken)
    assert await store.counted("search_texts") == 1 + len(traffic.alive) + len(traffic.spoken)


async def test_scopes_that_grew_are_counted(store: SearchStore) -> None:
    await store.write(*(f"text {number}" for number in range(40)))
    org = store.actor.organization_id
    query = "select s.due, s.mean is null, s.scope from memory.search_scopes s where s.organization_id = %s"
    [(due, unknown, number)] = await store.db.hot(query, (org,))
    assert (due, unknown) == (True, True)
    await store.index.count(SearchScope(org, number))
    assert (await store.db.hot(query, (org,)))[0][:2] == (True, False)
    await store.index.close(SearchScope(org, number))
    assert (await store.db.hot(query, (org,)))[0][:2] == (False, False)


async def test_a_large_scope_is_divided_and_what_comes_later_is_found_at_once(store: SearchStore) -> None:
    """Vectors lie on the corners of a square, of which the sample has two, and a search has them all."""
    corners = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]]
    archive_id = ""
    for start in range(0, 800, 200):
        drafts = [
            Passage(
                id=new_id("passage"),
                text=f"text {number}",
                metadata="{}",
                created_at=stamp_of(NOW),
                embedding=corners[number % 4],
            )
            for number in range(start, start + 200)
        ]
        place = PassageScope(agent_id=store.agent_id)
        written = await store.passages.create(
            store.actor, place, drafts, embedder="test/two", request_hash=b"", now=NOW
        )
        archive_id = written.rows[0].archive_id
    whole = await store.found(archive_id, "nothing", vector=True)
    await store.keep()
    org = store.actor.organization_id
    query = "select s.cells, s.due from memory.search_scopes s where s.organization_id = %s and s.text_count > 0"
    assert [tuple(row) for row in await store.db.hot(query, (org,))] == [(13, False)]
    cells = "select count(distinct t.cell), min(t.cell) from memory.search_texts t where t.organization_id = %s"
    assert [tuple(row) for row in await store.db.hot(cells, (org,))] == [(2, 0)]

    assert set(await store.found(archive_id, "nothing", vector=True)) == set(whole)
    [late] = await store.write("a late one")
    assert "a late one" in await store.found(archive_id, "late", vector=True)
    await store.passages.delete(store.actor, archive_id, late.id)
    assert await store.found(archive_id, "late one") == []


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("Crème brûlée at Müller's", "creme brulee"),
        ("creme brulee at Mullers", "crème brûlée"),
        ("ＦＵＬＬ width", "full"),
        ("我喜欢喝乌龙茶", "乌龙茶"),
        ("東京タワーに行きました", "東京"),
        ("서울타워에 갔습니다", "서울타워"),
    ],
)
async def test_accents_widths_and_texts_without_spaces_are_found(store: SearchStore, text: str, query: str) -> None:
    [made] = await store.write(text)
    await store.write("something else")
    assert await store.found(made.archive_id, query) == [text]
    await store.say(text)
    await store.keep()
    assert await store.heard(query) == [text]


async def test_a_text_of_more_words_than_postgres_takes_is_found_by_those_it_begins_with(store: SearchStore) -> None:
    text = "".join(chr(0x4E00 + number % 20_000) + chr(0x4E00 + number * 7 % 20_000) for number in range(60_000))
    [made] = await store.write(text)
    assert await store.found(made.archive_id, text[:4]) == [text]


async def test_marks_without_end_are_read_in_time_that_grows_with_them_alone(store: SearchStore) -> None:
    """Sorted as one run, so many took minutes, in which neither a timeout nor a cancellation ended the statement."""
    [made] = await store.write("tea " + "\u0301" * 50_000 + "\u0323" * 50_000 + " for Zo\u0308e")
    assert await store.found(made.archive_id, "zoe") == [made.text]
    assert await store.found(made.archive_id, "tea " + "\u05bf\u05b0" * 5_000) == [made.text]


async def test_a_text_is_found_by_its_date_and_its_speaker(store: SearchStore) -> None:
    await store.write("Ann: I moved", "Bob: I moved too")
    archive_id = (await store.write("a note"))[0].archive_id
    assert (await store.found(archive_id, "what did Bob do"))[0] == "Bob: I moved too"
    assert set(await store.found(archive_id, "January 2026")) == {"Ann: I moved", "Bob: I moved too", "a note"}


async def test_plans_that_were_made_when_there_was_nothing_read_no_table_whole(databases: Databases) -> None:
    """A plan stays for as long as its connection; statistics of a new database come late."""
    dsn = databases.clone(("memory",))
    db = await Database.open(dsn, schema="memory", options=DatabaseOptions(pool_size=1))
    store = SearchStore(db)
    await store.begin()
    for number in range(40):
        [made] = await store.write(f"text {number}")
        assert await store.found(made.archive_id, f"{number}", vector=True)
        await store.say(f"word {number}")
        assert await store.heard(f"{number}")
        await store.index.index_messages(Conversation(store.actor.organization_id, store.agent_id), 100, embed=False)
    await db.hot("select pg_stat_force_next_flush()")
    read = await db.hot(
        "select relname::text, seq_tup_read from pg_stat_user_tables where schemaname = 'memory' and relname = any(%s)",
        (["passages", "messages", "search_texts", "search_postings"],),
    )
    await db.close()
    assert {name: count for name, count in read if count} == {}


async def test_what_a_write_or_a_search_reads_does_not_grow_with_the_organization(databases: Databases) -> None:
    """Nor with the archive, also with plans that were made when there was nothing."""
    db = await Database.open(databases.clone(("memory",)), schema="memory", options=DatabaseOptions(pool_size=1))
    store = SearchStore(db)
    await store.begin()
    await store.say("the tea is green")
    query = "select indexrelname::text, idx_tup_read from pg_stat_user_indexes where schemaname = 'memory'"
    read: list[dict[str, int]] = []
    for _ in range(3):
        for agent in (store.agent_id, new_id("agent"), new_id("agent")):
            store.agent_id = agent
            await store.contexts.provision_agent(store.actor, pb.ProvisionAgentRequest(agent_id=agent), [])
            await store.write(*(f"number {new_id('n')} of many" for _ in range(40)))
        await db.hot("select pg_stat_force_next_flush()")
        before = {str(name): int(count) for name, count in await db.hot(query)}
        [made] = await store.write("green tea")
        assert await store.found(made.archive_id, "green tea", vector=False) != []
        await db.hot("select pg_stat_force_next_flush()")
        read.append({str(name): int(count) - before[str(name)] for name, count in await db.hot(query)})
    await db.close()
    more = {name: (first, read[-1][name]) for name, first in read[0].items() if read[-1][name] > first + 20}
    assert more == {}
