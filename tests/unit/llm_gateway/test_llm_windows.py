"""How long texts are cut for embedders, and what the local embedder takes of memory for them."""

from __future__ import annotations

import math
import resource

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_llm_gateway.domain.embedding.windows import EmbeddingLimits, limits_of, mean, pieces_of
from letta_llm_gateway.providers.local_embedder import NAME, LocalEmbedder

WINDOW = limits_of("builtin", NAME).window
KILOBYTES_OF_GROWTH = 100 << 10


@given(st.text(), st.integers(4, 64))
def test_pieces_fit_and_lose_nothing_but_space(text, window):
    pieces = pieces_of(text, window)

    assert pieces
    assert all(len(piece.encode()) <= window for piece in pieces)
    assert "".join("".join(pieces).split()) == "".join(text.split())


def test_a_text_that_fits_stays_as_it_is():
    assert pieces_of("  as it is \n", 64) == ["  as it is \n"]
    assert pieces_of("", 64) == [""]


def test_texts_are_cut_between_words():
    pieces = pieces_of("some words of a text " * 100, 100)

    assert {word for piece in pieces for word in piece.split()} == {"some", "words", "of", "a", "text"}


def test_a_mean_counts_by_length():
    assert mean([[1.0, 0.0], [0.0, 1.0]], [3, 1]) == [0.75, 0.25]
    assert mean([[0.5]], [7]) == [0.5]


@pytest.mark.parametrize(
    ("provider", "name", "limits"),
    [
        ("openai", "text-embedding-3-small", EmbeddingLimits(8_000, 96, 256_000)),
        ("mistral", "mistral-embed", EmbeddingLimits(8_000, 96, 16_000)),
        ("google_ai", "gemini-embedding-001", EmbeddingLimits(2_000, 96, 20_000)),
        ("google_vertex", "gemini-embedding-001", EmbeddingLimits(2_000, 1)),
        ("google_vertex", "text-embedding-005", EmbeddingLimits(2_000, 96, 20_000)),
        ("bedrock", "cohere.embed-english-v3", EmbeddingLimits(1_500, 96, 144_000)),
        ("ollama", "all-minilm", EmbeddingLimits()),
    ],
)
def test_vendors_get_what_they_take(provider, name, limits):
    assert limits_of(provider, name) == limits


class Counted:
    """A session of the encoder that notes how many bytes each run gets: no text has more tokens than that."""

    def __init__(self, session) -> None:
        self._session = session
        self.runs: list[int] = []

    def get_inputs(self):
        return self._session.get_inputs()

    def run(self, outputs, inputs):
        [texts] = inputs.values()
        self.runs.append(sum(len(text.encode()) for text in texts))
        return self._session.run(outputs, inputs)


@pytest.fixture
def embedder():
    made = LocalEmbedder()
    made.embed_now(["warm"])
    made._session = Counted(made._session)
    yield made
    made.close()


@pytest.mark.parametrize("text", ["word " * 12_000, "x" * 60_000, "\u0e01" * 20_000, "\U0001f600" * 15_000])
async def test_no_run_gets_more_than_a_window_and_memory_is_given_back(embedder, text):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    [vector] = await embedder.embed([text])

    assert max(embedder._session.runs) <= WINDOW
    assert sum(embedder._session.runs) >= len(text.encode()) * 0.75, "all of it is read"
    assert math.isclose(sum(value**2 for value in vector), 1, rel_tol=1e-3)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < KILOBYTES_OF_GROWTH, f"{grown} KB at the highest"


def test_what_rules_embed_is_cut_too(embedder):
    embedder.embed_now(["y " * 20_000])

    assert max(embedder._session.runs) <= WINDOW
