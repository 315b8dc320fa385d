"""HTTP for vendors' SDKs: connections of organizations' accounts are guarded, requests are read along for traces."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import httpx2

from letta.llm.v1.generation_service_pb2 import Generation
from letta_common.egress import AddressGuard, Bounded, ForbiddenAddress, guarded_client, trusted_authorities
from letta_common.errors import AppError
from letta_llm_gateway.domain.answers import Call, Event
from letta_llm_gateway.domain.catalogue.providers import Account, ListedModel, Provider, Vector
from letta_llm_gateway.domain.generation.tapes import current_tape

CONNECT_SECONDS = 5.0
# The client's own limit of 100 would queue streams that the gateway's slots let through.
_CONNECTIONS = 1000
_IDLE = 100
_MOST_BYTES = 1 << 30
_ENVIRONMENT = ("OPENAI_CUSTOM_HEADERS", "ANTHROPIC_CUSTOM_HEADERS")
_IDENTITIES = ("OpenAI-Organization", "OpenAI-Project")
_KEY_HEADERS = ("authorization", "api-key", "x-api-key", "x-goog-api-key")
_REFUSAL_BYTES = 1 << 20


class Clients:
    """Makes the HTTP client of an account.

    An account of an organization names its own addresses: each name is resolved once a connection, every address is
    checked, and the checked one is connected to. The deployment's own accounts are free. Redirects are not followed,
    since headers with keys would go along.
    """

    def __init__(self, guard: AddressGuard) -> None:
        self._guard = guard

    def of(self, account: Account) -> httpx2.AsyncClient:
        """Return a new client; its owner closes it."""
        if account.organization_id:
            client = guarded_client(
                self._guard, timeout=CONNECT_SECONDS, most_bytes=_MOST_BYTES, connections=_CONNECTIONS
            )
        else:
            limits = httpx2.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_IDLE)
            client = httpx2.AsyncClient(verify=trusted_authorities(), limits=limits, follow_redirects=False)
        client.timeout = httpx2.Timeout(None, connect=CONNECT_SECONDS)  # the gateway measures silence for itself
        client.headers["accept-encoding"] = "identity"
        client.event_hooks = {"request": [_record], "response": [_bound]}
        return client


def own_headers(account: Account, keys: Mapping[str, str], absent: Any) -> dict[str, Any]:
    """Return default headers that take back what SDKs add from the environment, which is the deployment's alone.

    `keys` are the headers, in lower case, that carry the account's own key; `absent` is how the SDK leaves one out.
    """
    if not account.organization_id:
        return {}
    lines = "\n".join(os.environ.get(name, "") for name in _ENVIRONMENT).splitlines()
    names = [*_IDENTITIES, *(line.partition(":")[0].strip() for line in lines if ":" in line)]
    return {name: keys.get(name.lower(), absent) for name in names if name}


@dataclass(slots=True)
class Exchange:
    """What one call may read, and what it sent. Most calls end well, and nobody asks where they went."""

    most_bytes: int
    request: httpx2.Request | None = None

    @property
    def address(self) -> str:
        """Where it was sent, without what may hold a key."""
        if self.request is None:
            return ""
        return str(self.request.url.copy_with(query=None, fragment=None, userinfo=b""))

    @property
    def keys(self) -> tuple[str, ...]:
        """What opened the vendor's door, as it was sent."""
        headers = {} if self.request is None else self.request.headers
        return tuple(headers[name].removeprefix("Bearer ") for name in _KEY_HEADERS if headers.get(name))


_exchange: ContextVar[Exchange | None] = ContextVar("letta_llm_exchange", default=None)


def begin_exchange(most_bytes: int) -> Exchange:
    """Bound what this task reads from now on, and keep where it asks."""
    exchange = Exchange(most_bytes)
    _exchange.set(exchange)
    return exchange


async def _bound(response: httpx2.Response) -> None:
    """Let an answer end with TooMuchData above the limit; a packed one could be any size."""
    if response.headers.get("content-encoding", "identity").lower() != "identity":
        raise httpx2.RemoteProtocolError("the answer is compressed, which was not asked for")
    exchange = _exchange.get()
    if exchange is not None and isinstance(response.stream, httpx2.AsyncByteStream):
        most = exchange.most_bytes if response.status_code < 400 else min(exchange.most_bytes, _REFUSAL_BYTES)
        response.stream = Bounded(response.stream, most)


async def _record(request: httpx2.Request) -> None:
    if (exchange := _exchange.get()) is not None:
        exchange.request = request
    tape = current_tape()
    if tape is None:
        return
    tape.sent = b"".join(request.stream) if isinstance(request.stream, httpx2.ByteStream) else b""


class GuardedProvider:
    """A provider of an organization: says that an address is forbidden where its SDK would say it is away."""

    def __init__(self, inner: Provider) -> None:
        self._inner = inner

    async def generate(self, call: Call) -> Generation:
        """Answer once."""
        with _forbidden():
            return await self._inner.generate(call)

    async def stream(self, call: Call) -> AsyncGenerator[Event, None]:
        """Answer as the model speaks."""
        with _forbidden():
            async with aclosing(self._inner.stream(call)) as events:
                async for event in events:
                    yield event

    async def embed(self, model: str, texts: Sequence[str]) -> list[Vector]:
        """Turn texts into vectors."""
        with _forbidden():
            return await self._inner.embed(model, texts)

    async def count(self, call: Call) -> int | None:
        """Return the tokens of a prompt, where the vendor counts."""
        with _forbidden():
            return await self._inner.count(call)

    async def models(self) -> list[ListedModel]:
        """List what the vendor offers."""
        with _forbidden():
            return await self._inner.models()

    async def close(self) -> None:
        """Close connections."""
        await self._inner.close()


@contextmanager
def _forbidden() -> Iterator[None]:
    try:
        yield
    except AppError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ForbiddenAddress):
                raise ForbiddenAddress(cause.message, field="base_url") from None
            cause = cause.__cause__
        raise
