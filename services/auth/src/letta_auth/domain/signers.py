"""Signing of actor contexts."""

from __future__ import annotations

from datetime import timedelta

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from letta.common.v1 import actor_pb2
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_rpc.verdicts import scopes_of

# What is signed cannot be called back: a revoked key works on for at most so long.
LIFETIME = timedelta(seconds=60)


def new_key_pair() -> tuple[bytes, bytes]:
    """Return a new public key, raw, and its private one."""
    key = Ed25519PrivateKey.generate()
    return key.public_key().public_bytes_raw(), key.private_bytes_raw()


class Signer:
    """Signs contexts with one private key. Only the auth service holds one."""

    def __init__(self, private_key: bytes, key_id: str, audience: str, clock: Clock) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(private_key)
        self._key_id = key_id
        self._audience = audience
        self._clock = clock

    def sign(self, actor: Actor, *, lifetime: timedelta = LIFETIME, run_id: str = "") -> bytes:
        """Return a serialized SignedActorContext."""
        now = self._clock.now()
        context = actor_pb2.ActorContext(
            organization_id=actor.organization_id,
            user_id=actor.user_id,
            scopes=scopes_of(actor.scopes),
            audience=self._audience,
            run_id=run_id,
        )
        context.issued_at.FromDatetime(now)
        context.expires_at.FromDatetime(now + lifetime)
        # These very bytes go along, so a verifier need not write the message as we do.
        payload = context.SerializeToString(deterministic=True)
        return actor_pb2.SignedActorContext(
            payload=payload, signature=self._key.sign(payload), key_id=self._key_id
        ).SerializeToString()
