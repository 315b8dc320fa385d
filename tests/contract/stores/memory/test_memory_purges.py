"""A purge that its caller left goes on in the background, where another replica takes it up."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from letta.memory.v1.archive_service_pb2 import CreateArchiveRequest
from letta.memory.v1.passage_pb2 import PassageOrigin
from letta.memory.v1.passage_service_pb2 import NewPassage, PassageFilter, PurgePassagesRequest, SearchPassagesRequest
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.process.periodic import Next
from letta_common.values.ids import derived_id, new_id
from letta_memory.clients.embeddings import NoEmbedder
from letta_memory.domain.archival.uses import PassageUses
from letta_memory.domain.archives import Archives
from letta_memory.domain.passages import Passages
from letta_memory.domain.pruning import PruneOptions, Pruner
from letta_memory.domain.purges import Purge, Purges
from letta_memory.store.archival.uses import SqlUseStore
from letta_memory.store.archives import SqlArchiveStore
from letta_memory.store.passages import SqlPassageStore
from letta_memory.store.pruning import SqlPruneStore
from letta_memory.store.purges import SqlPurgeStore
from letta_postgres.db import Database

CLOCK = SystemClock()


@pytest.fixture
async def db(database_url):
    db = await Database.open(database_url, schema="memory")
    yield db
    await db.close()


async def filled(db: Database, number: int) -> tuple[Actor, str, Any]:
    """Make an archive with passages of one run."""
    actor, archives = Actor(new_id("org"), "user-ann"), SqlArchiveStore(db)
    made = await Archives(archives, NoEmbedder(), CLOCK).create(actor, CreateArchiveRequest(name="a"), b"")
    passages = Passages(SqlPassageStore(db), archives, NoEmbedder(), CLOCK, PassageUses(SqlUseStore(db), CLOCK))
    new = [NewPassage(text=f"text {n}", origin=PassageOrigin(run_id="run-1")) for n in range(number)]
    await passages.create(actor, made.id, new, request_id="", request_hash=b"")
    return actor, made.id, passages


async def test_what_a_dead_replica_left_another_removes(db):
    actor, archive_id, _ = await filled(db, 7)
    store, key = SqlPurgeStore(db), "key"
    purge = Purge(derived_id("purge", actor.organization_id, key), archive_id, PassageFilter(), datetime.now(UTC))
    await store.begin(actor, purge, b"hash")
    assert await store.go_on(actor, purge.id, 3) == (3, False)

    pruner = Pruner(SqlPruneStore(db), CLOCK, PruneOptions())
    while await pruner.purge() is Next.AT_ONCE:
        pass
    assert await store.count(actor, purge, 10) == (0, [])
    again = PurgePassagesRequest(archive_id=archive_id, force=True, request_id=key)
    answer = await Purges(store, SqlArchiveStore(db), CLOCK).purge(actor, again, b"hash")
    assert answer.purge_count == 7, "all that went, whoever removed it"


async def test_a_batch_is_as_large_as_is_said_and_counted_in_the_archive(db):
    actor, archive_id, _ = await filled(db, 7)
    store = SqlPurgeStore(db)
    purge = Purge(new_id("purge"), "", PassageFilter(origin=PassageOrigin(run_id="run-1")), datetime.now(UTC))
    await store.begin(actor, purge, b"")

    assert [await store.go_on(actor, purge.id, 3) for _ in range(4)] == [(3, False), (6, False), (7, False), (7, True)]
    assert (await SqlArchiveStore(db).get_embedding(actor, archive_id)).passage_count == 0
    assert await store.go_on(actor, purge.id, 3) == (7, True)


async def test_what_was_written_after_it_began_stays(db):
    actor, archive_id, passages = await filled(db, 1)
    store = SqlPurgeStore(db)
    purge = Purge(new_id("purge"), archive_id, PassageFilter(), datetime.now(UTC))
    await store.begin(actor, purge, b"")
    await passages.create(actor, archive_id, [NewPassage(text="later")], request_id="", request_hash=b"")
    while not (await store.go_on(actor, purge.id, 3))[1]:
        pass

    left = await SqlPassageStore(db).search(
        actor, [archive_id], SearchPassagesRequest(limit=10), [], embeddings=False, now=CLOCK.now()
    )
    assert [result.passage.text for result in left] == ["later"]


async def test_old_records_of_purges_go(db):
    actor, archive_id, _ = await filled(db, 1)
    store, pruning = SqlPurgeStore(db), SqlPruneStore(db)
    purge = Purge(new_id("purge"), archive_id, PassageFilter(), datetime.now(UTC))
    await store.begin(actor, purge, b"")
    later = datetime.now(UTC) + timedelta(hours=1)
    await pruning.prune_purges(later, 100)
    assert await pruning.prune_purges(later, 100) == 0, "not before it ended"
    while not (await store.go_on(actor, purge.id, 3))[1]:
        pass
    assert await pruning.prune_purges(later - timedelta(hours=2), 100) == 0
    assert await pruning.prune_purges(later, 100) == 1
