"""API keys: what a caller proves itself with. The secret is shown once; a keyed hash of it is kept."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

from letta.auth.v1.api_key_pb2 import APIKey
from letta_auth.domain.changes import change
from letta_auth.domain.scopes import KEYS, USUAL, is_admin, lacking
from letta_auth.domain.users import missing as missing_user
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import APIKeyNotFound, PermissionDenied
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of, time_of
from letta_rpc.verdicts import scopes_of, words_of

if TYPE_CHECKING:
    from letta_auth.domain.database import AuthDatabase

PREFIX = "lk_"
_SECRET = re.compile(r"lk_([0-9a-f]{32})_[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class KeptKey:
    """An API key as it is kept, with what nobody is shown."""

    key: APIKey
    secret_hash: bytes
    development: bool = False
    """It was made in dev mode, where everybody is an administrator, and is nobody's without."""

    def is_valid(self, now: datetime, *, dev_mode: bool) -> bool:
        """Say whether who holds it is let in."""
        expired = self.key.HasField("expires_at") and time_of(self.key.expires_at) <= now
        return not expired and (dev_mode or not self.development)


class APIKeyStore(Protocol):
    """Where keys are kept. Revoked ones are never found; an empty organization means all."""

    async def create(self, kept: KeptKey) -> None:
        """Add a new key."""
        ...

    async def get(self, key_id: str, organization_id: str = "") -> APIKey:
        """Return one key. Raises APIKeyNotFound."""
        ...

    async def find_usable(self, key_id: str) -> KeptKey | None:
        """Return a key whose user and organization still exist."""
        ...

    async def list_keys(self, page: Page, organization_id: str = "", user_id: str = "") -> Sequence[APIKey]:
        """Return a page of keys by time. Raises CursorNotFound."""
        ...

    async def revoke(self, key_id: str, at: datetime) -> None:
        """Make a key invalid for good."""
        ...

    async def touch(self, key_id: str, at: datetime) -> None:
        """Write down when a key was used."""
        ...

    async def has_admin(self) -> bool:
        """Say whether there is a key with the scope `admin` that was not made in dev mode."""
        ...


class Pepper:
    """Makes the secrets of keys and their keyed hashes."""

    def __init__(self, cluster_secret: bytes) -> None:
        # A key for this purpose alone: the cluster's secret also proves services to each other.
        self._key = hmac.digest(cluster_secret, b"letta.auth.api-keys", "sha256")

    def new_secret(self, key_id: str) -> str:
        """Return a secret of 256 random bits that names its key."""
        return f"{PREFIX}{UUID(key_id.partition('-')[2]).hex}_{secrets.token_hex(32)}"

    def hash(self, secret: str) -> bytes:
        """Return what is kept of a secret."""
        # A fast hash is enough: nobody guesses 256 random bits.
        return hmac.digest(self._key, secret.encode(), hashlib.sha256)

    def fits(self, kept: KeptKey, secret: str) -> bool:
        """Say whether this is the secret of the key."""
        # Compared in constant time, or the time of a refusal would tell how much of a hash is right.
        return hmac.compare_digest(kept.secret_hash, self.hash(secret))


def key_id_of(secret: str) -> str:
    """Return the id of the key that a secret names, or an empty string when it is malformed."""
    found = _SECRET.fullmatch(secret)
    return f"api_key-{UUID(found[1])}" if found else ""


class APIKeys:
    """Operations on API keys, for holders of `keys` in their organization and for administrators in all."""

    def __init__(self, db: AuthDatabase, pepper: Pepper, clock: Clock, *, dev_mode: bool = False) -> None:
        self._db = db
        self._pepper = pepper
        self._clock = clock
        self._dev_mode = dev_mode

    async def create(
        self,
        actor: Actor,
        name: str,
        *,
        user_id: str = "",
        scopes: Iterable[str] = (),
        expires_at: datetime | None = None,
    ) -> tuple[APIKey, str]:
        """Make a key and return it with its secret.

        Raises:
            PermissionDenied: the actor may not manage keys, or lacks a scope that it grants.
            UserNotFound: there is no such user, or it is another organization's.
        """
        actor.require(KEYS)
        granted = frozenset(scopes) or USUAL
        # Else whoever may make keys could make one of an administrator.
        if more := lacking(actor, granted):
            raise PermissionDenied(f"the credential lacks the scopes it grants: {', '.join(more)}")
        now, id_ = self._clock.now(), new_id("api_key")
        secret = self._pepper.new_secret(id_)
        async with self._db.begin() as tx:
            user = await tx.users.get(user_id or actor.user_id)
            # The same error as for a user that does not exist: ids of other organizations are not confirmed.
            if user.organization_id != actor.organization_id and not is_admin(actor):
                raise missing_user(user.id)
            key = APIKey(
                id=id_,
                organization_id=user.organization_id,
                user_id=user.id,
                name=name,
                scopes=scopes_of(granted),
                created_at=stamp_of(now),
                created_by_id=actor.user_id,
                expires_at=stamp_of(expires_at),
            )
            await tx.api_keys.create(KeptKey(key, self._pepper.hash(secret), development=self._dev_mode))
            await tx.audit.append(change(actor, key.organization_id, now, "api_key.create", key.id))
        return key, secret

    async def get(self, actor: Actor, key_id: str) -> APIKey:
        """Return one key. Raises PermissionDenied, APIKeyNotFound."""
        actor.require(KEYS)
        async with self._db.read() as tx:
            return await tx.api_keys.get(key_id, _reach(actor))

    async def list(self, actor: Actor, page: Page, user_id: str = "") -> Sequence[APIKey]:
        """Return a page of the keys of the actor's organization. Raises PermissionDenied, CursorNotFound."""
        actor.require(KEYS)
        # Administrators name a user to look beyond their own organization.
        reach = _reach(actor) if user_id else actor.organization_id
        async with self._db.read() as tx:
            return await tx.api_keys.list_keys(page, reach, user_id)

    async def revoke(self, actor: Actor, key_id: str) -> None:
        """Make a key invalid for good.

        Raises:
            PermissionDenied: the actor may not manage keys, or the key has a scope that the actor lacks.
            APIKeyNotFound: the actor's organization has no such key.
        """
        actor.require(KEYS)
        now = self._clock.now()
        async with self._db.begin() as tx:
            key = await tx.api_keys.get(key_id, _reach(actor))
            # Else whoever may manage keys could shut out an administrator.
            if more := lacking(actor, words_of(key.scopes)):
                raise PermissionDenied(f"the key has scopes that the credential lacks: {', '.join(more)}")
            await tx.api_keys.revoke(key.id, now)
            await tx.audit.append(change(actor, key.organization_id, now, "api_key.revoke", key.id))


def _reach(actor: Actor) -> str:
    """Return the one organization whose keys the actor sees, or an empty string for all."""
    return "" if is_admin(actor) else actor.organization_id


def missing(key_id: str) -> APIKeyNotFound:
    """Return the error for a key that does not exist."""
    return APIKeyNotFound(f"no API key {key_id}", api_key_id=key_id)
