"""MemoryReviewService: what is proposed of passages, and what deciding about it does."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from letta.common.v1 import sort_order_pb2
from letta.memory.v1 import archive_service_pb2, passage_service_pb2
from letta.memory.v1 import memory_review_service_pb2 as pb
from letta.memory.v1.memory_suggestion_pb2 import (
    ArchiveReviewPolicy,
    MemorySuggestion,
    MemorySuggestionKind,
    MemorySuggestionState,
)
from letta.memory.v1.passage_pb2 import Passage
from letta_common.errors import (
    ArchiveNotFound,
    CursorNotFound,
    MemorySuggestionDecided,
    MemorySuggestionNotFound,
    MemorySuggestionOutdated,
    ValidationFailed,
)
from letta_common.values.ids import new_id

OPEN, ACCEPTED, DISMISSED, OUTDATED = MemorySuggestionState.values()[1:]
TEA = "Ann likes green tea in the morning."
SAME = "ann likes GREEN tea in the MORNING"
MORE = "Ann likes green tea with honey in the morning."


async def archive(memory: Any, **policy: Any) -> str:
    """Make an archive of this policy."""
    request = archive_service_pb2.CreateArchiveRequest(name="notes")
    archive_id = (await memory.archives.CreateArchive(request, timeout=10)).archive.id
    if policy:
        await set_policy(memory, archive_id, **policy)
    return str(archive_id)


async def set_policy(memory: Any, archive_id: str, **policy: Any) -> ArchiveReviewPolicy:
    request = pb.UpdateArchiveReviewPolicyRequest(archive_id=archive_id, policy=ArchiveReviewPolicy(**policy))
    request.update_mask.paths.extend(policy)
    return (await memory.reviews.UpdateArchiveReviewPolicy(request, timeout=10)).policy


async def policy_of(memory: Any, archive_id: str) -> ArchiveReviewPolicy:
    request = pb.GetArchiveReviewPolicyRequest(archive_id=archive_id)
    return (await memory.reviews.GetArchiveReviewPolicy(request, timeout=10)).policy


async def write(memory: Any, archive_id: str, *texts: str, tags: Any = (), **more: Any) -> list[str]:
    """Write passages one after the other; return their ids."""
    ids = []
    for text in texts:
        passage = passage_service_pb2.NewPassage(text=text, tags=tags, **more)
        request = passage_service_pb2.CreatePassageRequest(archive_id=archive_id, passage=passage)
        ids.append((await memory.passages.CreatePassage(request, timeout=10)).passage.id)
    return ids


async def delete(memory: Any, archive_id: str, passage_id: str) -> None:
    request = passage_service_pb2.DeletePassageRequest(archive_id=archive_id, passage_id=passage_id)
    await memory.passages.DeletePassage(request, timeout=10)


async def passages(memory: Any, archive_id: str, query: str = "") -> list[Passage]:
    request = passage_service_pb2.SearchPassagesRequest(archive_id=archive_id, query=query)
    return [found.passage for found in (await memory.passages.SearchPassages(request, timeout=10)).results]


async def suggestions(memory: Any, **wanted: Any) -> list[MemorySuggestion]:
    request = pb.ListMemorySuggestionsRequest(**wanted)
    return list((await memory.reviews.ListMemorySuggestions(request, timeout=10)).suggestions)


async def reviewed(memory: Any, archive_id: str) -> None:
    """Wait until all that was written so far is compared: what is written after it comes after it."""
    marker = " ".join(new_id("x").split("-"))
    await write(memory, archive_id, marker, f"{marker}!")
    while True:
        if any(marker in found.passages[0].text for found in await suggestions(memory, archive_id=archive_id)):
            return
        await asyncio.sleep(0.02)


async def proposed(memory: Any, archive_id: str, number: int = 1) -> list[MemorySuggestion]:
    """Wait for so many open suggestions of an archive."""
    while True:
        if len(found := await suggestions(memory, archive_id=archive_id, state=OPEN)) >= number:
            return found
        await asyncio.sleep(0.02)


async def get(memory: Any, suggestion_id: str) -> MemorySuggestion:
    request = pb.GetMemorySuggestionRequest(suggestion_id=suggestion_id)
    return (await memory.reviews.GetMemorySuggestion(request, timeout=10)).suggestion


async def accept(memory: Any, suggestion_id: str) -> MemorySuggestion:
    request = pb.AcceptMemorySuggestionRequest(suggestion_id=suggestion_id)
    return (await memory.reviews.AcceptMemorySuggestion(request, timeout=10)).suggestion


async def dismiss(memory: Any, suggestion_id: str) -> MemorySuggestion:
    request = pb.DismissMemorySuggestionRequest(suggestion_id=suggestion_id)
    return (await memory.reviews.DismissMemorySuggestion(request, timeout=10)).suggestion


async def test_passages_that_say_the_same_are_proposed_with_what_is_known_of_them(memory: Any) -> None:
    archive_id = await archive(memory)
    first, second = await write(memory, archive_id, TEA, MORE)
    [found] = await proposed(memory, archive_id)

    assert (found.kind, found.state) == (MemorySuggestionKind.MEMORY_SUGGESTION_KIND_MERGE_PASSAGES, OPEN)
    assert found.id.startswith("suggestion-")
    assert [(each.passage_id, each.text) for each in found.passages] == [(first, TEA), (second, MORE)]
    assert (found.archive_id, found.HasField("agent_id"), found.HasField("block_id")) == (archive_id, False, False)
    assert not found.scores.same_text
    assert found.scores.word_overlap == pytest.approx(6 / 8)
    assert 0.8 < found.scores.similarity < 1
    assert not found.HasField("decided_at")
    assert await get(memory, found.id) == found


async def test_accepting_keeps_the_newest_text_and_where_the_oldest_came_from(memory: Any) -> None:
    archive_id = await archive(memory)
    made = datetime(2025, 3, 4, tzinfo=UTC)
    [first] = await write(memory, archive_id, TEA, tags=["drinks", "ann"], metadata='{"from": "ann"}', created_at=made)
    [second] = await write(memory, archive_id, MORE, tags=["ann", "habits"])
    [found] = await proposed(memory, archive_id)
    done = await accept(memory, found.id)

    assert (done.state, done.decided_by_id) == (ACCEPTED, memory.ANN.user_id)
    [kept] = await passages(memory, archive_id)
    assert (kept.id, kept.text, list(kept.tags)) == (first, MORE, ["drinks", "ann", "habits"])
    assert (kept.metadata, kept.created_at.ToDatetime(tzinfo=UTC)) == ('{"from": "ann"}', made)
    assert [each.id for each in await passages(memory, archive_id, "honey")] == [first]
    assert kept.embedding
    request = archive_service_pb2.GetArchiveEmbeddingRequest(archive_id=archive_id)
    how_far = (await memory.archives.GetArchiveEmbedding(request, timeout=10)).embedding
    assert (how_far.passage_count, how_far.embedded_count) == (1, 1)
    assert await accept(memory, found.id) == done
    with pytest.raises(MemorySuggestionDecided):
        await dismiss(memory, found.id)
    assert second != first


async def test_what_is_merged_is_compared_again_with_the_others(memory: Any) -> None:
    archive_id = await archive(memory)
    first, *_ = await write(memory, archive_id, TEA, SAME, MORE)
    while open_ones := await proposed(memory, archive_id):
        await accept(memory, open_ones[-1].id)
        if len(await passages(memory, archive_id)) == 1:
            break

    [kept] = await passages(memory, archive_id)
    assert (kept.id, kept.text) == (first, MORE)
    assert await suggestions(memory, archive_id=archive_id, state=OPEN) == []


async def test_what_was_dismissed_is_not_proposed_again(memory: Any) -> None:
    archive_id = await archive(memory)
    await write(memory, archive_id, TEA, SAME)
    [found] = await proposed(memory, archive_id)
    assert found.scores.same_text
    assert (await dismiss(memory, found.id)).state == DISMISSED
    assert (await dismiss(memory, found.id)).state == DISMISSED
    await write(memory, archive_id, TEA.upper())
    await reviewed(memory, archive_id)

    told = await suggestions(memory, archive_id=archive_id)
    assert [each.id for each in told if "tea" in each.passages[0].text.lower()] == [found.id]
    assert len(await passages(memory, archive_id)) == 5
    with pytest.raises(MemorySuggestionDecided):
        await accept(memory, found.id)


async def test_a_suggestion_is_outdated_when_one_of_its_passages_goes(memory: Any) -> None:
    archive_id = await archive(memory)
    _, second = await write(memory, archive_id, TEA, SAME)
    [found] = await proposed(memory, archive_id)
    await delete(memory, archive_id, second)

    assert (await get(memory, found.id)).state == OUTDATED
    for decide in (accept, dismiss):
        with pytest.raises(MemorySuggestionOutdated):
            await decide(memory, found.id)
    assert len(await passages(memory, archive_id)) == 1
    await write(memory, archive_id, SAME)
    [again] = await proposed(memory, archive_id)
    assert again.id != found.id


@pytest.mark.parametrize(
    "other",
    [
        "Ann does not like green tea in the morning.",
        "Ann likes black tea in the morning.",
        "Bob likes green tea in the morning.",
        "Ann likes green tea in the morning but not in winter.",
        "Ann likes tea.",
    ],
)
async def test_what_says_something_else_is_not_proposed(memory: Any, other: str) -> None:
    archive_id = await archive(memory)
    await write(memory, archive_id, TEA, other)
    await reviewed(memory, archive_id)

    assert len(await suggestions(memory, archive_id=archive_id)) == 1


async def test_passages_without_vectors_are_compared_by_their_words(memory: Any) -> None:
    memory.embedder.down = True
    try:
        archive_id = await archive(memory)
        await write(memory, archive_id, TEA, SAME)
        await asyncio.sleep(0.3)
        assert await suggestions(memory, archive_id=archive_id) == []
    finally:
        memory.embedder.down = False
    [found] = await proposed(memory, archive_id)
    assert found.scores.same_text


async def test_no_more_are_open_than_the_policy_says_and_the_others_come_as_they_are_decided(memory: Any) -> None:
    archive_id = await archive(memory, most_open=2)
    names = ["apples", "pears", "plums", "quinces", "cherries"]
    await write(memory, archive_id, *(f"Ann buys {name} on Mondays at the market." for name in names))
    await write(memory, archive_id, *(f"ann buys {name} on mondays at the market" for name in names))
    seen: set[str] = set()
    while len(seen) < len(names):
        found = await suggestions(memory, archive_id=archive_id, state=OPEN)
        assert len(found) <= 2
        if not found:
            await asyncio.sleep(0.02)
            continue
        seen.add((await dismiss(memory, found[-1].id)).passages[0].text)
    assert len(await passages(memory, archive_id)) == 2 * len(names)


async def test_nothing_is_proposed_while_the_policy_says_so_and_all_is_once_it_does_not(memory: Any) -> None:
    archive_id, other = await archive(memory, suggest_duplicates=False), await archive(memory)
    assert await policy_of(memory, archive_id) == ArchiveReviewPolicy(archive_id=archive_id, most_open=100)
    await write(memory, archive_id, TEA, SAME)
    await reviewed(memory, other)
    assert await suggestions(memory, archive_id=archive_id) == []

    policy = await set_policy(memory, archive_id, suggest_duplicates=True)
    assert policy == ArchiveReviewPolicy(archive_id=archive_id, suggest_duplicates=True, most_open=100)
    assert len(await proposed(memory, archive_id)) == 1
    with pytest.raises(ValidationFailed):
        await set_policy(memory, archive_id, most_open=1001)
    assert (await set_policy(memory, archive_id, most_open=0)).most_open == 100
    for ask in (policy_of, set_policy):
        with pytest.raises(ArchiveNotFound):
            await ask(memory, new_id("archive"))


async def test_suggestions_are_listed_by_what_they_are_about_and_page_by_page(memory: Any, stranger: Any) -> None:
    with stranger:
        one, two = await archive(memory), await archive(memory)
        await write(memory, one, TEA, SAME)
        await write(memory, two, "The key is under the mat.", "the key is under the mat")
        [first], [second] = await proposed(memory, one), await proposed(memory, two)
        agent_id = await memory.agent()
        request = archive_service_pb2.AttachArchiveRequest(agent_id=agent_id, archive_id=two)
        await memory.archives.AttachArchive(request, timeout=10)
        await dismiss(memory, first.id)

        async def ids(**wanted: Any) -> list[str]:
            return [each.id for each in await suggestions(memory, **wanted)]

        newest_first = sorted([first, second], key=lambda each: each.created_at.ToNanoseconds(), reverse=True)
        in_order = [each.id for each in newest_first]
        assert await ids() == in_order
        assert await ids(order=sort_order_pb2.SORT_ORDER_ASC) == in_order[::-1]
        assert await ids(limit=1) == in_order[:1]
        assert await ids(after=in_order[0]) == in_order[1:]
        assert await ids(before=in_order[1]) == in_order[:1]
        assert await ids(agent_id=agent_id) == [second.id]
        assert await ids(archive_id=one) == [first.id]
        assert await ids(state=OPEN) == [second.id]
        assert await ids(state=DISMISSED) == [first.id]
        assert await ids(kind=MemorySuggestionKind.MEMORY_SUGGESTION_KIND_CORRECT_BLOCK) == []
        assert len(await ids(kind=MemorySuggestionKind.MEMORY_SUGGESTION_KIND_MERGE_PASSAGES)) == 2
        assert await ids(block_id=new_id("block")) == []
        with pytest.raises(CursorNotFound):
            await ids(after="suggestion-none")


async def test_another_organization_sees_none_and_decides_none(memory: Any) -> None:
    archive_id = await archive(memory)
    await write(memory, archive_id, TEA, SAME)
    [found] = await proposed(memory, archive_id)
    with memory.actor(memory.BOB):
        assert await suggestions(memory, archive_id=archive_id) == []
        for ask in (get, accept, dismiss):
            with pytest.raises(MemorySuggestionNotFound):
                await ask(memory, found.id)
        with pytest.raises(ArchiveNotFound):
            await set_policy(memory, archive_id, suggest_duplicates=False)
    assert (await get(memory, found.id)).state == OPEN


async def test_suggestions_go_with_their_archive(memory: Any) -> None:
    archive_id = await archive(memory)
    await write(memory, archive_id, TEA, SAME)
    [found] = await proposed(memory, archive_id)
    request = archive_service_pb2.DeleteArchiveRequest(archive_id=archive_id)
    await memory.archives.DeleteArchive(request, timeout=10)

    with pytest.raises(MemorySuggestionNotFound):
        await get(memory, found.id)


async def test_of_many_who_accept_and_delete_at_once_nobody_leaves_half(memory: Any) -> None:
    archive_id = await archive(memory)
    first, second = await write(memory, archive_id, TEA, MORE)
    [found] = await proposed(memory, archive_id)
    done = await asyncio.gather(
        *(accept(memory, found.id) for _ in range(4)), delete(memory, archive_id, second), return_exceptions=True
    )

    kept = [(each.id, each.text) for each in await passages(memory, archive_id)]
    merged = [each for each in done[:4] if isinstance(each, MemorySuggestion)]
    assert kept == ([(first, MORE)] if merged else [(first, TEA)])
    assert len(merged) in (0, 4)
