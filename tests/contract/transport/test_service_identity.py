"""Who may say for whom a call is: a genuine service, for this method, this actor context and this minute alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import grpc
import pytest

from letta_common.actor import Actor, acting_as
from letta_rpc.service_identity import ServiceIdentity
from tests.contract.transport.conftest import PACKAGE, HandClock
from tests.support.rpc import ALL_SCOPES, DEFAULT_ORGANIZATION, SECRET, Identities

ANN, BOB = (Actor(f"org-{name}", f"user-{name}", ALL_SCOPES) for name in ("a", "b"))
LONG = timedelta(hours=1)
READ, WRITE, HIDDEN, STREAM = (f"{PACKAGE}.ProbeService/{name}" for name in ("Read", "Write", "Hidden", "Stream"))


def shown(actor: bytes | None, identity: bytes | None) -> Any:
    both = ("x-letta-service-bin", identity), ("x-letta-actor-bin", actor)
    return tuple((key, value) for key, value in both if value is not None)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def refused_everywhere(probe: Any, metadata: Any) -> str:
    """Show it to methods of each kind; return what the caller of the first reads."""
    errors = [
        await refused(probe.bare.Read(probe.ask(), timeout=5, metadata=metadata)),
        await refused(probe.bare.Write(probe.ask(), timeout=5, metadata=metadata)),
        await refused(probe.bare.Stream(probe.ask(count=1), timeout=5, metadata=metadata).read()),
    ]
    assert [error.code() for error in errors] == [grpc.StatusCode.UNAUTHENTICATED] * 3
    assert probe.servicer.calls == 0
    return str(errors[0].details())


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
async def turned(start: Any, clock: HandClock) -> Any:
    """A probe service whose time is turned by hand."""
    async with start(Identities(clock=clock), dev_mode=False, clock=clock) as probe:
        yield probe


@pytest.mark.parametrize("dev_mode", [True, False])
async def test_an_actor_context_without_a_service_identity_is_refused(start: Any, dev_mode: bool) -> None:
    async with start(dev_mode=dev_mode) as probe:
        said = await refused_everywhere(probe, shown(probe.identities.sign(ANN), None))

        assert "services of this deployment" in said
        assert "`authorization: Bearer <API key>`" in said


async def test_a_credential_beside_an_actor_context_does_not_help(start: Any) -> None:
    async with start(Identities({"lk_bob": BOB}), dev_mode=False) as probe:
        bearer = ("authorization", "Bearer lk_bob")
        await refused_everywhere(probe, (bearer, *shown(probe.identities.sign(ANN), None)))
        await probe.bare.Read(probe.ask(), timeout=5, metadata=(bearer,))

        assert probe.servicer.seen.actor == BOB


@pytest.mark.parametrize(
    "identity",
    [
        b"",
        b"agent",
        b"agent:",
        b"agent:" + b"0" * 64,
        b"agent:29460000:" + b"0" * 64,
        b"agent:" + b"9" * 5000 + b":" + b"0" * 64,
        b"\xff\x00:1:" + b"0" * 64,
    ],
)
@pytest.mark.parametrize("with_actor", [True, False])
async def test_a_malformed_or_forged_identity_is_refused(probe: Any, identity: bytes, with_actor: bool) -> None:
    actor = probe.identities.sign(ANN) if with_actor else None

    assert "service identity is" in await refused_everywhere(probe, shown(actor, identity))


@pytest.mark.parametrize("secret", [b"", b"another", SECRET.encode() + b" "])
async def test_an_identity_of_another_secret_is_refused(turned: Any, clock: HandClock, secret: bytes) -> None:
    signed = turned.identities.sign(ANN)
    forger = ServiceIdentity("test", secret, clock)

    await refused_everywhere(turned, shown(signed, forger.of(READ, signed)))
    hidden = await refused(turned.bare.Hidden(turned.ask(), timeout=5, metadata=shown(None, forger.of(HIDDEN, b""))))
    assert hidden.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("audience", ["letta.memory.v1.BlockService/Read", f"{PACKAGE}.ProbeService", "", HIDDEN])
async def test_an_identity_for_another_audience_is_refused(turned: Any, clock: HandClock, audience: str) -> None:
    signed = turned.identities.sign(ANN)
    genuine = ServiceIdentity("test", SECRET.encode(), clock)

    await refused_everywhere(turned, shown(signed, genuine.of(audience, signed)))


async def test_what_a_method_was_shown_opens_no_other(turned: Any) -> None:
    with acting_as(turned.identities.sign(ANN)):
        await turned.stub.Read(turned.ask(), timeout=5)
    seen = shown(turned.servicer.metadata["x-letta-actor-bin"], turned.servicer.metadata["x-letta-service-bin"])

    await turned.bare.Read(turned.ask(), timeout=5, metadata=seen)
    for method in (turned.bare.Write, turned.bare.Hidden):
        error = await refused(method(turned.ask(), timeout=5, metadata=seen))
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    error = await refused(turned.bare.Stream(turned.ask(count=1), timeout=5, metadata=seen).read())
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert turned.servicer.calls == 2


@pytest.mark.parametrize(("made_for", "sent"), [("ann", "bob"), (None, "bob"), ("ann", None)])
async def test_an_identity_with_the_context_of_another_actor_is_refused(
    turned: Any, clock: HandClock, made_for: str | None, sent: str | None
) -> None:
    signed = {name: turned.identities.sign(actor) for name, actor in (("ann", ANN), ("bob", BOB))}
    genuine = ServiceIdentity("test", SECRET.encode(), clock)
    identity = genuine.of(READ, signed[made_for] if made_for else b"")
    if made_for:  # the service knows it by now
        await turned.bare.Read(turned.ask(), timeout=5, metadata=shown(signed[made_for], identity))
    error = await refused(
        turned.bare.Read(turned.ask(), timeout=5, metadata=shown(signed[sent] if sent else None, identity))
    )

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert turned.servicer.calls == bool(made_for)


@pytest.mark.parametrize(("seconds", "accepted"), [(-61, False), (-60, True), (0, True), (119, True), (120, False)])
async def test_an_identity_is_worth_its_window_and_those_beside_it(
    turned: Any, clock: HandClock, seconds: int, accepted: bool
) -> None:
    clock.at += timedelta(minutes=10)
    signed = turned.identities.signer.sign(ANN, lifetime=LONG)
    seen = turned.posing(signed)
    clock.at += timedelta(seconds=seconds)
    call = turned.bare.Read(turned.ask(), timeout=5, metadata=seen)
    if accepted:
        await call
        assert (turned.servicer.seen.actor, turned.servicer.seen.caller) == (ANN, "test")
    else:
        assert "of another minute" in str((await refused(call)).details())
        assert turned.servicer.calls == 0


async def test_an_identity_that_was_accepted_is_refused_when_its_window_is_over(turned: Any, clock: HandClock) -> None:
    signed = turned.identities.signer.sign(ANN, lifetime=LONG)
    with acting_as(signed):
        await turned.stub.Read(turned.ask(), timeout=5)
    seen = shown(signed, turned.servicer.metadata["x-letta-service-bin"])
    await turned.bare.Read(turned.ask(), timeout=5, metadata=seen)
    clock.at += timedelta(minutes=2)
    error = await refused(turned.bare.Read(turned.ask(), timeout=5, metadata=seen))
    with acting_as(signed):
        await turned.stub.Read(turned.ask(), timeout=5)

    assert error.code() is grpc.StatusCode.UNAUTHENTICATED
    assert turned.servicer.calls == 3
    assert turned.servicer.metadata["x-letta-service-bin"] != seen[0][1]


async def test_calls_of_a_service_for_an_actor_are_served(turned: Any) -> None:
    with acting_as(turned.identities.sign(ANN)):
        await turned.stub.Read(turned.ask(), timeout=5)
        read = turned.servicer.seen
        async for _ in turned.stub.Stream(turned.ask(count=1), timeout=5):
            pass
        await turned.stub.Hidden(turned.ask(), timeout=5)

    for seen in (read, turned.servicer.seen):
        assert (seen.actor, seen.caller) == (ANN, "test")


async def test_calls_without_an_actor_are_bound_too(turned: Any, clock: HandClock) -> None:
    await turned.stub.Hidden(turned.ask(), timeout=5)
    identity = turned.servicer.metadata["x-letta-service-bin"]
    outside = await refused(turned.bare.Hidden(turned.ask(), timeout=5))
    context_added = await refused(
        turned.bare.Hidden(turned.ask(), timeout=5, metadata=shown(turned.identities.sign(ANN), identity))
    )
    elsewhere = await refused(turned.bare.Read(turned.ask(), timeout=5, metadata=shown(None, identity)))
    clock.at += timedelta(minutes=2)
    late = await refused(turned.bare.Hidden(turned.ask(), timeout=5, metadata=shown(None, identity)))

    assert outside.code() is grpc.StatusCode.UNIMPLEMENTED
    assert {error.code() for error in (context_added, elsewhere, late)} == {grpc.StatusCode.UNAUTHENTICATED}
    assert turned.servicer.calls == 1


async def test_callers_from_outside_need_no_service_identity(start: Any) -> None:
    async with start(Identities({"lk_bob": BOB})) as probe:
        await probe.bare.Read(probe.ask(), timeout=5, metadata=(("authorization", "Bearer lk_bob"),))
        known = probe.servicer.seen
        await probe.bare.Read(probe.ask(), timeout=5)

        assert (known.actor, known.caller) == (BOB, "")
        assert probe.servicer.seen.actor.organization_id == DEFAULT_ORGANIZATION
