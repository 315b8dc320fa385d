"""Searches through the texts of files, and how far each goes."""

from __future__ import annotations

import random
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest

from letta.memory.v1.agent_file_pb2 import GrepEnd
from letta.memory.v1.agent_file_service_pb2 import GrepFilesRequest, GrepFilesResponse
from letta_common.actor import Actor
from letta_common.errors import InvalidArgument
from letta_common.fair_slots import FairSlots, Shares
from letta_memory.domain.reading import greps
from letta_memory.domain.reading.agent_files import AgentFiles, FileText, GrepLimits
from letta_memory.domain.reading.file_views import LineRange, chosen, view
from letta_memory.domain.reading.greps import Grep
from letta_rpc.page_bytes import MAX_PAGE_BYTES

ANN = Actor("org-a", "user-ann")


class Texts:
    """The texts of one agent."""

    def __init__(self, **texts: str) -> None:
        self.texts = texts
        self.read: list[str] = []

    async def list_texts(self, actor: Actor, agent_id: str) -> list[FileText]:
        return [FileText(name, name, len(text.encode())) for name, text in sorted(self.texts.items())]

    async def stream_text(self, actor: Actor, file_id: str) -> AsyncIterator[bytes]:
        self.read.append(file_id)
        for line in self.texts[file_id].splitlines(keepends=True):
            yield line.encode()

    async def list_lines(self, actor: Actor, file_id: str, first: int, count: int) -> list[str]:
        return self.texts[file_id].splitlines()[first : first + count]


async def grep(texts: Texts, pattern: str = "x", *, limits: GrepLimits | None = None, **more: Any) -> GrepFilesResponse:
    store: Any = texts
    passages: Any = None
    files = AgentFiles(store, passages, FairSlots(Shares(slots=1), "searches"), limits or GrepLimits())
    request = GrepFilesRequest(agent_id="agent-1", pattern=pattern, **{"limit": 20, **more})
    return await files.grep(ANN, request)


async def test_a_large_file_is_left_out_and_said() -> None:
    texts = Texts(a="x\n" * 10, b="x")
    found = await grep(texts, limits=GrepLimits(file_bytes=10))
    assert list(found.skipped_file_names) == ["a"]
    assert (texts.read, found.match_count, found.end) == (["b"], 1, GrepEnd.GREP_END_UNSPECIFIED)


async def test_a_search_reads_so_many_bytes_and_no_more() -> None:
    texts = Texts(a="x" * 6, b="x" * 6, c="x")
    found = await grep(texts, limits=GrepLimits(total_bytes=11))
    assert (texts.read, found.end, found.searched_file_count) == (["a"], GrepEnd.GREP_END_SIZE, 1)


async def test_a_search_ends_with_so_many_matches() -> None:
    texts = Texts(a="x\n" * 5, b="x\n" * 5, c="x")
    found = await grep(texts, limits=GrepLimits(matches=7))
    assert (found.match_count, found.end, texts.read) == (7, GrepEnd.GREP_END_MATCHES, ["a", "b"])
    assert [(each.file_name, each.match_count) for each in found.files] == [("a", 5), ("b", 2)]


async def test_a_search_that_takes_too_long_ends_and_says_so() -> None:
    found = await grep(Texts(a="x", b="x"), limits=GrepLimits(seconds=-1))
    assert (found.match_count, found.end) == (0, GrepEnd.GREP_END_TIME)


async def test_matches_that_are_too_large_together_come_page_by_page() -> None:
    texts = Texts(a=("x" + "界" * 399 + "\n") * 1_000)
    found = await grep(texts, limit=1_000, context_lines=50)
    assert found.ByteSize() < MAX_PAGE_BYTES
    assert (found.match_count, found.matches[0].line_number) == (1_000, 1)
    more = await grep(texts, limit=1_000, context_lines=50, offset=len(found.matches))
    assert more.matches[0].line_number == found.matches[-1].line_number + 1


async def test_long_lines_are_shown_cut() -> None:
    [match] = (await grep(Texts(a="x" * 10_000), context_lines=1)).matches
    [line] = match.lines
    assert len(line) < 500
    assert line.endswith("[cut]")


def expected(pattern: str, text: str) -> list[int]:
    lines = text.removesuffix("\n").split("\n") if text else []
    return [number for number, line in enumerate(lines) if re.search(pattern, line, re.I)]


PATTERNS = ["^$", "a", "A$", "^b", "x*", "ab", "a.c", "^a|c$", "b+", r"a\s+b", "[^x]b"]


@pytest.mark.parametrize("window", [64 << 10, 50])
def test_lines_are_those_that_the_pattern_matches(monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    monkeypatch.setattr(greps, "_WINDOW", window)
    monkeypatch.setattr(greps, "_OVERLAP", 10)
    rng = random.Random(7)
    for _ in range(2_000):
        text = "".join(rng.choice("ababcabc \n") for _ in range(rng.randrange(400)))
        pattern = rng.choice(PATTERNS)
        found = list(Grep(pattern).lines(text.encode(), time.monotonic() + 60))
        # A line may be longer than a window, but no match is longer than what its pieces overlap by.
        assert found == expected(pattern, text), (pattern, text)


def test_a_line_that_is_longer_than_a_window_is_searched_to_its_end() -> None:
    text = b"x" * 200_000 + b"needle" + b"y" * 200_000 + b"\nneedle\n"
    assert list(Grep("needle").lines(text, time.monotonic() + 60)) == [0, 1]
    assert list(Grep("^needle").lines(text, time.monotonic() + 60)) == [1]
    assert list(Grep("needle$").lines(text, time.monotonic() + 60)) == [1]


def test_letters_of_all_languages_have_no_case() -> None:
    assert list(Grep("größe").lines("GRÖSSE\nGRÖßE\n".encode(), time.monotonic() + 60)) == [1]


@pytest.mark.parametrize(
    ("offset", "length", "lines"),
    [(None, None, LineRange()), (0, 5, LineRange(0, 5)), (5, None, LineRange(5)), (38, 9, LineRange(38, 40))],
)
def test_lines_are_chosen(offset: int | None, length: int | None, lines: LineRange) -> None:
    assert chosen("a", 40, offset, length) == lines


def test_lines_that_are_not_there_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="no offset above 39"):
        chosen("a", 40, 40, None)
    assert chosen("empty", 0, 0, None) == LineRange()


LINES = [f"line {number}" for number in range(1, 41)]


@pytest.mark.parametrize("limit", [0, 1, 10, 60, 150, 200, 260, 400, 10_000])
def test_a_view_is_no_longer_than_its_limit(limit: int) -> None:
    shown = view("\n".join(LINES), 40, LineRange(), limit)
    assert len(shown) <= limit
    numbers = [int(found) for found in re.findall(r"^(\d+): ", shown, re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    if 150 <= limit < 600:
        assert f"offset {len(numbers)} to read on" in shown


def test_a_view_has_lines_as_they_are() -> None:
    assert view("a\n\n 1: b", 3, LineRange(), 999) == "[Viewing file start (out of 3 lines)]\n1: a\n2: \n3:  1: b"
    assert view("", 0, LineRange(), 999) == "[Viewing file start (out of 0 lines)]"
