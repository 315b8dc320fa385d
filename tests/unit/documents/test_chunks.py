"""Where documents are cut."""

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from letta_documents.chunks import chunks
from letta_documents.documents import Document, Part, PartKind
from letta_documents.inside.formats import plain
from letta_documents.inside.writing import Rows, TextWriter

FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"


def document_of(writer: TextWriter) -> Document:
    made = writer.result("text/plain")
    parts = tuple(
        Part(PartKind(kind), start, end, tuple(titles), page, header)
        for kind, start, end, titles, page, header in made["parts"]
    )
    return Document("text/plain", made["text"], parts)


def markdown(text: str) -> Document:
    writer = TextWriter(10_000_000)
    plain.write_markdown(writer, text)
    return document_of(writer)


def text_of(text: str) -> Document:
    writer = TextWriter(10_000_000)
    writer.write(text)
    return document_of(writer)


def test_a_section_that_fits_is_a_chunk_of_its_own():
    sections = [f"# S{number}\n\n{'word ' * 30}\n\n" for number in range(3)]
    made = chunks(markdown("".join(sections)), 200)

    assert [chunk.text for chunk in made] == [section.strip() for section in sections]
    assert [chunk.titles for chunk in made] == [("S0",), ("S1",), ("S2",)]


def test_small_sections_come_together_under_what_they_have_in_common():
    made = chunks(markdown("# A\n\n## B\n\none\n\n## C\n\ntwo\n"), 200)

    assert [(chunk.text, chunk.titles) for chunk in made] == [("# A\n\n## B\n\none\n\n## C\n\ntwo", ("A",))]


def test_a_chunk_knows_its_lines_and_characters():
    document = text_of("one " * 20 + "\n\n" + "two " * 20 + "\nthree\n")
    made = chunks(document, 100)

    assert [(chunk.first_line, chunk.last_line) for chunk in made] == [(1, 1), (3, 4)]
    assert [document.text[chunk.start : chunk.end] for chunk in made] == [chunk.text for chunk in made]


def test_rows_of_a_table_come_with_its_header():
    writer = TextWriter(10_000)
    rows = Rows(writer)
    for number in range(40):
        rows.row(["name", "number"] if not number else [f"n{number}", str(number)])
    rows.end()
    made = chunks(document_of(writer), 120)
    header = "| name | number |\n|---|---|\n"

    assert len(made) > 3
    assert all(chunk.text.startswith(header) and chunk.text.endswith(" |") for chunk in made)
    assert "".join(chunk.text.removeprefix(header) + "\n" for chunk in made).split() == (
        "".join(f"| n{number} | {number} |\n" for number in range(1, 40)).split()
    )


def test_a_header_longer_than_half_a_chunk_is_not_repeated():
    writer = TextWriter(10_000)
    writer.table([["a" * 90], ["b" * 90], ["c" * 90]])
    made = chunks(document_of(writer), 100)

    assert ["".join(set(chunk.text) & set("abc")) for chunk in made] == ["a", "", "b", "c"]


def test_text_is_cut_at_paragraphs_then_lines_then_sentences_then_words():
    assert [chunk.text for chunk in chunks(text_of("a" * 30 + "\n\n" + "b" * 30), 50)] == ["a" * 30, "b" * 30]
    assert [chunk.text for chunk in chunks(text_of("a" * 30 + "\n" + "b" * 30), 50)] == ["a" * 30, "b" * 30]
    assert chunks(text_of("a " * 15 + "c. " + "b " * 15), 50)[0].text.endswith("c.")
    assert [chunk.text for chunk in chunks(text_of("a" * 30 + " " + "b" * 30), 50)] == ["a" * 30, "b" * 30]


def test_pages_of_a_chunk_are_the_first_and_last_of_what_is_in_it():
    writer = TextWriter(10_000)
    for number in (1, 2, 3):
        writer.turn(number)
        writer.write(f"[page {number}]\n" + "w " * (5 if number < 3 else 70) + "\n\n")
    made = chunks(document_of(writer), 150)

    assert [(chunk.first_page, chunk.last_page) for chunk in made] == [(1, 3), (3, 3)]


@pytest.mark.parametrize(
    "unit", [FAMILY, "e\u0301\u0323", "\U0001f1e9\U0001f1ea", "\U0001f44d\U0001f3fd", "각", "\u1100\u1161\u11a8"]
)
def test_no_cut_is_inside_of_a_character_as_readers_see_it(unit):
    made = chunks(text_of(unit * 50), 33)

    assert len(made) > 1
    assert all(regex.fullmatch(f"(?:{unit})+", chunk.text) for chunk in made)


def test_a_mark_on_a_space_stays_on_it():
    made = chunks(text_of(("a" * 9 + " \u0301") * 20), 35)

    assert not [chunk.text for chunk in made if chunk.text.startswith("\u0301")]


def test_marks_without_end_are_cut_all_the_same():
    made = chunks(text_of("e" + "\u0301" * 10_000), 100)

    assert max(len(chunk.text) for chunk in made) == 100
    assert "".join(chunk.text for chunk in made) == "e" + "\u0301" * 10_000


def test_a_size_that_holds_nothing_is_refused():
    with pytest.raises(ValueError, match="too small"):
        chunks(text_of("a"), 31)


LINES = st.one_of(
    st.sampled_from(["# A", "## B", "|a|b|", "|-|-|", "```", "", "", "---", "- item", "    code", FAMILY * 3]),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=120),
)


@settings(max_examples=150, deadline=None)
@given(st.lists(LINES, max_size=40), st.integers(32, 400))
def test_chunks_are_all_of_the_text_within_bounds_and_in_order(lines, size):
    document = markdown("\n".join(lines))
    made = chunks(document, size)
    lines_of = document.text.split("\n")

    assert all(0 < len(chunk.text) <= size for chunk in made)
    assert all(chunk.text.endswith(document.text[chunk.start : chunk.end]) for chunk in made)
    covered = [False] * len(document.text)
    at = 0
    for chunk in made:
        assert at <= chunk.start < chunk.end
        at = chunk.end
        covered[chunk.start : chunk.end] = [True] * (chunk.end - chunk.start)
        inside = "\n".join(lines_of[chunk.first_line - 1 : chunk.last_line])
        assert document.text[chunk.start : chunk.end] in inside
    assert not "".join(sign for sign, there in zip(document.text, covered, strict=True) if not there).strip()
