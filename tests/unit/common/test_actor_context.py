"""Whom a signed context convinces."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from letta.common.v1 import actor_pb2
from letta_auth.domain.signers import Signer
from letta_common.actor import Actor, Request, acting_as, bind_request, current_actor, current_request
from letta_common.errors import Unauthenticated
from letta_rpc.verdicts import SignatureVerifier, scopes_of, words_of

ANN = Actor("org-a", "user-ann", frozenset({"read", "write"}))
KEY = Ed25519PrivateKey.generate()


class Clock:
    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, tzinfo=UTC)

    def now(self) -> datetime:
        return self.time

    def monotonic_ns(self) -> int:
        return 0


class Keys:
    def __init__(self, **keys: Ed25519PrivateKey) -> None:
        self.keys = {name: key.public_key().public_bytes_raw() for name, key in keys.items()}
        self.asked = 0

    async def public_key(self, key_id: str) -> bytes | None:
        self.asked += 1
        return self.keys.get(key_id)


class World:
    def __init__(self) -> None:
        self.clock = Clock()
        self.keys = Keys(k1=KEY)
        self.signer = self.signing("k1", "here")
        self.verifier = SignatureVerifier(self.keys, "here", self.clock)

    def signing(self, key_id: str, audience: str, key: Ed25519PrivateKey = KEY) -> Signer:
        return Signer(key.private_bytes_raw(), key_id, audience, self.clock)


@pytest.fixture
def world() -> World:
    return World()


async def test_genuine_context_is_accepted(world: World) -> None:
    verdict = await world.verifier.verify(world.signer.sign(ANN, run_id="run-1"))

    assert (verdict.actor, verdict.run_id) == (ANN, "run-1")
    assert verdict.expires_at == world.clock.time + timedelta(seconds=60)


async def test_verdict_is_kept(world: World) -> None:
    signed = world.signer.sign(ANN)
    for _ in range(3):
        await world.verifier.verify(signed)

    assert world.keys.asked == 1


@pytest.mark.parametrize("seen_before", [False, True])
async def test_expired_context_is_refused(world: World, seen_before: bool) -> None:
    signed = world.signer.sign(ANN, lifetime=timedelta(seconds=10))
    if seen_before:
        await world.verifier.verify(signed)
    world.clock.time += timedelta(seconds=10)

    with pytest.raises(Unauthenticated, match="expired"):
        await world.verifier.verify(signed)


async def test_context_of_another_deployment_is_refused(world: World) -> None:
    with pytest.raises(Unauthenticated, match="deployment"):
        await world.verifier.verify(world.signing("k1", "there").sign(ANN))


async def test_context_of_an_unknown_key_is_refused(world: World) -> None:
    with pytest.raises(Unauthenticated, match="unknown key"):
        await world.verifier.verify(world.signing("k2", "here").sign(ANN))


async def test_context_of_a_wrong_key_is_refused(world: World) -> None:
    with pytest.raises(Unauthenticated, match="genuine"):
        await world.verifier.verify(world.signing("k1", "here", Ed25519PrivateKey.generate()).sign(ANN))


async def test_changed_payload_is_refused(world: World) -> None:
    envelope = actor_pb2.SignedActorContext.FromString(world.signer.sign(ANN))
    context = actor_pb2.ActorContext.FromString(envelope.payload)
    context.organization_id = "org-b"
    envelope.payload = context.SerializeToString()

    with pytest.raises(Unauthenticated, match="genuine"):
        await world.verifier.verify(envelope.SerializeToString())


async def test_context_of_nobody_is_refused(world: World) -> None:
    with pytest.raises(Unauthenticated, match="nobody"):
        await world.verifier.verify(world.signer.sign(Actor("", "")))


@given(noise=st.binary(max_size=200))
async def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Unauthenticated):
        await World().verifier.verify(noise)


@given(position=st.integers(min_value=0), flip=st.integers(min_value=1, max_value=255))
async def test_flipped_bits_never_change_the_actor(position: int, flip: int) -> None:
    world = World()
    signed = bytearray(world.signer.sign(ANN))
    signed[position % len(signed)] ^= flip
    try:
        verdict: Any = await world.verifier.verify(bytes(signed))
    except Unauthenticated:
        return
    assert verdict.actor == ANN


async def test_old_verdicts_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("letta_rpc.verdicts._MAX_VERDICTS", 2)
    world = World()
    for number in range(5):
        await world.verifier.verify(world.signer.sign(Actor("org-a", f"user-{number}")))

    assert len(world.verifier._verdicts) == 2


def test_outside_of_a_request_there_is_no_actor() -> None:
    with pytest.raises(Unauthenticated):
        current_actor()


def test_acting_as_leaves_deadline_and_actor_behind() -> None:
    bind_request(Request(actor=ANN, request_id="req", signed_actor=b"a", deadline=1.0))
    try:
        with acting_as(b"b"):
            inside = current_request()
        assert current_request().signed_actor == b"a"
    finally:
        bind_request(Request())

    assert (inside.actor, inside.request_id, inside.signed_actor, inside.deadline) == (None, "req", b"b", None)


def test_scopes_of_a_newer_release_give_nothing():
    assert scopes_of({"read", "of-a-newer-release"}) == [actor_pb2.SCOPE_READ]
    assert words_of([actor_pb2.SCOPE_READ, 99]) == {"read"}
