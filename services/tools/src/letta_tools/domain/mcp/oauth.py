"""Authorization of MCP servers: who is asked, what they answer, and what is kept of it, encrypted."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from letta.tools.v1.mcp_server_service_pb2 import CompleteMCPOAuthRequest
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument, MCPConnectionFailed
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id

GRANTS, ANSWERS = "tools.mcp_oauth_grants.grant_sealed", "tools.mcp_oauth_sessions.answer"
PENDING, AUTHORIZED, REFUSED = "pending", "authorized", "error"
# The browser may come back to another replica, so the table is asked.
_POLL_SECONDS = 0.25


class AuthorizationNeeded(MCPConnectionFailed):
    """The server wants to be authorized by a person first."""


@dataclass(frozen=True, slots=True)
class OAuthSession:
    """One attempt. `answer` is sealed JSON text, there once the status is no longer `pending`."""

    id: str
    mcp_server_id: str
    state_hash: bytes
    status: str
    answer: bytes | None
    created_by_id: str
    created_at: datetime
    expires_at: datetime


class OAuthStore(Protocol):
    """What the rules need from storage. Every call sees only the actor's organization."""

    async def begin(self, actor: Actor, session: OAuthSession) -> None:
        """Add an attempt; those of the server that came before are gone."""
        ...

    async def find(self, actor: Actor, session_id: str) -> OAuthSession | None:
        """Return an attempt."""
        ...

    async def settle(self, actor: Actor, session_id: str, status: str, answer: bytes, now: datetime) -> bool:
        """Answer a pending attempt that has not expired; say whether there was one."""
        ...

    async def find_grant(self, actor: Actor, server_id: str) -> bytes | None:
        """Return the sealed grant of a server."""
        ...

    async def put_grant(self, actor: Actor, server_id: str, grant: bytes, now: datetime) -> None:
        """Write the sealed grant of a server."""
        ...


@dataclass(frozen=True, slots=True)
class Ask:
    """How a person is asked: `tell` gets the address to open, and the id of the attempt."""

    redirect_url: str
    wait_seconds: float
    tell: Callable[[str, str], Awaitable[None]]


class OAuthGrants:
    """Attempts and grants of MCP servers."""

    def __init__(self, store: OAuthStore, sealer: Sealer, clock: Clock) -> None:
        self._store = store
        self._sealer = sealer
        self._clock = clock

    async def load(self, organization_id: str, server_id: str) -> str:
        """Return what was granted; nothing when nothing was."""
        actor = Actor(organization_id, "")
        sealed = await self._store.find_grant(actor, server_id) if server_id else None
        return self._sealer.open(SealedAt(GRANTS, organization_id, server_id), sealed).decode() if sealed else ""

    async def save(self, organization_id: str, server_id: str, grant: str) -> None:
        """Keep what was granted, encrypted with the organization's key."""
        sealed = self._sealer.seal(SealedAt(GRANTS, organization_id, server_id), grant.encode())
        await self._store.put_grant(Actor(organization_id, ""), server_id, sealed, self._clock.now())

    async def begin(self, actor: Actor, server_id: str, state: str, wait_seconds: float) -> tuple[str, str]:
        """Note an attempt; return its id and the state that stands for it outside."""
        now = self._clock.now()
        session_id = new_id("mcp-oauth")
        outside = base64.urlsafe_b64encode(f"{session_id}|{state}".encode()).decode().rstrip("=")
        expires = now + timedelta(seconds=wait_seconds)
        # The state is kept as a hash: whoever reads the table can answer no attempt.
        session = OAuthSession(session_id, server_id, _hash(outside), PENDING, None, actor.user_id, now, expires)
        await self._store.begin(actor, session)
        return session_id, outside

    async def complete(self, actor: Actor, answer: CompleteMCPOAuthRequest) -> str:
        """Hand an answer to the attempt that waits for it; return why it is a refusal, or nothing.

        Raises:
            InvalidArgument: no attempt waits for it, or one that was answered otherwise.
        """
        session_id, _ = _inside(answer.state)
        session = await self._store.find(actor, session_id) if session_id else None
        if session is None or not hmac.compare_digest(session.state_hash, _hash(answer.state)):
            raise InvalidArgument("no authorization of this organization waits for this state", field="state")
        refusal = _refusal(answer)
        issuer = answer.iss if answer.HasField("iss") else None
        text = json.dumps({"code": answer.code, "issuer": issuer, "refusal": refusal[:500]})
        sealed = self._sealer.seal(_place(actor, session_id), text.encode())
        if await self._store.settle(actor, session_id, REFUSED if refusal else AUTHORIZED, sealed, self._clock.now()):
            return refusal
        # Browsers load an address twice; the same answer again is no fault.
        known = await self._store.find(actor, session_id)
        same = known is not None and known.answer and self._opened(actor, known.id, known.answer) == text
        if not same:
            raise InvalidArgument("the authorization was answered already, or has expired", field="state")
        return refusal

    async def wait(self, actor: Actor, session_id: str, outside: str) -> CompleteMCPOAuthRequest:
        """Return the answer of an attempt. Raises AuthorizationNeeded when it is refused or does not come in time."""
        while True:
            session = await self._store.find(actor, session_id)
            if session is None or (session.status == PENDING and session.expires_at <= self._clock.now()):
                raise AuthorizationNeeded("nobody has authorized the MCP server in time")
            if session.status != PENDING and session.answer is not None:
                values = json.loads(self._opened(actor, session_id, session.answer))
                if session.status == REFUSED:
                    raise AuthorizationNeeded(f"the authorization was refused: {values['refusal']}")
                state = _inside(outside)[1]
                return CompleteMCPOAuthRequest(code=values["code"], state=state, iss=values["issuer"])
            await asyncio.sleep(_POLL_SECONDS)

    def _opened(self, actor: Actor, session_id: str, answer: bytes) -> str:
        return self._sealer.open(_place(actor, session_id), answer).decode()


def _refusal(answer: CompleteMCPOAuthRequest) -> str:
    """Return why nobody authorized anything; nothing when somebody did."""
    said = ": ".join(part for part in (answer.error, answer.error_description) if part)
    return said or ("" if answer.code else "no code came back")


def _place(actor: Actor, session_id: str) -> SealedAt:
    return SealedAt(ANSWERS, actor.organization_id, session_id)


def _hash(state: str) -> bytes:
    return hashlib.sha256(state.encode()).digest()


def _inside(outside: str) -> tuple[str, str]:
    """Return the id of the attempt and the state of the flow; nothing when the text is none of ours."""
    try:
        text = base64.urlsafe_b64decode(outside + "=" * (-len(outside) % 4)).decode()
    except ValueError:
        return "", ""
    session_id, _, state = text.partition("|")
    return session_id, state
