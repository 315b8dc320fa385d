"""The cache of vectors: bounded, and no organization lives at the others' expense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from letta_llm_gateway.domain.embedding.vectors import ENTRY_BYTES, VectorCache, key_of, unit

SIZE = 4 * 8 + ENTRY_BYTES


def vector(value: float) -> list[float]:
    return [value] * 8


def test_a_vector_comes_back_as_it_was_put():
    cache = VectorCache(1 << 20, 1 << 20)
    key = key_of("org-a", "m", "text")
    assert cache.get(key) is None
    cache.put(key, [0.5, -1.0, 2.0])

    assert list(cache.get(key)) == [0.5, -1.0, 2.0]


def test_organizations_and_models_share_nothing():
    cache = VectorCache(1 << 20, 1 << 20)
    cache.put(key_of("org-a", "m", "text"), vector(1))

    assert cache.get(key_of("org-b", "m", "text")) is None
    assert cache.get(key_of("org-a", "n", "text")) is None
    assert cache.get(key_of("org-a", "m", "Text")) is None


def test_what_was_not_used_for_long_goes_first():
    cache = VectorCache(3 * SIZE, 3 * SIZE)
    keys = [key_of("org-a", "m", str(at)) for at in range(4)]
    for key in keys[:3]:
        cache.put(key, vector(1))
    cache.get(keys[0])
    cache.put(keys[3], vector(1))

    assert [cache.get(key) is not None for key in keys] == [True, False, True, True]
    assert cache.bytes == 3 * SIZE


def test_what_others_did_not_use_for_long_goes_first():
    cache = VectorCache(3 * SIZE, 3 * SIZE)
    used, unused, own = key_of("org-a", "m", "used"), key_of("org-a", "m", "unused"), key_of("org-b", "m", "own")
    for key in (used, unused, own):
        cache.put(key, vector(1))
    cache.get(used)
    new = key_of("org-b", "m", "new")
    cache.put(new, vector(1))

    assert [cache.get(key) is not None for key in (used, unused, own, new)] == [True, False, True, True]


def test_one_organization_keeps_to_its_share():
    cache = VectorCache(10 * SIZE, 4 * SIZE)
    other = key_of("org-b", "m", "kept")
    cache.put(other, vector(1))
    for at in range(100):
        cache.put(key_of("org-a", "m", str(at)), vector(1))

    assert cache.get(other) is not None
    assert cache.bytes == 5 * SIZE


def test_nothing_is_kept_where_nothing_may_be():
    cache = VectorCache(0, 0)
    cache.put(key_of("org-a", "m", "x"), vector(1))

    assert (cache.get(key_of("org-a", "m", "x")), cache.bytes) == (None, 0)


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 30), st.integers(0, 40)), max_size=200))
def test_bounds_hold_whatever_comes(puts):
    cache = VectorCache(6000, 2400)
    for organization, text, size in puts:
        cache.put(key_of(organization, "m", str(text)), [1.0] * size)
        held = {name: sum(4 * len(v) + ENTRY_BYTES for v in mine.values()) for name, mine in cache._of.items()}
        assert sum(held.values()) == cache.bytes <= 6000
        assert all(size <= 2400 for size in held.values())


@pytest.mark.parametrize(("given_", "made"), [([3.0, 4.0], [0.6, 0.8]), ([0.0, 0.0], [0.0, 0.0]), ([1.0], [1.0])])
def test_vectors_get_unit_length(given_, made):
    assert unit(given_) == made
