"""The keys that actor contexts are signed with."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from letta.auth.v1.credential_service_pb2 import SigningKey
from letta_auth.domain.signers import Signer, new_key_pair
from letta_common.clock import Clock
from letta_common.errors import InternalError
from letta_common.sealing import SealedAt, Sealer
from letta_common.values.ids import new_id
from letta_common.values.times import stamp_of, time_of

if TYPE_CHECKING:
    from letta_auth.domain.database import AuthDatabase

PRIVATE_KEYS = "auth.signing_keys.sealed_private_key"
# Another replica may have retired the key meanwhile; verifiers list it for a day after that.
RELOAD_AFTER = timedelta(minutes=10)
LISTED_AFTER_RETIREMENT = timedelta(days=1)
"""Longer than another replica may go on signing with a retired key, and than any context is valid."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A signing key, and its private half, which is sealed."""

    key: SigningKey
    sealed_private_key: bytes


class SigningKeyStore(Protocol):
    """Where signing keys are kept."""

    async def create(self, pair: KeyPair) -> None:
        """Add a key."""
        ...

    async def retire(self, older_than: datetime, at: datetime) -> None:
        """Sign no more with keys made before a time."""
        ...

    async def list_active(self) -> Sequence[KeyPair]:
        """Return the keys to sign with, newest first."""
        ...

    async def list_since(self, retired_since: datetime) -> Sequence[SigningKey]:
        """Return the active keys and those retired since, newest first."""
        ...


class SigningKeys:
    """Keeps a signer at hand and replaces its key in time."""

    def __init__(self, db: AuthDatabase, sealer: Sealer, clock: Clock, *, audience: str, max_age: timedelta) -> None:
        self._db = db
        self._sealer = sealer
        self._clock = clock
        self._audience = audience
        self._max_age = max_age
        self._signer: Signer | None = None
        self._loaded_at: datetime | None = None
        self._loading = asyncio.Lock()

    async def signer(self) -> Signer:
        """Return a signer with a key that every verifier can learn of."""
        # One at a time, or every request that finds no key would make one.
        async with self._loading:
            now = self._clock.now()
            if self._signer is None or self._loaded_at is None or now - self._loaded_at > RELOAD_AFTER:
                self._signer = await self._usable(now) or await self._make(now)
                self._loaded_at = now
            return self._signer

    async def listed(self) -> Sequence[SigningKey]:
        """Return the keys that a valid context may be signed with."""
        async with self._db.read() as tx:
            return await tx.signing_keys.list_since(self._clock.now() - LISTED_AFTER_RETIREMENT)

    async def _usable(self, now: datetime) -> Signer | None:
        async with self._db.read() as tx:
            pairs = await tx.signing_keys.list_active()
        for pair in pairs:
            if now - time_of(pair.key.created_at) < self._max_age and (private := self._opened(pair)):
                return Signer(private, pair.key.id, self._audience, self._clock)
        return None

    def _opened(self, pair: KeyPair) -> bytes | None:
        try:
            return self._sealer.open(_place(pair.key.id), pair.sealed_private_key)
        except InternalError:  # sealed with a key that this deployment has no more: another pair is made
            return None

    async def _make(self, now: datetime) -> Signer:
        id_ = new_id("signing_key")
        public, private = new_key_pair()
        key = SigningKey(id=id_, public_key=public, created_at=stamp_of(now))
        sealed = self._sealer.seal(_place(id_), private)
        async with self._db.begin() as tx:
            # In one transaction with the new key, so that there is always one to sign with.
            await tx.signing_keys.retire(now - self._max_age, now)
            await tx.signing_keys.create(KeyPair(key, sealed))
        return Signer(private, id_, self._audience, self._clock)


def _place(key_id: str) -> SealedAt:
    return SealedAt(PRIVATE_KEYS, "", key_id)
