"""Authorizations of MCP servers in memory, for tests."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from letta_common.actor import Actor
from letta_tools.domain.mcp.oauth import PENDING, OAuthSession


class FakeOAuthStore:
    """Attempts and grants by organization and id."""

    def __init__(self) -> None:
        self._sessions: dict[tuple[str, str], OAuthSession] = {}
        self._grants: dict[tuple[str, str], bytes] = {}

    async def begin(self, actor: Actor, session: OAuthSession) -> None:
        """Add an attempt; those of the server that came before are gone."""
        for key, known in list(self._sessions.items()):
            if key[0] == actor.organization_id and known.mcp_server_id == session.mcp_server_id:
                del self._sessions[key]
        self._sessions[actor.organization_id, session.id] = session

    async def find(self, actor: Actor, session_id: str) -> OAuthSession | None:
        """Return an attempt."""
        return self._sessions.get((actor.organization_id, session_id))

    async def settle(self, actor: Actor, session_id: str, status: str, answer: bytes, now: datetime) -> bool:
        """Answer a pending attempt that has not expired; say whether there was one."""
        session = await self.find(actor, session_id)
        if session is None or session.status != PENDING or session.expires_at <= now:
            return False
        self._sessions[actor.organization_id, session_id] = replace(session, status=status, answer=answer)
        return True

    async def find_grant(self, actor: Actor, server_id: str) -> bytes | None:
        """Return the sealed grant of a server."""
        return self._grants.get((actor.organization_id, server_id))

    async def put_grant(self, actor: Actor, server_id: str, grant: bytes, now: datetime) -> None:
        """Write the sealed grant of a server."""
        self._grants[actor.organization_id, server_id] = grant
