"""What every boundary asks of the auth service: signed contexts for credentials, and the keys that verify them."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc.aio

from letta.auth.v1 import credential_service_pb2 as pb
from letta.auth.v1 import credential_service_pb2_grpc
from letta_common.clock import Clock

_TIMEOUT = 5.0
# The longest that a key which auth has withdrawn still verifies here.
_REFRESH_NS = 60_000_000_000
_RETRY_NS = 5_000_000_000  # how often an unknown key may cost a question


class AuthClient:
    """Asks the auth service; public keys are kept for a minute, and asked for again when an unknown one appears."""

    def __init__(self, channel: grpc.aio.Channel, clock: Clock) -> None:
        self._stub: Any = credential_service_pb2_grpc.CredentialServiceStub(channel)
        self._clock = clock
        self._keys: dict[str, bytes] = {}
        self._asked: int | None = None
        self._asking = asyncio.Lock()

    async def exchange(self, credential: str, user_id: str) -> bytes:
        """Return a serialized SignedActorContext. Raises Unauthenticated."""
        request = pb.ExchangeCredentialRequest(credential=credential, user_id=user_id)
        answer = await self._stub.ExchangeCredential(request, timeout=_TIMEOUT)
        return bytes(answer.context.SerializeToString())

    async def public_key(self, key_id: str) -> bytes | None:
        """Return the raw public key, or None when auth has none of this id."""
        # Callers that wait here find the answer of the first one: its time of asking is read under the lock.
        async with self._asking:
            age = None if self._asked is None else self._clock.monotonic_ns() - self._asked
            if age is None or age > (_REFRESH_NS if key_id in self._keys else _RETRY_NS):
                answer = await self._stub.ListSigningKeys(pb.ListSigningKeysRequest(), timeout=_TIMEOUT)
                self._keys = {key.id: key.public_key for key in answer.signing_keys}
                self._asked = self._clock.monotonic_ns()
            return self._keys.get(key_id)
