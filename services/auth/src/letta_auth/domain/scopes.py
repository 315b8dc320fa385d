"""What an actor may do."""

from __future__ import annotations

from letta_common.actor import Actor
from letta_common.errors import PermissionDenied

READ, WRITE, KEYS, ADMIN = "read", "write", "keys", "admin"
ALL = frozenset({READ, WRITE, KEYS, ADMIN})
USUAL = frozenset({READ, WRITE})


def require(actor: Actor, *scopes: str) -> None:
    """Let pass who has one of the scopes. Raises PermissionDenied."""
    if not actor.scopes & set(scopes):
        names = " or ".join(f"`{scope}`" for scope in scopes)
        raise PermissionDenied(f"the credential lacks the scope {names}", scope=scopes[0])


def is_admin(actor: Actor) -> bool:
    """Say whether the actor may act in every organization."""
    return ADMIN in actor.scopes
