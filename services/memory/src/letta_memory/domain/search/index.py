"""Keeping what search reads: messages are indexed behind the agent loop, and what is counted is counted anew."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import structlog

from letta_common.errors import AppError
from letta_common.process.periodic import Next
from letta_memory.domain.search.cells import CellMaker
from letta_memory.domain.search.scopes import SearchScope

T = TypeVar("T")

_log = structlog.get_logger("letta.memory.search")
_MESSAGES_AT_ONCE = 200  # few, so that nobody who deletes messages waits long for one transaction
_LISTED_AT_ONCE = 100
REBUILT_AT_ONCE = 100
"""Texts that are indexed anew in one transaction: whoever writes to their scope waits for it, a tenth of a second."""
_SWEEP_SECONDS = 300.0  # conversations that a replica noted before it died are found by this look


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation whose last messages are not indexed yet, whoever it belongs to."""

    organization_id: str
    id: str


class SearchIndexStore(Protocol):
    """What the background work needs from storage. These calls span organizations."""

    async def list_late(self, after: Conversation | None, limit: int) -> list[Conversation]:
        """Return conversations with messages that are not indexed, in an order of their own."""
        ...

    async def index_messages(self, conversation: Conversation, limit: int, *, embed: bool) -> int:
        """Index the next messages of a conversation; return how many it went past."""
        ...

    async def list_due(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes that changed so much that they are to be counted or tidied, by number."""
        ...

    async def tidy(self, scope: SearchScope, limit: int) -> int:
        """Index texts of an older release and remove what is left of removed ones; return how many it saw to."""
        ...

    async def rebuild(self, scope: SearchScope, limit: int) -> int:
        """Index the next texts of a scope anew, where that was asked for; return how many."""
        ...

    async def count(self, scope: SearchScope) -> None:
        """Count the texts of a scope anew: in how many each word is, and the mean of their vectors."""
        ...

    async def list_unspelled(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes that got many words since their spellings were written, by number."""
        ...

    async def spell(self, scope: SearchScope, *, whole: bool) -> None:
        """Write down how the words of a scope are spelled: of the texts that came since, or of all anew."""
        ...

    async def close(self, scope: SearchScope) -> None:
        """Note that a scope was seen to, until it has grown again."""
        ...


class LateConversations:
    """Conversations that got messages since they were indexed, as this process knows them."""

    def __init__(self) -> None:
        self._noted: dict[Conversation, None] = {}

    def note(self, organization_id: str, conversation_id: str) -> None:
        """Remember that a conversation got messages."""
        self._noted[Conversation(organization_id, conversation_id)] = None

    def take(self) -> list[Conversation]:
        """Return what was noted, once."""
        noted, self._noted = self._noted, {}
        return list(noted)


class _Round(Generic[T]):
    """Goes through all that a list names, a page at a time, so that no page of what fails hides what comes after it."""

    def __init__(
        self, page: Callable[[T | None, int], Awaitable[list[T]]], work: Callable[[T], Awaitable[bool]]
    ) -> None:
        self._page, self._work = page, work
        self._after: T | None = None
        self._more = False

    async def go_on(self) -> bool:
        """See to the next page; return whether more is left, in the list or of something that was on it."""
        found = await self._page(self._after, _LISTED_AT_ONCE)
        for one in found:
            self._more = await _tried(self._work, one) or self._more
        if len(found) == _LISTED_AT_ONCE:
            self._after = found[-1]
            return True
        more, self._more, self._after = self._more, False, None
        return more


async def _tried(work: Callable[[T], Awaitable[bool]], what: T) -> bool:
    """Do a piece of the work; one that fails, for whatever reason, holds up no other."""
    try:
        return await work(what)
    except AppError as error:
        _log.warning("search is not kept yet", what=what, message=error.message)
    except Exception:
        _log.exception("keeping search failed", what=what)
    return False


class SearchKeeper:
    """Does in the background what nobody who writes or searches should wait for."""

    def __init__(
        self, store: SearchIndexStore, late: LateConversations, cells: CellMaker, *, embed_messages: bool
    ) -> None:
        self._store = store
        self._late = late
        self._cells = cells
        self._embed = embed_messages
        self._next_sweep = 0.0
        self._sweep = _Round(store.list_late, self._index)
        self._scopes = (_Round(store.list_due, self._see_to), _Round(store.list_unspelled, self._spell))

    async def turn(self) -> Next:
        """Index what is late and count what is due; when much was left, there may be more."""
        more = False
        for conversation in self._late.take():
            more = await _tried(self._index, conversation) or more
        if time.monotonic() >= self._next_sweep:
            if await self._sweep.go_on():
                more = True
            else:
                self._next_sweep = time.monotonic() + _SWEEP_SECONDS
        for scopes in self._scopes:
            more = await scopes.go_on() or more
        return Next.AT_ONCE if more else Next.AFTER_A_PAUSE

    async def settle(self) -> None:
        """Work until nothing is left to do."""
        while await self.turn() is Next.AT_ONCE:
            pass

    async def _index(self, conversation: Conversation) -> bool:
        try:
            done = await self._store.index_messages(conversation, _MESSAGES_AT_ONCE, embed=self._embed)
        except AppError:
            # What passes is tried again soon; what is a fault, at the next sweep.
            self._late.note(conversation.organization_id, conversation.id)
            raise
        if done == _MESSAGES_AT_ONCE:
            self._late.note(conversation.organization_id, conversation.id)
        return done == _MESSAGES_AT_ONCE

    async def _see_to(self, scope: SearchScope) -> bool:
        if await self._store.tidy(scope, _MESSAGES_AT_ONCE) or await self._store.rebuild(scope, REBUILT_AT_ONCE):
            return True
        await self.count(scope)
        return False

    async def count(self, scope: SearchScope) -> None:
        """Count a scope anew, write how its words are spelled, and place its vectors."""
        await self._store.count(scope)
        await self._store.spell(scope, whole=True)
        await self._cells.see_to(scope)
        await self._store.close(scope)

    async def _spell(self, scope: SearchScope) -> bool:
        await self._store.spell(scope, whole=False)
        return False
