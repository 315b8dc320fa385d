"""What the rules need of the auth service."""

from __future__ import annotations

from typing import Protocol

from letta_common.actor import Actor


class CredentialPeer(Protocol):
    """The auth service."""

    async def issue(self, actor: Actor, run_id: str) -> bytes:
        """Return a signed context for work on a run. Raises Unauthenticated when the principal may act no more."""
        ...
