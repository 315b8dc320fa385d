"""Words of a query that no text has are found as what they are like; words that some text has, as they are."""

from __future__ import annotations

import random

import psycopg
import pytest

from letta.memory.v1.message_service_pb2 import SearchStoredMessagesRequest
from letta_common.values.ids import new_id
from letta_postgres.db import Database, DatabaseOptions
from tests.support.databases import Databases
from tests.support.searches import SearchStore

NAMES = (
    "Schwarzenegger",
    "Postgres",
    "Kubernetes",
    "Reykjavik",
    "Alexandra",
    "Mendelssohn",
    "Gloucester",
    "Anna",
    "Tokyo",
)
TEXTS = tuple(f"we talked of {name} for a while" for name in NAMES)


async def written(store: SearchStore, *texts: str) -> str:
    return (await store.write(*texts))[0].archive_id


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("Schwarzeneger", "Schwarzenegger"),
        ("schwartzeneger", "Schwarzenegger"),
        ("Shwarzenegger", "Schwarzenegger"),
        ("postgers", "Postgres"),
        ("opstgres", "Postgres"),
        ("Kuberentes", "Kubernetes"),
        ("Reykjavík", "Reykjavik"),
        ("Reikjavik", "Reykjavik"),
        ("Mendelson", "Mendelssohn"),
        ("Glocester", "Gloucester"),
        ("Aleksandra", "Alexandra"),
        ("Tokio", "Tokyo"),
        ("Ana", None),
        ("Otkyo", None),
        ("Manhattan", None),
    ],
)
async def test_a_misspelt_word_is_found_as_what_it_is_like(
    store: SearchStore, query: str, expected: str | None
) -> None:
    """In passages and in messages, by what was just written and by what the background kept."""
    archive_id = await written(store, *TEXTS)
    await store.say(*TEXTS)
    await store.keep()
    found = [text for text, name in zip(TEXTS, NAMES, strict=True) if name == expected]
    assert await store.found(archive_id, query) == found
    assert await store.heard(query) == found


async def test_what_is_found_by_a_like_word_says_so(store: SearchStore) -> None:
    archive_id = await written(store, *TEXTS)
    hits = await store.hits(archive_id, "Does Schwarzeneger know Anna?")
    named = {hit.passage.text: list(hit.ranks.approximate_words) for hit in hits}
    assert named == {TEXTS[0]: ["schwarzeneger"], TEXTS[7]: []}
    assert hits[0].passage.text == TEXTS[7], "a word as it is counts more than one that is like"
    await store.say(*TEXTS)
    await store.keep()
    request = SearchStoredMessagesRequest(agent_id=store.agent_id, query="Schwarzeneger", limit=5)
    [found] = await store.messages.search(store.actor, request, None, types=0)
    assert list(found.found.approximate_words) == ["schwarzeneger"]


async def test_a_word_that_some_text_has_stands_for_itself(databases: Databases) -> None:
    """And nothing is done for words that are found: here that would fail."""
    db = await Database.open(databases.clone(("memory",)), schema="memory", options=DatabaseOptions(pool_size=2))
    store = SearchStore(db)
    await store.begin()
    archive_id = await written(store, *TEXTS, "somebody wrote postgers here")
    assert await store.found(archive_id, "postgers") == ["somebody wrote postgers here"]
    assert await store.found(archive_id, "Schwarzeneger") == [TEXTS[0]]
    await db.hot(
        "create or replace function memory.like_words(p_org text, p_scopes integer[], p_words memory.asked_word[]) "
        "returns setof memory.like_word language plpgsql as $$ begin raise 'looked for like words'; end $$"
    )
    assert await store.found(archive_id, "postgers and Schwarzenegger in 2026") != []
    with pytest.raises(psycopg.errors.RaiseException):
        await store.found(archive_id, "Schwarzeneger")
    await db.close()


async def test_one_edit_of_any_long_word_is_found_in_a_large_scope(store: SearchStore) -> None:
    """By what the background wrote down, and by what came since; and words as they are never count as others."""
    rng = random.Random(5)
    words = sorted({"".join(rng.choice("bdfgklmnprstvz") + rng.choice("aou") for _ in range(4)) for _ in range(900)})
    texts = [" ".join(words[at : at + 6]) for at in range(0, len(words), 6)]
    filler = [" ".join(rng.choices(words, k=40)) for _ in range(120)]
    archive_id = await written(store, *filler)
    await written(store, *texts[:100])
    await store.keep()
    assert await store.counted("search_spellings") > 50
    await written(store, *texts[100:])
    for word in rng.sample(words, 60):
        at = rng.randrange(len(word))
        letter = rng.choice("bdfgklmnprstvz")
        wrong = rng.choice(
            (word[:at] + word[at + 1 :], word[:at] + letter + word[at:], word[:at] + letter + word[at + 1 :])
        )
        ranks = [hit.ranks for hit in await store.hits(archive_id, word)]
        assert ranks
        assert {len(rank.approximate_words) for rank in ranks} == {0}
        if wrong not in words:
            assert any(word in text for text in await store.found(archive_id, wrong)), (word, wrong)


async def test_words_of_what_is_removed_are_forgotten(store: SearchStore) -> None:
    made = [
        *await store.write(*(" ".join(f"{a}{b}number" for b in "abcdefghij") for a in "abcdefghij" for _ in range(60)))
    ]
    made += await store.write("a secret of Rumpelstiltskin", "another secret")
    await store.keep()
    archive_id = made[0].archive_id
    assert await spelled(store, "rumpelstiltskin") == 2
    assert await store.found(archive_id, "Rumpelstilskin") == ["a secret of Rumpelstiltskin"]
    await store.passages.delete(store.actor, archive_id, made[-2].id)
    assert (await spelled(store, "rumpelstiltskin"), await spelled(store, "secret")) == (0, 2)
    await store.archives.delete(store.actor, archive_id)
    await store.keep()
    assert await store.counted("search_spellings") == 0


async def test_like_words_are_few_however_many_are_asked_for(store: SearchStore) -> None:
    archive_id = await written(store, *(f"{name} {other}{name}" for name in NAMES for other in NAMES))
    query = " ".join(f"{other}x{name}" for name in NAMES for other in NAMES)
    hits = await store.hits(archive_id, query)
    assert len({word for hit in hits for word in hit.ranks.approximate_words}) == 8


async def test_another_tenant_and_another_archive_lend_no_words(store: SearchStore) -> None:
    await written(store, *TEXTS)
    other = SearchStore(store.db)
    await other.begin()
    archive_id = await written(other, "nothing of interest")
    assert await other.found(archive_id, "Schwarzeneger") == []
    store.agent_id = new_id("agent")
    await store.begin()
    archive_id = await written(store, "nothing of interest")
    assert await store.found(archive_id, "Schwarzeneger") == []


async def spelled(store: SearchStore, stem: str) -> int:
    query = "select count(*) from memory.search_spellings where organization_id = %s and %s = any(stems)"
    [(count,)] = await store.db.hot(query, (store.actor.organization_id, stem))
    return int(count)
