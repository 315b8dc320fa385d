"""Helpers for tests of services: a miniature auth service, and a service running behind either transport."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import grpc.aio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from letta_auth.domain.signers import Signer
from letta_common.actor import Actor
from letta_common.clock import Clock, SystemClock
from letta_common.errors import Unauthenticated
from letta_common.process.settings import Settings
from letta_local_channel import LocalChannel, LocalServer
from letta_rpc.boundary import Boundary
from letta_rpc.client import PeerChannel, connect
from letta_rpc.health import Health
from letta_rpc.server import Server, register_all
from letta_rpc.service import Service
from letta_rpc.verdicts import SignatureVerifier

SECRET = "a secret of tests"
DEFAULT_ORGANIZATION = "org-00000000-0000-4000-8000-000000000000"
DEFAULT_USER = "user-00000000-0000-4000-8000-000000000000"
ALL_SCOPES = frozenset({"read", "write", "admin"})
Transport = Literal["network", "local"]


class Identities:
    """Signs contexts with a key of its own and knows a table of credentials; an empty one is the default user."""

    def __init__(self, credentials: dict[str, Actor] | None = None, clock: Clock | None = None) -> None:
        key = Ed25519PrivateKey.generate()
        clock = clock or SystemClock()
        self.credentials = {"": Actor(DEFAULT_ORGANIZATION, DEFAULT_USER, ALL_SCOPES)} | (credentials or {})
        self.signer = Signer(key.private_bytes_raw(), "test-key", "letta", clock)
        self.verifier = SignatureVerifier(self, "letta", clock)
        self.exchanges = 0
        self._public = key.public_key().public_bytes_raw()

    async def public_key(self, key_id: str) -> bytes | None:
        """Return the one public key."""
        return self._public if key_id == "test-key" else None

    async def exchange(self, credential: str, user_id: str) -> bytes:
        """Sign for the owner of the credential."""
        self.exchanges += 1
        actor = self.credentials.get(credential)
        if actor is None:
            raise Unauthenticated("unknown credential")
        return self.sign(Actor(actor.organization_id, user_id or actor.user_id, actor.scopes))

    def sign(self, actor: Actor) -> bytes:
        """Return a signed context for `acting_as` or for `x-letta-actor-bin`."""
        return self.signer.sign(Actor(actor.organization_id, actor.user_id, actor.scopes or ALL_SCOPES))


@asynccontextmanager
async def running(
    services: Service | Sequence[Service],
    transport: Transport = "local",
    *,
    identities: Identities | None = None,
    settings: Settings | None = None,
    dev_mode: bool = True,
    clock: Clock | None = None,
) -> AsyncIterator[grpc.aio.Channel]:
    """Run services behind a boundary and yield a channel that speaks as the service `test`.

    In dev mode a call without `acting_as(identities.sign(actor))` or a credential comes from the default user.
    """
    services = [services] if isinstance(services, Service) else list(services)
    settings = settings or Settings(bind="127.0.0.1:0", cluster_secret=SecretStr(SECRET), drain_seconds=1)
    identities = identities or Identities()
    boundary = Boundary(
        identities.verifier,
        identities,
        secret=settings.secret(),
        clock=clock or SystemClock(),
        dev_mode=dev_mode,
        most=settings.max_calls,
        most_of_one=settings.max_calls_of_organization,
    )
    if transport == "network":
        server = Server(services, settings, boundary)
        await server.start()
        channel = connect(f"127.0.0.1:{server.port}", settings, caller="test", clock=clock)
        try:
            yield channel
        finally:
            await channel.close()
            await server.stop(notice=0)
        return
    local = LocalServer([boundary], max_message=settings.max_message_bytes)
    health = Health(services, settings.health_seconds)
    register_all(services, local, health.servicer)
    for service in services:
        await service.start()
    await health.start()
    channel = PeerChannel(LocalChannel(local), "test", settings.secret(), clock)
    try:
        yield channel
    finally:
        await health.stop()
        await channel.close()
        await local.stop()
        for service in reversed(services):
            await service.close()
