"""Diffs: what they say is right, and costs little."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from letta_memory.domain.block_history import diffs
from letta_memory.domain.block_history.diffs import unified_diff

NAMES = ("a", "b")
TEXT = st.lists(st.sampled_from(["one", "two", "", " three", "-x", "+y", "@@"]), max_size=40).map("\n".join)


def applied(old: str, told: str) -> str:
    """Return the text that a diff makes of another, as `patch` would."""
    before, made, at = old.split("\n"), [], 0
    for line in told.split("\n")[2:-1]:
        head = re.fullmatch(r"@@ -(\d+)(?:,(\d+))? \+\d+(?:,\d+)? @@", line)
        if head:
            first = int(head[1]) - (head[2] != "0")
            made += before[at:first]
            at = first
        elif line[0] == "+":
            made.append(line[1:])
        else:
            assert before[at] == line[1:]
            made += [line[1:]] * (line[0] == " ")
            at += 1
    return "\n".join(made + before[at:])


@settings(max_examples=300, deadline=None)
@given(TEXT, TEXT)
def test_a_diff_makes_one_text_of_the_other(old, new):
    told = unified_diff(old, new, NAMES)

    assert (told == "") == (old == new)
    assert applied(old, told) == new if told else True


@settings(max_examples=100, deadline=None)
@given(TEXT, TEXT)
def test_texts_with_hardly_a_line_in_common_are_told_as_replaced(old, new):
    most, diffs._MOST_PAIRS = diffs._MOST_PAIRS, 0
    try:
        told = unified_diff(old, new, NAMES)
    finally:
        diffs._MOST_PAIRS = most

    assert applied(old, told) == new if told else old == new


def test_a_change_in_a_long_text_is_told_alone():
    old = "\n".join(map(str, range(200_000)))

    assert unified_diff(old, old.replace("\n100000\n", "\nx\n"), NAMES).count("\n") == 11
