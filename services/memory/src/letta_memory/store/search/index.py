"""What search reads, in PostgreSQL. These are system statements: they span organizations and carry each row's own."""

from __future__ import annotations

from letta_memory.domain.search.index import Conversation
from letta_memory.domain.search.scopes import SearchScope
from letta_postgres.db import Database
from letta_postgres.statements import call

_LATE = """
select c.organization_id, c.id from memory.conversations c
left join memory.search_positions x on x.organization_id = c.organization_id and x.conversation_id = c.id
where c.next_seq - 1 > coalesce(x.seq, 0) and (c.organization_id, c.id) > (%b, %b)
order by c.organization_id, c.id limit %b::integer
"""
_INDEX = f"select {call('memory.index_messages', 'org', 'conversation', 'embed', 'most')}"
_DUE = """
select s.organization_id, s.scope from memory.search_scopes s
where (s.due or s.untidy or s.gone or s.rebuild_below is not null) and s.scope > %b::integer
order by s.scope limit %b::integer
"""
_UNSPELLED = """
select s.organization_id, s.scope from memory.search_scopes s
where s.unspelled and s.scope > %b::integer order by s.scope limit %b::integer
"""
_SPELL = f"select {call('memory.spell_scope', 'org', 'scope', 'whole')}"
_TIDY = f"select {call('memory.tidy_scope', 'org', 'scope', 'most')}"
_REBUILD = f"select {call('memory.rebuild_scope', 'org', 'scope', 'most')}"
_COUNT = f"select {call('memory.count_scope', 'org', 'scope')}"
_CLOSE = """
update memory.search_scopes s set due = false,
  due_at = greatest(32, s.text_count + least(s.text_count / 4, case when s.cells > 0 then 1000 else 2000 end))
where s.organization_id = %b and s.scope = %b::integer
"""


class SqlSearchIndexStore:
    """What search reads, in PostgreSQL."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def list_late(self, after: Conversation | None, limit: int) -> list[Conversation]:
        """Return conversations with messages that are not indexed, in an order of their own."""
        place = (after.organization_id, after.id) if after else ("", "")
        return [Conversation(*row) for row in await self._db.hot(_LATE, (*place, limit))]

    async def index_messages(self, conversation: Conversation, limit: int, *, embed: bool) -> int:
        """Index the next messages of a conversation; return how many it went past."""
        values = {"org": conversation.organization_id, "conversation": conversation.id, "embed": embed, "most": limit}
        [(done,)] = await self._db.hot(_INDEX, values)
        return int(done)

    async def list_due(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes that changed so much that they are to be counted or tidied, by number."""
        return await self._scopes(_DUE, after, limit)

    async def tidy(self, scope: SearchScope, limit: int) -> int:
        """Index texts of an older release and remove what is left of removed ones; return how many it saw to."""
        values = {"org": scope.organization_id, "scope": scope.number, "most": limit}
        [(done,)] = await self._db.hot(_TIDY, values)
        return int(done)

    async def rebuild(self, scope: SearchScope, limit: int) -> int:
        """Index the next texts of a scope anew, where that was asked for; return how many."""
        values = {"org": scope.organization_id, "scope": scope.number, "most": limit}
        [(done,)] = await self._db.hot(_REBUILD, values)
        return int(done)

    async def count(self, scope: SearchScope) -> None:
        """Count the texts of a scope anew."""
        await self._db.hot(_COUNT, {"org": scope.organization_id, "scope": scope.number})

    async def list_unspelled(self, after: SearchScope | None, limit: int) -> list[SearchScope]:
        """Return scopes that got many words since their spellings were written, by number."""
        return await self._scopes(_UNSPELLED, after, limit)

    async def spell(self, scope: SearchScope, *, whole: bool) -> None:
        """Write down how the words of a scope are spelled: of the texts that came since, or of all anew."""
        await self._db.hot(_SPELL, {"org": scope.organization_id, "scope": scope.number, "whole": whole})

    async def close(self, scope: SearchScope) -> None:
        """Note that a scope was seen to, until it has grown again."""
        await self._db.hot(_CLOSE, (scope.organization_id, scope.number))

    async def _scopes(self, statement: str, after: SearchScope | None, limit: int) -> list[SearchScope]:
        place = after.number if after else 0
        return [SearchScope(*row) for row in await self._db.hot(statement, (place, limit))]
