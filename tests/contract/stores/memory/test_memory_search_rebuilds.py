"""Indexing all texts anew: what former releases wrote becomes as what this one writes, whatever happens meanwhile."""

from __future__ import annotations

import asyncio

import pytest

from letta.llm.v1.embedding_service_pb2 import Embedding, EmbedResponse
from letta_common.errors import DatabaseUnavailable
from letta_memory.domain.search.cells import CellMaker
from letta_memory.domain.search.index import SearchKeeper
from letta_memory.domain.search.rebuilds import SearchRebuild
from letta_memory.domain.search.scopes import SearchScope
from letta_memory.store.search.rebuilds import SqlSearchRebuildStore
from letta_postgres.db import Database, DatabaseOptions
from tests.support.databases import Databases
from tests.support.searches import SearchStore

FORMER_WORDS = """
create or replace function memory.text_words(p_text text, p_at timestamptz, out words tsvector, out language integer)
language sql stable as $$ select to_tsvector('pg_catalog.english', p_text), 2 $$
"""
FORMER_TEXTS = (
    "update memory.search_texts set stems = null",
    "delete from memory.search_spellings",
    "update memory.search_scopes set languages = 3, spelled_place = 0, spelled_words = 0",
)


class Former:
    """A database in which a former release indexed texts: English stems, and no stems that words may be like."""

    def __init__(self, db: Database, words: str) -> None:
        self.db = db
        self.store = SearchStore(db)
        self._words = words

    async def write(self, *texts: str) -> str:
        await self.db.hot(FORMER_WORDS)
        archive_id = (await self.store.write(*texts))[0].archive_id
        await self.store.keep()
        for statement in FORMER_TEXTS:
            await self.db.hot(statement)
        await self.db.hot(self._words)
        return archive_id

    def rebuild(self) -> SearchRebuild:
        store = self.store
        keeper = SearchKeeper(store.index, store.late, CellMaker(store.cells), embed_messages=False)
        return SearchRebuild(SqlSearchRebuildStore(self.db), store.index, keeper)

    async def scope(self, owner_id: str) -> SearchScope:
        [(number,)] = await self.db.hot("select scope from memory.search_scopes where owner_id = %s", (owner_id,))
        return SearchScope(self.store.actor.organization_id, number)


@pytest.fixture
async def former(databases: Databases):
    dsn = databases.clone(("memory",))
    db = await Database.open(dsn, schema="memory", options=DatabaseOptions(pool_size=6))
    [(words,)] = await db.hot("select pg_get_functiondef('memory.text_words'::regproc)")
    made = Former(db, words)
    await made.store.begin()
    yield made
    await db.close()
    databases.drop(dsn)


async def test_texts_of_a_former_release_become_as_those_of_this_one(former: Former) -> None:
    await former.db.hot(FORMER_WORDS)
    await former.store.say("Wir haben die Häuser gestern gesehen")
    archive_id = await former.write("Die Wohnung ist nicht teuer", "I drink oolong tea")
    assert await former.store.found(archive_id, "Wohnungen") == []
    assert await former.store.found(archive_id, "oolnog") == []
    told: list[str] = []
    assert await former.rebuild().run(told.append) == 0

    assert told[0] == "3 texts are to be indexed anew ..."
    assert await former.store.found(archive_id, "Wohnungen") == ["Die Wohnung ist nicht teuer"]
    assert await former.store.found(archive_id, "oolnog") == ["I drink oolong tea"]
    assert await former.store.heard("Haus") == ["Wir haben die Häuser gestern gesehen"]
    assert await former.db.hot("select distinct languages & 1, rebuild_below, due from memory.search_scopes") == [
        (0, None, False)
    ]
    orphans = (
        "select count(*) from memory.search_postings p where not exists (select from memory.search_texts t "
        "where t.organization_id = p.organization_id and t.scope = p.scope and t.place = p.place "
        "and p.term = any(t.terms) and t.words = p.words)"
    )
    assert await former.db.hot(orphans) == [(0,)]
    counted = "select scope, sum(words), count(*) from memory.search_texts group by 1 order by 1"
    kept = "select scope, word_count, text_count from memory.search_scopes where text_count > 0 order by 1"
    assert await former.db.hot(counted) == await former.db.hot(kept)


async def test_a_search_finds_all_while_texts_are_indexed_anew_and_a_stop_costs_nothing(former: Former) -> None:
    """Half of the texts are written anew: a new form finds these, and the former one all."""
    archive_id = await former.write(*(f"Die {n} Wohnungen sind nicht teuer" for n in range(250)))
    begun = SqlSearchRebuildStore(former.db)
    assert await begun.begin() == (False, 250)
    scope = await former.scope(archive_id)
    assert await former.store.index.rebuild(scope, 100) == 100

    assert len(await former.store.found(archive_id, "Wohnung")) == 50
    newest = set(await former.store.found(archive_id, "Wohnung"))
    assert newest <= {f"Die {n} Wohnungen sind nicht teuer" for n in range(150, 250)}
    for n in (3, 200):
        assert f"Die {n} Wohnungen sind nicht teuer" in await former.store.found(archive_id, f"Wohnungen {n}")
    assert await begun.begin() == (True, 150)
    told: list[str] = []
    assert await former.rebuild().run(told.append) == 0
    assert told[0] == "going on: 150 texts are to be indexed anew ..."
    assert "Die 3 Wohnungen sind nicht teuer" in await former.store.found(archive_id, "Wohnung 3")
    assert await begun.begin() == (False, 250), "the next run begins anew"


async def test_running_services_go_on_with_what_a_command_began(former: Former) -> None:
    archive_id = await former.write(*(f"Die {n} Wohnungen sind nicht teuer" for n in range(250)))
    await SqlSearchRebuildStore(former.db).begin()
    await former.store.keep()

    assert "Die 3 Wohnungen sind nicht teuer" in await former.store.found(archive_id, "Wohnung 3")
    assert await SqlSearchRebuildStore(former.db).list_begun(None, 10) == []


async def test_what_is_written_deleted_and_embedded_meanwhile_stays_as_it_is(former: Former) -> None:
    archive_id = await former.write(*(f"Die {n} Wohnungen sind nicht teuer" for n in range(120)))
    rows = await former.db.hot("select id, place from memory.passages order by place")
    await former.db.hot("update memory.passages set pending = true where place = 7")
    await former.db.hot("update memory.search_texts set embedding = null, model = 0 where place = 7")
    await former.db.hot("update memory.archives set waiting_since = now(), embedder = 'test/two', dimensions = 2")
    waiting = await former.store.pending.list_pending(10)
    rebuilding = asyncio.create_task(former.rebuild().run(lambda _: None))
    deleting = [
        former.store.passages.delete(former.store.actor, archive_id, passage_id)
        for passage_id, place in rows
        if place in (1, 60, 119)
    ]
    vectors = EmbedResponse(model="test/two", embeddings=[Embedding(values=[0.0, 1.0])])
    settling = former.store.pending.settle(waiting, vectors)
    await asyncio.gather(settling, *deleting, former.store.write("Die neuen Wohnungen sind teuer"))
    assert await rebuilding == 0

    texts = await former.db.hot("select place, embedding::text, stems is null from memory.search_texts order by place")
    assert [place for place, _, _ in texts] == [place for place in range(1, 122) if place not in (1, 60, 119)]
    assert {place: vector for place, vector, _ in texts}[7] == "[0,1]"
    assert not any(unknown for _, _, unknown in texts)
    gone = "select count(*) from memory.search_postings where place in (1, 60, 119)"
    assert await former.db.hot(gone) == [(0,)]


async def test_a_scope_that_cannot_be_indexed_anew_is_told_and_holds_up_no_other(former: Former) -> None:
    archive_id = await former.write("Die Wohnung ist nicht teuer")
    await former.store.say("tea")
    await former.store.keep()
    await former.db.hot(
        "create function memory.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$"
    )
    await former.db.hot(
        "create trigger refuse before delete on memory.search_postings for each row "
        f"when (old.scope = {(await former.scope(former.store.agent_id)).number}) execute function memory.refuse()"
    )
    assert await former.rebuild().run(lambda _: None) == 1

    assert await former.store.found(archive_id, "Wohnungen") == ["Die Wohnung ist nicht teuer"]
    await former.db.hot("drop trigger refuse on memory.search_postings")
    assert await former.rebuild().run(lambda _: None) == 0


async def test_a_database_that_goes_away_ends_it(former: Former, databases: Databases) -> None:
    dsn = databases.clone(("memory",))
    db = await Database.open(dsn, schema="memory", options=DatabaseOptions(pool_size=2))
    databases.drop(dsn)
    with pytest.raises(DatabaseUnavailable):
        await Former(db, "").rebuild().run(lambda _: None)
    await db.close()
