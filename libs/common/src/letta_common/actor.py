"""Who a request acts for: the first argument of every domain and store method."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from letta_common.errors import PermissionDenied, Unauthenticated


@dataclass(frozen=True, slots=True)
class Actor:
    """A user of an organization. Every read and write is confined to the organization."""

    organization_id: str
    user_id: str
    scopes: frozenset[str] = frozenset()

    def require(self, *scopes: str) -> None:
        """Let pass who has one of the scopes, or `admin`. Raises PermissionDenied."""
        if not self.scopes & {*scopes, "admin"}:
            names = " or ".join(f"`{scope}`" for scope in scopes)
            raise PermissionDenied(f"the credential lacks the scope {names}", scope=scopes[0])


@dataclass(frozen=True, slots=True)
class Request:
    """What is known of the request being served."""

    actor: Actor | None = None
    request_id: str = ""
    signed_actor: bytes = b""  # the serialized SignedActorContext, handed on to other services
    deadline: float | None = None  # on the clock of time.monotonic()
    caller: str = ""  # name of the calling service, empty for a caller from outside
    compat: bool = False  # the caller reads the words of older clients


_request: ContextVar[Request] = ContextVar("letta_request", default=Request())  # noqa: B039  (frozen)


def current_request() -> Request:
    """Return what is known of the request being served; an empty Request outside of one."""
    return _request.get()


def current_actor() -> Actor:
    """Return the actor of the request being served. Raises Unauthenticated outside of one."""
    actor = _request.get().actor
    if actor is None:
        raise Unauthenticated("the call carries no actor")
    return actor


def current_request_id() -> str:
    """Return the id of the request being served, or an empty string."""
    return _request.get().request_id


def bind_request(request: Request) -> None:
    """Make this the request of the current task. Called by the boundary interceptor alone."""
    _request.set(request)


@contextmanager
def acting_as(signed_actor: bytes, *, request_id: str = "") -> Iterator[None]:
    """Let calls made inside carry this signed context and no inherited deadline: for work outliving its request."""
    before = _request.get()
    token = _request.set(replace(Request(), signed_actor=signed_actor, request_id=request_id or before.request_id))
    try:
        yield
    finally:
        _request.reset(token)
