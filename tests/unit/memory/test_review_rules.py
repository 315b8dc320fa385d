"""What the review of memory takes for the same, and how often it is right."""

from __future__ import annotations

import pytest

from benchmarks.memory.review import corrected, duplicate_pairs, measured, turns
from letta_memory.domain.review.duplicates import LONGEST, compare, digest_of
from letta_memory.domain.review.statements import contradicted, facts_of, statements_of


def same(older: str, newer: str, similarity: float | None = None) -> bool:
    return compare(older, newer, similarity) is not None


def test_what_is_proposed_of_generated_pairs_is_right() -> None:
    pairs = duplicate_pairs(7, 60)
    report = measured(pairs, [None] * len(pairs))

    assert report["pairs"] == 873
    assert report["precision"] >= 0.98, report
    assert report["recall"] >= 0.85, report


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("Ann lives in Oslo.", "ANN lives, in  Oslo"),
        ("Ann lives in Oslo.", "Ann lives in Oslo with Bob."),
        ("Ann liked the green tea", "Ann likes green tea"),
        ("アンは緑茶が好きです。", "アンは緑茶が好きです"),
        ("Straße 5", "STRASSE 5"),
    ],
)
def test_the_newer_says_what_the_older_does(older: str, newer: str) -> None:
    assert same(older, newer)


@pytest.mark.parametrize(
    ("older", "newer"),
    [
        ("Ann lives in Oslo.", "Ann lived in Oslo but moved."),
        ("Ann lives in Oslo.", "Ann doesn't live in Oslo."),
        ("Ann lives in Oslo.", "Oslo: Ann lives there."),
        ("Ann lives in Oslo with her dog.", "Ann lives in Oslo."),
        ("Room 12 is free.", "Room 14 is free."),
        ("Version 1.2 works", "Version 1.3 works"),
        ("Ann told Bob.", "Bob told Ann."),
        ("!", "?"),
        ("", "Ann"),
        ("アンは緑茶が好きです。", "アンは紅茶が好きです。"),
    ],
)
def test_the_newer_says_something_else(older: str, newer: str) -> None:
    assert not same(older, newer)


def test_vectors_that_are_far_apart_speak_against_it_unless_the_words_are_equal() -> None:
    assert not same("Ann lives in Oslo.", "Ann lives in Oslo with Bob.", 0.79)
    assert same("Ann lives in Oslo.", "Ann lives in Oslo with Bob.", 0.8)
    assert same("Ann lives in Oslo.", "ANN LIVES IN OSLO", 0.1)


def test_long_texts_are_the_same_when_all_their_words_are() -> None:
    text = "word " * LONGEST
    assert same(text, text.upper())
    assert not same(text, f"{text} more")
    assert digest_of("!?") != digest_of("!!")


def test_what_is_proposed_of_generated_messages_is_right() -> None:
    report = corrected(turns(7, 40))

    assert report["messages"] == 2080
    assert report["precision"] >= 0.98, report
    assert report["recall"] >= 0.8, report


def otherwise(block: str, message: str) -> list[str]:
    """Return what the lines of a block become that a message speaks against."""
    facts = list(facts_of(block))
    return [fact.replaced(said.value) for said in statements_of(message) for fact in facts if contradicted(said, fact)]


@pytest.mark.parametrize(
    ("block", "message", "line"),
    [
        ("Location: Oslo", "I moved to Quito!", "Location: Quito"),
        ("- Lives in Oslo.", "I live in Quito.", "- Lives in Quito."),
        (
            "Name: Sam\nSam lives in Oslo and works at Acme.",
            "I've joined Initech",
            "Sam lives in Oslo and works at Initech.",
        ),
        ("The user works as a teacher.", "I'm working as a nurse now.", "The user works as a nurse."),
        ("Age: 34.", "i just turned 35!", "Age: 35."),
        ("Goes by: Sam", "Please call me Alex.", "Goes by: Alex"),
        ("Prefers tea.", "I prefer coffee over tea.", "Prefers coffee."),
        ("Favourite colour: blue", "my favorite color is now green", "Favourite colour: green"),
        ("Her dog's name is Rex.", "My dog's name is Fido.", "Her dog's name is Fido."),
        ("Location: Oslo", "I used to live in Rome, but now I live in Quito.", "Location: Quito"),
    ],
)
def test_a_line_becomes_what_the_user_says(block: str, message: str, line: str) -> None:
    assert otherwise(block, message) == [line]


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("Location: Oslo", "I live in Oslo, Norway."),
        ("Location: unknown", "I live in Oslo."),
        ("Location: Oslo", "We live in Quito."),
        ("Location: Oslo", "I live in a small flat."),
        ("Her sister lives in Oslo.", "I live in Quito."),
        ("Ann lives in Oslo.", "I live in Quito."),
        ("Languages: English, French", "My languages are Dutch and Thai."),
        ("Hobby: chess and go", "My hobby is rowing."),
        ("Prefers tea.", "I prefer short answers over long ones."),
        ("Location: Oslo", "Is it true that I live in Quito?"),
        ("Location: Oslo", "Here is my story. I live in Quito."),
        ("Age: 34", "I'm 35 minutes late."),
    ],
)
def test_a_line_stays_when_the_user_may_mean_something_else(block: str, message: str) -> None:
    assert otherwise(block, message) == []
