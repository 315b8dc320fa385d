"""Suggestions: changes of memory that are proposed, and done when somebody accepts them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import IntEnum
from typing import Any, Protocol

from letta.memory.v1.memory_review_service_pb2 import ListMemorySuggestionsRequest
from letta.memory.v1.memory_suggestion_pb2 import AgentReviewPolicy, ArchiveReviewPolicy, MemorySuggestion
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import (
    BlockLimitExceeded,
    MemorySuggestionDecided,
    MemorySuggestionNotFound,
    MemorySuggestionOutdated,
)
from letta_common.values.paging import Page

DEFAULT_MOST_OPEN = 100


class SuggestionStatus(IntEnum):
    """What came of a decision, as memory.decide_suggestion says it."""

    DONE = 0
    UNKNOWN = 1
    DECIDED = 2
    OUTDATED = 3
    TOO_LONG = 4


class SuggestionStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def list_suggestions(
        self, actor: Actor, wanted: ListMemorySuggestionsRequest, page: Page
    ) -> list[MemorySuggestion]:
        """Return a page of suggestions. Raises CursorNotFound."""
        ...

    async def get(self, actor: Actor, suggestion_id: str) -> MemorySuggestion:
        """Return one suggestion. Raises MemorySuggestionNotFound."""
        ...

    async def decide(self, actor: Actor, suggestion_id: str, *, accept: bool, now: datetime) -> SuggestionStatus:
        """Do what a suggestion proposes, all of it or nothing, or dismiss it; say what came of it."""
        ...

    async def get_archive_policy(self, actor: Actor, archive_id: str) -> ArchiveReviewPolicy:
        """Return what is looked for in an archive. Raises ArchiveNotFound."""
        ...

    async def update_archive_policy(
        self, actor: Actor, archive_id: str, changes: Mapping[str, Any]
    ) -> ArchiveReviewPolicy:
        """Change what is looked for in an archive. Raises ArchiveNotFound."""
        ...

    async def get_agent_policy(self, actor: Actor, agent_id: str) -> AgentReviewPolicy:
        """Return what is looked for in the messages of an agent. Raises AgentNotFound."""
        ...

    async def update_agent_policy(self, actor: Actor, agent_id: str, changes: Mapping[str, Any]) -> AgentReviewPolicy:
        """Change what is looked for in the messages of an agent. Raises AgentNotFound."""
        ...


class Suggestions:
    """Operations on suggestions."""

    def __init__(self, store: SuggestionStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    async def accept(self, actor: Actor, suggestion_id: str) -> MemorySuggestion:
        """Do what a suggestion proposes.

        Raises:
            MemorySuggestionNotFound: the organization has no such suggestion.
            MemorySuggestionOutdated: what it is about has changed since or is gone.
            MemorySuggestionDecided: it was dismissed.
            BlockLimitExceeded: the block would be longer than its limit.
        """
        return await self._decide(actor, suggestion_id, accept=True)

    async def dismiss(self, actor: Actor, suggestion_id: str) -> MemorySuggestion:
        """Leave memory as it is, and propose the same no more. Raises as `accept` does, but for the limit."""
        return await self._decide(actor, suggestion_id, accept=False)

    async def _decide(self, actor: Actor, suggestion_id: str, *, accept: bool) -> MemorySuggestion:
        decision = await self._store.decide(actor, suggestion_id, accept=accept, now=self._clock.now())
        if decision is SuggestionStatus.UNKNOWN:
            raise unknown_suggestion(suggestion_id)
        if decision is SuggestionStatus.OUTDATED:
            text = f"what suggestion {suggestion_id} is about has changed since it was made, or is gone"
            raise MemorySuggestionOutdated(text, suggestion_id=suggestion_id)
        if decision is SuggestionStatus.DECIDED:
            text = f"suggestion {suggestion_id} was {'dismissed' if accept else 'accepted'} before"
            raise MemorySuggestionDecided(text, suggestion_id=suggestion_id)
        if decision is SuggestionStatus.TOO_LONG:
            text = f"with suggestion {suggestion_id} the block would be longer than its limit: raise the limit"
            raise BlockLimitExceeded(text, suggestion_id=suggestion_id)
        return await self._store.get(actor, suggestion_id)

    async def update_archive_policy(
        self, actor: Actor, archive_id: str, changes: Mapping[str, Any]
    ) -> ArchiveReviewPolicy:
        """Change what is looked for in an archive. Raises ArchiveNotFound."""
        return await self._store.update_archive_policy(actor, archive_id, _complete(changes))

    async def update_agent_policy(self, actor: Actor, agent_id: str, changes: Mapping[str, Any]) -> AgentReviewPolicy:
        """Change what is looked for in the messages of an agent. Raises AgentNotFound."""
        return await self._store.update_agent_policy(actor, agent_id, _complete(changes))


def unknown_suggestion(suggestion_id: str) -> MemorySuggestionNotFound:
    """Return the error for a suggestion that the organization does not have."""
    return MemorySuggestionNotFound(f"there is no suggestion {suggestion_id}", suggestion_id=suggestion_id)


def _complete(changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return changes where 0 open suggestions means the default."""
    found = dict(changes)
    if "most_open" in found:
        found["most_open"] = found["most_open"] or DEFAULT_MOST_OPEN
    return found
