"""What the review of memory takes for the same, and how often it is right."""

from __future__ import annotations

import pytest

from benchmarks.memory.review import duplicate_pairs, measured
from letta_memory.domain.review.duplicates import LONGEST, compare, digest_of


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
