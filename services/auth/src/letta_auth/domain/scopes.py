"""What an actor may do."""

from __future__ import annotations

from collections.abc import Iterable

from letta_common.actor import Actor

READ, WRITE, KEYS, ADMIN = "read", "write", "keys", "admin"
ALL = frozenset({READ, WRITE, KEYS, ADMIN})
USUAL = frozenset({READ, WRITE})


def is_admin(actor: Actor) -> bool:
    """Say whether the actor may act in every organization."""
    return ADMIN in actor.scopes


def lacking(actor: Actor, scopes: Iterable[str]) -> list[str]:
    """Return the scopes of a key that the actor has not; an administrator lacks none."""
    return [] if is_admin(actor) else sorted({*scopes} - actor.scopes)
