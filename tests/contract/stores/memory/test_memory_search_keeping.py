"""The background that keeps what search reads: however much is left to it, and whatever of that cannot be done."""

from __future__ import annotations

from letta_common.values.ids import new_id
from letta_memory.domain.search.index import Conversation
from letta_memory.domain.search.scopes import SearchScope
from letta_postgres.db import Database, DatabaseOptions
from tests.support.databases import Databases
from tests.support.searches import SearchStore

MANY = 230  # more than two pages of what the keeper lists at once


async def _scopes(store: SearchStore, *, prefix: str, due: bool, unspelled: bool) -> None:
    await store.db.hot(
        "insert into memory.search_scopes (organization_id, owner_id, due, unspelled) "
        "select %s, %s || n, %s, %s from generate_series(1, %s) n",
        (store.actor.organization_id, prefix, due, unspelled, MANY),
    )


async def test_all_scopes_are_seen_to_however_many_there_are(store: SearchStore) -> None:
    await _scopes(store, prefix="archive-", due=True, unspelled=False)
    await store.keep()

    org = store.actor.organization_id
    left = "select count(*) from memory.search_scopes where organization_id = %s and due"
    assert await store.db.hot(left, (org,)) == [(0,)]


async def test_more_scopes_than_are_listed_at_once_may_fail_and_hide_no_other(databases: Databases) -> None:
    db = await Database.open(databases.clone(("memory",)), schema="memory", options=DatabaseOptions(pool_size=4))
    store = SearchStore(db)
    await store.begin()
    await _scopes(store, prefix="broken-", due=True, unspelled=True)
    await store.write(*(f"tea number {number}" for number in range(40)))
    await db.hot("create function memory.refuse() returns trigger language plpgsql as $$ begin raise 'no'; end $$;")
    await db.hot(
        "create trigger refuse before update on memory.search_scopes for each row "
        "when (starts_with(old.owner_id, 'broken-')) execute function memory.refuse()"
    )
    await store.keep()

    due = await db.hot(
        "select count(*), bool_and(starts_with(owner_id, 'broken-')) from memory.search_scopes where due"
    )
    assert due == [(MANY, True)]
    await db.close()


async def test_lists_of_what_is_left_go_on_where_they_ended(store: SearchStore) -> None:
    await _scopes(store, prefix="archive-", due=True, unspelled=True)
    for page in (store.index.list_due, store.index.list_unspelled):
        after: SearchScope | None = None
        seen: list[SearchScope] = []
        while found := await page(after, 100):
            seen += [scope for scope in found if scope.organization_id == store.actor.organization_id]
            after = found[-1]
        assert len(seen) == len(set(seen)) == MANY
    await store.say("tea")
    own = Conversation(store.actor.organization_id, store.agent_id)
    assert own in await store.index.list_late(None, 1_000)
    assert own not in await store.index.list_late(own, 1_000)
    assert own not in await store.index.list_late(Conversation(store.actor.organization_id, new_id("zzz")), 1_000)
