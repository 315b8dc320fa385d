"""The stores of blocks, archives, passages and messages in memory: for tests, held to the contract of PostgreSQL's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from letta_common.actor import Actor
from letta_common.errors import (
    ArchiveNotFound,
    ArchiveTaken,
    BlockLabelTaken,
    BlockNotFound,
    ConversationNotFound,
    CursorNotFound,
    EmbeddingDimensionChanged,
    MessageNotFound,
    PassageNotFound,
)
from letta_common.ids import derived_id
from letta_common.paging import Page, time_of
from letta_memory.domain.archives import Archive, ArchiveEmbedding, Reembedding
from letta_memory.domain.blocks import Block, BlockFilter
from letta_memory.domain.contexts import FLAG_ERROR
from letta_memory.domain.embeddings import Failure, PendingText, Vectors, dimension_changed
from letta_memory.domain.messages import MessageFilter, MessageHit, MessageQuery, Scope
from letta_memory.domain.passages import Draft, Passage, PassageHit, PassageQuery, Place, Question, Written
from letta_memory.store.fake_state import FakeState, Found, Stored, cosine, search


class FakeBlockStore:
    """Blocks in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def add(self, actor: Actor, block: Block, *, request_hash: bytes = b"") -> Block:
        """Store a new block; return the one that has the id already, if one has."""
        key = (actor.organization_id, block.id)
        self._state.require_same(key, request_hash, self._state.blocks)
        return self._state.blocks.setdefault(key, block)

    async def get(self, actor: Actor, block_id: str) -> Block:
        """Return one block."""
        return self._state.block(actor, block_id)

    async def of_agent(self, actor: Actor, agent_id: str, label: str) -> Block:
        """Return an agent's block of this label."""
        self._state.require_agent(actor, agent_id)
        for block in self._state.blocks_of(actor, agent_id):
            if block.label == label:
                return block
        text = f"No block with label '{label}' found for agent '{agent_id}'"
        raise BlockNotFound(text, label=label, agent_id=agent_id)

    async def list_all(self, actor: Actor, wanted: BlockFilter, page: Page) -> list[Block]:
        """Return a page of blocks."""
        return _page(self._state, self._matching(actor, wanted), page)

    async def list_of_agent(self, actor: Actor, agent_id: str, page: Page) -> list[Block]:
        """Return a page of an agent's blocks."""
        self._state.require_agent(actor, agent_id)
        return _page(self._state, self._state.blocks_of(actor, agent_id), page)

    async def count(self, actor: Actor, wanted: BlockFilter) -> int:
        """Return how many blocks there are."""
        return len(self._matching(actor, wanted))

    async def replace(self, actor: Actor, block: Block, *, expected: int) -> bool:
        """Write if the stored version is still `expected`; say whether it was."""
        present = self._state.block(actor, block.id)
        if present.version != expected:
            return False
        tables = self._state.holders(actor, block.id)
        if block.label != present.label:
            if any(block.label in table for table in tables):
                text = f"an agent of block {block.id} has another block '{block.label}'"
                raise BlockLabelTaken(text, label=block.label)
            for table in tables:
                table[block.label] = table.pop(present.label)
        self._state.blocks[actor.organization_id, block.id] = block
        return True

    async def delete(self, actor: Actor, block_id: str) -> None:
        """Remove a block and detach it."""
        block = self._state.block(actor, block_id)
        for table in self._state.holders(actor, block_id):
            del table[block.label]
        del self._state.blocks[actor.organization_id, block_id]
        self._state.places[block_id] = (block.created_at, 0)

    async def agents_of(self, actor: Actor, block_id: str) -> list[str]:
        """Return the ids of the agents that have a block."""
        self._state.block(actor, block_id)
        tables = self._state.agent_blocks.items()
        return sorted(
            agent for (org, agent), table in tables if org == actor.organization_id and block_id in table.values()
        )

    def _matching(self, actor: Actor, wanted: BlockFilter) -> list[Block]:
        mine = [block for (org, _), block in self._state.blocks.items() if org == actor.organization_id]
        return [block for block in mine if _fits(block, wanted) and self._held(actor, block, wanted)]

    def _held(self, actor: Actor, block: Block, wanted: BlockFilter) -> bool:
        tables = self._state.agent_blocks.items()
        number = sum(1 for (org, _), table in tables if org == actor.organization_id and block.id in table.values())
        return (
            (wanted.agents_over is None or number > wanted.agents_over)
            and (wanted.agents_under is None or number < wanted.agents_under)
            and (not wanted.agents_equal or number in wanted.agents_equal)
        )


def _fits(block: Block, wanted: BlockFilter) -> bool:
    same = ((wanted.label, block.label), (wanted.name, block.template_name), (wanted.project_id, block.project_id))
    parts = (
        (wanted.label_search, block.label),
        (wanted.description_search, block.description or ""),
        (wanted.value_search, block.value),
    )
    return (
        not block.hidden
        and all(value in ("", found) for value, found in same)
        and all(text.lower() in found.lower() for text, found in parts)
        and _tagged(block.tags, wanted.tags, every=wanted.match_all_tags)
        and (block.is_template or not wanted.templates_only)
    )


class FakeArchiveStore:
    """Archives in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def add(self, actor: Actor, archive: Archive, *, request_hash: bytes = b"") -> Archive:
        """Store a new archive; return the one that has the id already, if one has."""
        self._state.require_same(key := (actor.organization_id, archive.id), request_hash, self._state.archives)
        return self._state.archives.setdefault(key, archive)

    async def get(self, actor: Actor, archive_id: str) -> Archive:
        """Return one archive."""
        try:
            return self._state.archives[actor.organization_id, archive_id]
        except KeyError:
            raise ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id) from None

    async def of_agent(self, actor: Actor, agent_id: str) -> Archive | None:
        """Return an agent's archive, if it has one."""
        self._state.require_agent(actor, agent_id)
        held = self._state.archive_agents.get((actor.organization_id, agent_id), "")
        return self._state.archives.get((actor.organization_id, held))

    async def list_all(self, actor: Actor, page: Page, *, name: str, agent_id: str) -> list[Archive]:
        """Return a page of archives."""
        held = self._state.archive_agents.get((actor.organization_id, agent_id), "")
        mine = [found for (org, _), found in self._state.archives.items() if org == actor.organization_id]
        fit = [found for found in mine if name in ("", found.name) and (not agent_id or found.id == held)]
        return _page(self._state, fit, page)

    async def change(self, actor: Actor, archive_id: str, changes: Mapping[str, Any]) -> Archive:
        """Change some fields."""
        changed = replace(await self.get(actor, archive_id), **changes)
        self._state.archives[actor.organization_id, archive_id] = changed
        return changed

    async def delete(self, actor: Actor, archive_id: str) -> None:
        """Remove an archive and its passages."""
        archive = await self.get(actor, archive_id)
        del self._state.archives[actor.organization_id, archive_id]
        for key in [key for key, held in self._state.archive_agents.items() if held == archive_id]:
            del self._state.archive_agents[key]
        for key in [key for key, found in self._state.passages.items() if found.archive_id == archive_id]:
            del self._state.passages[key]
        self._state.places[archive_id] = (archive.created_at, 0)

    async def attach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Let an agent use an archive."""
        self._state.require_agent(actor, agent_id)
        await self.get(actor, archive_id)
        if self._state.archive_agents.setdefault((actor.organization_id, agent_id), archive_id) != archive_id:
            raise ArchiveTaken(f"agent {agent_id} has an archive already; detach it first", agent_id=agent_id)

    async def detach(self, actor: Actor, agent_id: str, archive_id: str) -> None:
        """Take an archive from an agent."""
        self._state.require_agent(actor, agent_id)
        await self.get(actor, archive_id)
        if self._state.archive_agents.get((actor.organization_id, agent_id)) == archive_id:
            del self._state.archive_agents[actor.organization_id, agent_id]

    async def agents_of(self, actor: Actor, archive_id: str) -> list[str]:
        """Return the ids of the agents that use an archive."""
        await self.get(actor, archive_id)
        held = self._state.archive_agents.items()
        return sorted(agent for (org, agent), found in held if (org, found) == (actor.organization_id, archive_id))

    async def embedder_of(self, actor: Actor, *, archive_id: str = "", agent_id: str = "") -> str:
        """Return what embeds an archive, or the archive that an agent has or will have; empty when none is known."""
        org, state = actor.organization_id, self._state
        found = state.archives.get((org, archive_id or state.archive_agents.get((org, agent_id), "")))
        return found.embedder if found else state.embedders.get((org, agent_id), "")

    async def embedding(self, actor: Actor, archive_id: str) -> ArchiveEmbedding:
        """Return how far an archive is embedded."""
        found, key = await self.get(actor, archive_id), (actor.organization_id, archive_id)
        passages = [each for (org, _), each in self._state.passages.items() if (org, each.archive_id) == key]
        count, done = len(passages), sum(1 for passage in passages if passage.embedding is not None)
        failure = self._state.failures.get(key, Failure("", ""))
        told = (failure.reason, failure.message)
        return ArchiveEmbedding(archive_id, found.embedder, found.dimensions, count, done, *told)

    async def reembed(self, actor: Actor, order: Reembedding) -> None:
        """Let all passages wait for vectors of this embedder."""
        await self.get(actor, order.archive_id)
        self._state.reembed(actor.organization_id, order.archive_id, order.embedder, order.dimensions)


class FakePassageStore:
    """Passages in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def write(
        self, actor: Actor, place: Place, drafts: Sequence[Draft], *, embedder: str, now: datetime
    ) -> Written:
        """Store passages once for each id; make an agent's archive."""
        org = actor.organization_id
        archive = self._archive(actor, place, now)
        for draft in drafts:
            self._state.require_same((org, draft.id), draft.request_hash, self._state.passages)
        if not archive.embedder:
            archive = replace(archive, embedder=embedder)
        if archive.dimensions is None and archive.embedder == embedder:
            size = next((len(draft.vector) for draft in drafts if draft.vector is not None), None)
            archive = replace(archive, dimensions=size)
        for draft in drafts:
            if (org, draft.id) not in self._state.passages:
                fits = archive.embedder == embedder and len(draft.vector or ()) == archive.dimensions
                vector = draft.vector if fits else None
                self._state.passages[org, draft.id] = _passage(actor, archive, draft, now, vector)
                archive = replace(archive, passage_count=archive.passage_count + 1)
        self._state.archives[org, archive.id] = archive
        return Written(tuple(self._state.passages[org, draft.id] for draft in drafts), archive.embedder)

    def _archive(self, actor: Actor, place: Place, now: datetime) -> Archive:
        org = actor.organization_id
        archive_id = place.archive_id
        if not archive_id:
            self._state.require_agent(actor, place.agent_id)
            archive_id = self._state.archive_agents.setdefault(
                (org, place.agent_id), derived_id("archive", org, place.agent_id)
            )
            name = f"{self._state.agents[org, place.agent_id]}'s Archive"
            own = Archive(
                *(archive_id, name, None, self._state.embedders.get((org, place.agent_id), ""), None, ""),
                *(place.agent_id, 0, actor.user_id, actor.user_id, now, now),
            )
            self._state.archives.setdefault((org, archive_id), own)
        if (org, archive_id) not in self._state.archives:
            raise ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
        return self._state.archives[org, archive_id]

    async def delete(self, actor: Actor, archive_id: str, passage_id: str) -> None:
        """Remove a passage."""
        org = actor.organization_id
        found = self._state.passages.get((org, passage_id))
        if found is None or found.archive_id != archive_id:
            if archive_id and (org, archive_id) not in self._state.archives:
                raise ArchiveNotFound(f"there is no archive {archive_id}", archive_id=archive_id)
            raise PassageNotFound(f"the archive has no passage {passage_id}", passage_id=passage_id)
        del self._state.passages[org, passage_id]
        self._state.places[passage_id] = (found.created_at, 0)
        archive = self._state.archives[org, archive_id]
        self._state.archives[org, archive_id] = replace(archive, passage_count=archive.passage_count - 1)

    async def list_all(self, actor: Actor, archive_id: str, page: Page, *, containing: str) -> list[Passage]:
        """Return a page of passages."""
        fit = [found for found in self._all(actor, archive_id) if containing.lower() in found.text.lower()]
        return _page(self._state, fit, page)

    async def search(self, actor: Actor, archive_id: str, query: PassageQuery, question: Question) -> list[PassageHit]:
        """Return what fits best."""
        fit = [
            found
            for found in self._all(actor, archive_id)
            if _tagged(found.tags, query.tags, every=query.match_all_tags)
            and (query.start is None or found.created_at >= query.start)
            and (query.end is None or found.created_at <= query.end)
        ]
        fit.sort(key=lambda found: (found.created_at, found.id))

        def near(place: int) -> float | None:
            vector = fit[place].embedding
            asked = question.vector
            return None if vector is None or asked is None or len(vector) != len(asked) else cosine(vector, asked)

        hits = search([found.text for found in fit], query.text, near) if query.text else _newest(len(fit))
        return [PassageHit(fit[hit.place], hit.score, hit.word_rank, hit.meaning_rank) for hit in hits[: query.limit]]

    def _all(self, actor: Actor, archive_id: str) -> list[Passage]:
        key = (actor.organization_id, archive_id)
        return [found for (org, _), found in self._state.passages.items() if (org, found.archive_id) == key]


class FakeMessageStore:
    """The history of conversations in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def get(self, actor: Actor, message_id: str) -> bytes:
        """Return one message."""
        for stored in self._all(actor):
            if stored.message.id == message_id:
                return stored.message.body
        raise MessageNotFound(f"there is no message {message_id}", message_id=message_id)

    async def list_all(self, actor: Actor, scope: Scope, wanted: MessageFilter, page: Page) -> Sequence[bytes]:
        """Return a page of messages: by position in a conversation, by time across them."""
        self._require(actor, scope)
        fit = [stored for stored in self._all(actor) if _within(stored, scope) and _wanted(stored, wanted)]
        by_time = scope == Scope()

        def key(stored: Stored) -> tuple[Any, str]:
            return (stored.message.created_at if by_time else stored.seq), stored.message.id

        places = {key(stored)[1]: key(stored)[0] for stored in self._all(actor)}
        places |= {gone: place[0] if by_time else place[1] for gone, place in self._state.places.items()}
        return [stored.message.body for stored in _sliced(fit, page, key, places)]

    async def search(self, actor: Actor, query: MessageQuery, question: Question) -> list[MessageHit]:
        """Return what fits best."""
        fit = [stored for stored in self._all(actor) if stored.message.search and _asked(stored, query)]
        fit.sort(key=lambda stored: (stored.message.created_at, stored.message.id))

        def near(place: int) -> float | None:
            vector = fit[place].vector
            return None if vector is None or question.vector is None else cosine(vector, question.vector)

        texts = [stored.message.search for stored in fit]
        hits = search(texts, query.text, near, mode=query.mode) if query.text else _newest(len(fit))
        return [_hit(fit[found.place], found) for found in hits[: query.limit]]

    def _all(self, actor: Actor) -> list[Stored]:
        known = self._state.conversations.items()
        return [stored for (org, _), found in known if org == actor.organization_id for stored in found.messages]

    def _require(self, actor: Actor, scope: Scope) -> None:
        if not scope.conversation_id:
            return
        found = self._state.conversations.get((actor.organization_id, scope.conversation_id))
        if found is None or scope.agent_id not in ("", found.agent_id):
            if scope.agent_id:
                self._state.require_agent(actor, scope.agent_id)
            text = f"there is no conversation {scope.conversation_id}"
            raise ConversationNotFound(text, conversation_id=scope.conversation_id)


_FINE = Failure("", "")


class FakePendingStore:
    """Texts that wait to be embedded, in memory."""

    def __init__(self, state: FakeState) -> None:
        self._state = state

    async def pending(self, limit: int) -> list[PendingText]:
        """Return some texts that wait."""
        state = self._state
        waiting = [
            PendingText(
                "passage", org, found.id, state.archives[org, found.archive_id].embedder, found.text, found.archive_id
            )
            for (org, _), found in state.passages.items()
            if found.embedding is None
            and state.failures.get((org, found.archive_id), _FINE).reason != EmbeddingDimensionChanged.reason
        ]
        waiting += [
            PendingText("message", org, stored.message.id, "", stored.message.search)
            for (org, _), conversation in state.conversations.items()
            for stored in conversation.messages
            if stored.vector is None and stored.message.search
        ]
        return waiting[:limit]

    async def settle(self, texts: Sequence[PendingText], vectors: Vectors) -> None:
        """Store the vectors of texts, which then wait no more."""
        settled = {(text.organization_id, text.id): vector for text, vector in zip(texts, vectors.values, strict=True)}
        for key, vector in settled.items():
            found = self._state.passages.get(key)
            if found is not None:
                size = self._state.archives[key[0], found.archive_id].dimensions
                if size is not None and size != len(vector):
                    raise dimension_changed(vectors.model, len(vector), found.archive_id, size)
                self._state.passages[key] = replace(found, embedding=tuple(vector), embedder=vectors.model)
                archive = self._state.archives[key[0], found.archive_id]
                named = replace(archive, embedder=vectors.model, dimensions=len(vector))
                self._state.archives[key[0], found.archive_id] = named
        for text in texts:
            self._state.failures.pop((text.organization_id, text.archive_id), None)
        for (org, _), conversation in self._state.conversations.items():
            for stored in conversation.messages:
                stored.vector = settled.get((org, stored.message.id), stored.vector)

    async def fail(self, texts: Sequence[PendingText], failure: Failure) -> None:
        """Note why texts of one organization are not embedded yet."""
        for text in texts:
            if text.archive_id and failure.archive_id in ("", text.archive_id):
                self._state.failures[text.organization_id, text.archive_id] = failure


def _passage(actor: Actor, archive: Archive, draft: Draft, now: datetime, vector: Any) -> Passage:
    return Passage(
        id=draft.id,
        archive_id=archive.id,
        text=draft.text,
        tags=draft.tags,
        metadata=draft.metadata,
        created_by_id=actor.user_id,
        last_updated_by_id=actor.user_id,
        created_at=draft.created_at,
        updated_at=now,
        embedding=None if vector is None else tuple(vector),
        embedder=archive.embedder,
    )


def _hit(stored: Stored, found: Found) -> MessageHit:
    return MessageHit(
        score=found.score,
        word_rank=found.word_rank,
        meaning_rank=found.meaning_rank,
        id=stored.message.id,
        agent_id=stored.agent_id,
        conversation_id=stored.conversation_id,
        created_at=stored.message.created_at,
        body=stored.message.body,
    )


def _newest(count: int) -> list[Found]:
    return [Found(place, 0.0) for place in reversed(range(count))]


def _tagged(tags: Sequence[str], wanted: Sequence[str], *, every: bool) -> bool:
    return not wanted or (set(wanted) <= set(tags) if every else bool(set(wanted) & set(tags)))


def _within(stored: Stored, scope: Scope) -> bool:
    pairs = (
        (scope.conversation_id, stored.conversation_id),
        (scope.agent_id, stored.agent_id),
        (scope.run_id, stored.message.run_id),
        (scope.step_id, stored.message.step_id),
    )
    return all(wanted in ("", found) for wanted, found in pairs)


def _wanted(stored: Stored, wanted: MessageFilter) -> bool:
    message = stored.message
    return (
        (not wanted.types or bool(message.types & wanted.types))
        and wanted.group_id in ("", message.group_id)
        and (wanted.include_errors or not message.flags & FLAG_ERROR)
    )


def _asked(stored: Stored, query: MessageQuery) -> bool:
    message = stored.message
    return (
        query.agent_id in ("", stored.agent_id)
        and query.conversation_id in ("", stored.conversation_id)
        and (not query.roles or message.role in query.roles)
        and (not query.types or bool(message.types & query.types))
        and (query.start is None or message.created_at >= query.start)
        and (query.end is None or message.created_at <= query.end)
    )


def _page(state: FakeState, items: Sequence[Any], page: Page) -> list[Any]:
    places = {gone: place[0] for gone, place in state.places.items()}
    places |= {item.id: item.created_at for item in items}
    return _sliced(items, page, lambda item: (item.created_at, item.id), places)


def _sliced(items: Sequence[Any], page: Page, key: Any, places: Mapping[str, Any]) -> list[Any]:
    """Return a page of items; `places` says where each cursor stands or stood."""
    kept = sorted(items, key=key, reverse=not page.ascending)
    for cursor, later in ((page.after, page.ascending), (page.before, not page.ascending)):
        if not cursor:
            continue
        if cursor not in places and kept and isinstance(key(kept[0])[0], int):
            raise CursorNotFound(f"no item {cursor} in this list", cursor=cursor)
        place = (places[cursor] if cursor in places else time_of(cursor), cursor)
        kept = [item for item in kept if key(item) != place and (key(item) > place) is later]
    return kept[-page.limit :] if page.backwards else kept[: page.limit]
