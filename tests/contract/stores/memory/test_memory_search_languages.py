"""Words are found in the forms of their language, in archives of many languages, before texts are indexed and after."""

from __future__ import annotations

import pytest

from letta_postgres.db import Database, DatabaseOptions
from tests.support.databases import Databases
from tests.support.searches import SearchStore

FORMS = [
    ("Die Bücher liegen auf dem Tisch", "Buch", 4),
    ("Wir haben zwei Wohnungen besichtigt und eine gemietet", "Wohnung", 4),
    ("Les chevaux mangent dans le pré avec nous", "cheval", 8),
    ("Elle a acheté trois nouvelles voitures pour nous", "voiture", 8),
    ("Los niños cantaban una canción en la escuela", "canciones", 16),
    ("As crianças brincavam com uma bola para o jogo", "brincar", 32),
    ("I ragazzi giocavano con il pallone nella piazza", "giocare", 64),
    ("De katten slapen in het huis en wij waren blij", "kat", 128),
    ("Мы вчера купили новые книги в русском магазине", "книга", 256),
    ("Она любит русский балет", "русского", 256),
    ("The children were playing with a ball", "played", 2),
]
ORDINARY = [
    ("Ich mag Katzen", 4),
    ("Das ist nicht mein Auto.", 4),
    ("J'aime les chats", 8),
    ("¿Dónde está el gato?", 16),
    ("Eu gosto muito de gatos", 32),
    ("Mi piacciono i gatti della nonna", 64),
    ("Ik hou van thee", 128),
    ("Я люблю кошек", 256),
    ("I like cats", 2),
    ("cats", 2),
    ("", 2),
    ("The movie Das Boot is long", 2),
    ("see https://example.org/die/der for it", 2),
    ("12345 67890", 2),
    ("我喜欢猫", 2),
]


async def language(store: SearchStore, text: str) -> int:
    [(found,)] = await store.db.hot("select memory.language_of(memory.folded(%s::text), -1)", (text,))
    return int(found)


@pytest.mark.parametrize(("text", "expected"), [*ORDINARY, *((text, number) for text, _, number in FORMS)])
async def test_the_language_of_a_text_is_told_by_its_script_and_its_small_words(
    store: SearchStore, text: str, expected: int
) -> None:
    assert await language(store, text) == expected


async def test_every_form_of_a_word_is_found_in_an_archive_of_all_languages(store: SearchStore) -> None:
    archive_id = (await store.write(*(text for text, _, _ in FORMS), *(text for text, _ in ORDINARY if text)))[
        0
    ].archive_id
    for text, query, _ in FORMS:
        assert (await store.found(archive_id, query))[:1] == [text], query


@pytest.mark.parametrize(("text", "query", "number"), FORMS)
async def test_messages_are_found_in_every_form_before_they_are_indexed_and_after(
    store: SearchStore, text: str, query: str, number: int
) -> None:
    await store.say("something else", text)
    assert await store.heard(query) == [text]
    await store.keep()
    assert await store.heard(query) == [text]
    assert await store.db.hot(
        "select languages from memory.search_scopes where organization_id = %s", (store.actor.organization_id,)
    ) == [(2 | number,)]


async def test_small_words_of_the_question_find_nothing(store: SearchStore) -> None:
    """Though they are none of another language that the archive holds."""
    archive_id = (await store.write("Das ist ein Lied der Gruppe The Who", "The ball of was", "Wir suchen Tee"))[
        0
    ].archive_id
    assert await store.found(archive_id, "the tea with the sugar") == []
    assert await store.found(archive_id, "Wo ist der Tee") == ["Wir suchen Tee"]


async def test_a_text_that_is_taken_for_another_language_is_found_by_its_words(store: SearchStore) -> None:
    names = "Los Angeles dreaming stories"
    archive_id = (await store.write(names, "something of interest"))[0].archive_id
    assert await language(store, names) == 16
    for query in ("angeles", "dreaming", "stories", "the stories of Los Angeles"):
        assert await store.found(archive_id, query) == [names], query


async def test_accents_do_not_matter_in_any_language(store: SearchStore) -> None:
    texts = [text for text, _, _ in FORMS]
    archive_id = (await store.write(*texts))[0].archive_id
    for query, number in (("bucher", 0), ("ninos cancion", 4), ("criancas", 5)):
        assert (await store.found(archive_id, query))[:1] == [texts[number]], query


async def test_a_misspelt_word_is_found_in_its_language(store: SearchStore) -> None:
    archive_id = (await store.write(*(text for text, _, _ in FORMS)))[0].archive_id
    for query, number in (("Wohnugnen", 1), ("voitrues", 3)):
        [hit, *_] = await store.hits(archive_id, query)
        assert (hit.passage.text, len(hit.ranks.approximate_words)) == (FORMS[number][0], 1), query


async def test_what_a_former_release_indexed_is_found_as_it_was(databases: Databases) -> None:
    """Its stems are English, and the short i had lost its mark."""
    db = await Database.open(databases.clone(("memory",)), schema="memory", options=DatabaseOptions(pool_size=2))
    store = SearchStore(db)
    await store.begin()
    await db.hot(
        "create or replace function memory.text_words(p_text text, p_at timestamptz, out words tsvector, "
        "out language integer) language sql stable as $$ "
        "select to_tsvector('pg_catalog.english', translate(p_text, 'йё', 'ие')), 2 $$"
    )
    archive_id = (await store.write("русский балет", "zwei Katzen"))[0].archive_id
    await db.hot("update memory.search_scopes set languages = 3 | 4 | 256")
    assert await store.found(archive_id, "русский") == ["русский балет"]
    assert await store.found(archive_id, "Katzen") == ["zwei Katzen"]
    await db.close()
