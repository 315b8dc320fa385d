"""Who a request acts for: the first argument of every domain and store method."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from letta_common.errors import Unauthenticated


@dataclass(frozen=True, slots=True)
class Actor:
    """A user of an organization. Every read and write is confined to the organization."""

    organization_id: str
    user_id: str
    scopes: frozenset[str] = frozenset()


_actor: ContextVar[Actor | None] = ContextVar("letta_actor", default=None)
_request_id: ContextVar[str] = ContextVar("letta_request_id", default="")


def current_actor() -> Actor:
    """Return the actor of the request being served. Raises Unauthenticated outside of one."""
    actor = _actor.get()
    if actor is None:
        raise Unauthenticated("the call carries no actor")
    return actor


def current_request_id() -> str:
    """Return the id of the request being served, or an empty string."""
    return _request_id.get()


def bind_request(actor: Actor | None, request_id: str) -> None:
    """Make the actor and the id those of the current task. Called by the boundary interceptor alone."""
    _actor.set(actor)
    _request_id.set(request_id)
