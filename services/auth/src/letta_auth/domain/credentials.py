"""Credentials: who a caller is, said under signature to every other service."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from letta_auth.domain.api_keys import PREFIX, Pepper, key_id_of
from letta_auth.domain.bootstrap import DEFAULT_USER_ID
from letta_auth.domain.database import AuthDatabase
from letta_auth.domain.scopes import ALL, USUAL
from letta_auth.domain.signers import LIFETIME
from letta_auth.domain.signing_keys import SigningKeys
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import InvalidArgument, OperationUnimplemented, Unauthenticated, UserNotFound
from letta_common.values.times import optional_time
from letta_rpc.verdicts import words_of

RUN_LIFETIME = timedelta(minutes=15)
# Each exchange of a key would be a write otherwise.
TOUCH_AFTER = timedelta(minutes=1)
_USER_ID = re.compile(r"user-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
# Header, payload and signature of a JSON web token.
_TOKEN = re.compile(r"[\w-]+\.[\w-]+\.[\w-]+")


class Credentials:
    """Exchanges credentials for signed contexts."""

    def __init__(
        self, db: AuthDatabase, keys: SigningKeys, pepper: Pepper, clock: Clock, *, dev_mode: bool = False
    ) -> None:
        self._db = db
        self._keys = keys
        self._pepper = pepper
        self._clock = clock
        self._dev_mode = dev_mode

    async def exchange(self, credential: str, user_id: str = "") -> bytes:
        """Return a serialized SignedActorContext for whom the credential belongs to.

        Raises:
            Unauthenticated: it is unknown, expired or revoked; which of these is not told.
            OperationUnimplemented: it is a JSON web token.
            InvalidArgument: the user id is malformed.
        """
        signer = await self._keys.signer()
        if credential.startswith(PREFIX):
            actor, expires_at = await self._owner(credential)
            left = expires_at - self._clock.now() if expires_at else LIFETIME
            return signer.sign(actor, lifetime=min(LIFETIME, left))
        if self._dev_mode:  # clients insist on sending a key, so any other credential is the default user's
            return signer.sign(await self._developer(user_id))
        if _TOKEN.fullmatch(credential):
            raise OperationUnimplemented("JSON web tokens are not accepted yet; send an API key")
        raise Unauthenticated("unknown, expired or revoked credential")

    async def for_run(self, organization_id: str, user_id: str, run_id: str) -> bytes:
        """Return a serialized SignedActorContext for a run's principal. Raises Unauthenticated when it was removed."""
        try:
            async with self._db.read() as tx:
                user = await tx.users.get(user_id)
        except UserNotFound as error:
            raise Unauthenticated(f"the user {user_id} was removed", user_id=user_id) from error
        if user.organization_id != organization_id:
            raise Unauthenticated(f"the user {user_id} is not of the organization", user_id=user_id)
        signer = await self._keys.signer()
        # Not the scopes of the key that began the run: a run never manages keys or organizations.
        return signer.sign(Actor(organization_id, user_id, USUAL), lifetime=RUN_LIFETIME, run_id=run_id)

    async def _owner(self, secret: str) -> tuple[Actor, datetime | None]:
        """Return whose key it is and when the key expires: what is signed for it must not outlive it."""
        key_id, now = key_id_of(secret), self._clock.now()
        async with self._db.read() as tx:
            kept = await tx.api_keys.find_usable(key_id) if key_id else None
        valid = kept is not None and kept.is_valid(now, dev_mode=self._dev_mode)
        if kept is None or not self._pepper.fits(kept, secret) or not valid:
            raise Unauthenticated("unknown, expired or revoked credential")
        key, used_at = kept.key, optional_time(kept.key, "last_used_at")
        if used_at is None or now - used_at >= TOUCH_AFTER:
            async with self._db.begin() as tx:
                await tx.api_keys.touch(key.id, now)
        return Actor(key.organization_id, key.user_id, words_of(key.scopes)), optional_time(key, "expires_at")

    async def _developer(self, user_id: str) -> Actor:
        if user_id and not _USER_ID.fullmatch(user_id):
            raise InvalidArgument("user_id must be `user-<uuid>`", field="user_id")
        async with self._db.read() as tx:
            try:
                user = await tx.users.get(user_id or DEFAULT_USER_ID)
            except UserNotFound:
                # V1 too serves the default user for an id that it does not know.
                user = await tx.users.get(DEFAULT_USER_ID)
        return Actor(user.organization_id, user.id, ALL)
