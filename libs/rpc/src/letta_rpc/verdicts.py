"""Verification of signed actor contexts, with cached verdicts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from cachetools import LRUCache
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf.message import DecodeError

from letta.common.v1 import actor_pb2
from letta.common.v1.actor_pb2 import Scope
from letta_common.actor import Actor
from letta_common.clock import Clock
from letta_common.errors import Unauthenticated

_MAX_VERDICTS = 4096
_WORDS = {number: name.removeprefix("SCOPE_").lower() for name, number in Scope.items() if number}
_SCOPES = {word: number for number, word in _WORDS.items()}


def words_of(scopes: Iterable[Scope.ValueType]) -> frozenset[str]:
    """Return scopes of the contract as words; those of a newer contract mean nothing here."""
    return frozenset(_WORDS[scope] for scope in scopes if scope in _WORDS)


def scopes_of(words: Iterable[str]) -> list[Scope.ValueType]:
    """Return words as scopes of the contract, in the order of the words; those of a newer release give nothing."""
    return [_SCOPES[word] for word in sorted(words) if word in _SCOPES]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a signature vouches for."""

    actor: Actor
    expires_at: datetime
    run_id: str = ""


class Verifier(Protocol):
    """Decides whether a serialized SignedActorContext is genuine and still valid."""

    async def verify(self, signed: bytes) -> Verdict:
        """Return what it vouches for. Raises Unauthenticated."""
        ...


class CredentialExchange(Protocol):
    """Turns a caller's credential into a signed context."""

    async def exchange(self, credential: str, user_id: str) -> bytes:
        """Return a serialized SignedActorContext. An empty credential asks for the dev user. Raises Unauthenticated."""
        ...


class KeySource(Protocol):
    """Where public signing keys come from."""

    async def public_key(self, key_id: str) -> bytes | None:
        """Return the raw Ed25519 public key, or None when there is none of this id (any more)."""
        ...


class SignatureVerifier:
    """Verifies contexts by public key and audience; a verdict is kept until it expires."""

    def __init__(self, keys: KeySource, audience: str, clock: Clock) -> None:
        self._keys = keys
        self._audience = audience
        self._clock = clock
        self._verdicts: LRUCache[bytes, Verdict] = LRUCache(_MAX_VERDICTS)

    async def verify(self, signed: bytes) -> Verdict:
        """Return what the context vouches for. Raises Unauthenticated."""
        verdict = self._verdicts.get(signed)
        if verdict is None:
            # A refusal raises before it is kept, so garbage cannot push out the verdicts in use.
            verdict = self._verdicts[signed] = await self._check(signed)
        if verdict.expires_at <= self._clock.now():
            self._verdicts.pop(signed, None)
            raise Unauthenticated("the actor context has expired")
        return verdict

    async def _check(self, signed: bytes) -> Verdict:
        try:
            envelope = actor_pb2.SignedActorContext.FromString(signed)
            key = await self._keys.public_key(envelope.key_id)
            if key is None:
                raise Unauthenticated("the actor context is signed with an unknown key")
            Ed25519PublicKey.from_public_bytes(key).verify(envelope.signature, envelope.payload)
            context = actor_pb2.ActorContext.FromString(envelope.payload)
        except (DecodeError, InvalidSignature) as error:
            raise Unauthenticated("the actor context is not genuine") from error
        if context.audience != self._audience:
            raise Unauthenticated("the actor context is for another deployment")
        if not context.organization_id or not context.user_id:
            raise Unauthenticated("the actor context names nobody")
        actor = Actor(context.organization_id, context.user_id, words_of(context.scopes))
        return Verdict(actor, context.expires_at.ToDatetime(tzinfo=UTC), context.run_id)
