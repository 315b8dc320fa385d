"""The right to act for the principal of a run, renewed while the run lasts."""

from __future__ import annotations

from datetime import timedelta

from google.protobuf.message import DecodeError

from letta.common.v1 import actor_pb2
from letta_agent.domain.peers.credentials import CredentialPeer
from letta_common.actor import Actor, acting_as
from letta_common.clock import Clock

MARGIN = timedelta(seconds=20)
"""A context with less time left is renewed before it is used."""


class Passport:
    """A signed context of one run."""

    def __init__(
        self, credentials: CredentialPeer, clock: Clock, actor: Actor, run_id: str, *, signed: bytes = b""
    ) -> None:
        self._credentials = credentials
        self._clock = clock
        self._actor = actor
        self._run_id = run_id
        self._signed = signed
        self._until = _expiry(signed)

    async def signed(self) -> bytes:
        """Return a context that is valid for a while. Raises Unauthenticated when the principal may act no more."""
        if not self._signed or self._clock.now().timestamp() > self._until - MARGIN.total_seconds():
            # The old context may have expired, and auth would refuse a call that carries it.
            with acting_as(b""):
                self._signed = await self._credentials.issue(self._actor, self._run_id)
            self._until = _expiry(self._signed)
        return self._signed


def _expiry(signed: bytes) -> float:
    """Return when a context expires, in seconds since 1970; one that cannot be read never does."""
    try:
        envelope = actor_pb2.SignedActorContext.FromString(signed)
        context = actor_pb2.ActorContext.FromString(envelope.payload)
    except DecodeError:
        return float("inf")
    return context.expires_at.seconds if context.HasField("expires_at") else float("inf")
