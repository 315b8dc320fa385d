"""The rules of auth, on its in-memory store."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta.common.v1 import actor_pb2
from letta_auth.domain.api_keys import APIKeys, Pepper, key_id_of
from letta_auth.domain.audit import broken_at
from letta_auth.domain.bootstrap import DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, Bootstrap
from letta_auth.domain.credentials import Credentials
from letta_auth.domain.organizations import Organizations
from letta_auth.domain.signing_keys import SigningKeys
from letta_auth.domain.users import Users
from letta_common.actor import Actor
from letta_common.errors import (
    APIKeyNotFound,
    InvalidArgument,
    OperationUnimplemented,
    OrganizationNotFound,
    PermissionDenied,
    Unauthenticated,
    UserNotFound,
)
from letta_common.sealing import Sealer
from letta_common.values.paging import Page
from letta_common.values.times import stamp_of
from letta_rpc.verdicts import SignatureVerifier, scopes_of
from tests.fakes.auth.database import FakeAuthDatabase

ROOT = Actor(DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, frozenset({"admin"}))
SECRET = b"the secret of a cluster"


class HandClock:
    """A clock that is turned by hand."""

    def __init__(self):
        self.at = datetime(2026, 1, 1, tzinfo=UTC)

    def now(self):
        return self.at

    def monotonic_ns(self):
        return int(self.at.timestamp() * 1e9)

    def turn(self, **by):
        self.at += timedelta(**by)


class House:
    """All of auth's domain around one store."""

    def __init__(self, *, dev_mode=False, secret=SECRET, db=None, clock=None):
        self.db, self.clock = db or FakeAuthDatabase(), clock or HandClock()
        pepper = Pepper(secret)
        self.keys = SigningKeys(self.db, Sealer([secret]), self.clock, audience="here", max_age=timedelta(days=90))
        self.credentials = Credentials(self.db, self.keys, pepper, self.clock, dev_mode=dev_mode)
        self.api_keys = APIKeys(self.db, pepper, self.clock, dev_mode=dev_mode)
        self.organizations = Organizations(self.db, self.clock)
        self.users = Users(self.db, self.clock)
        self.bootstrap = Bootstrap(self.db, pepper, self.clock)
        self.verifier = SignatureVerifier(self, "here", self.clock)

    async def public_key(self, key_id):
        return {key.id: key.public_key for key in await self.keys.listed()}.get(key_id)


@pytest.fixture
async def house():
    house = House()
    await house.bootstrap.ensure_defaults()
    return house


async def tenant(house, name="acme"):
    """Make an organization with a user that holds every scope but `admin`."""
    organization = await house.organizations.create(ROOT, name)
    user = await house.users.create(ROOT, "ann", organization.id)
    return Actor(organization.id, user.id, frozenset({"read", "write", "keys"}))


async def test_a_key_opens_its_organization(house):
    ann = await tenant(house)
    key, secret = await house.api_keys.create(ann, "ci")
    verdict = await house.verifier.verify(await house.credentials.exchange(secret))
    assert verdict.actor == Actor(ann.organization_id, ann.user_id, frozenset({"read", "write"}))
    assert key_id_of(secret) == key.id
    assert secret.startswith("lk_")
    async with house.db.read() as tx:
        kept = await tx.api_keys.find_usable(key.id)
    assert secret.encode() not in kept.secret_hash


async def test_a_context_lasts_a_minute(house):
    _, secret = await house.api_keys.create(await tenant(house), "ci")
    signed = await house.credentials.exchange(secret)
    house.clock.turn(seconds=59)
    await house.verifier.verify(signed)
    house.clock.turn(seconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        await house.verifier.verify(signed)


@pytest.mark.parametrize(
    "spoil", ["", "nonsense", "lk_", "lk_x_y", "lk_{id}_" + "0" * 64, "lk_" + "0" * 32 + "_" + "0" * 64]
)
async def test_a_wrong_secret_is_refused(house, spoil):
    _, secret = await house.api_keys.create(await tenant(house), "ci")
    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        await house.credentials.exchange(spoil.format(id=secret.split("_")[1]))


async def test_keys_made_in_dev_mode_end_with_it(house):
    dev = House(dev_mode=True, db=house.db, clock=house.clock)
    _, made = await dev.api_keys.create(ROOT, "of a page", scopes=["admin"])
    _, real = await house.api_keys.create(ROOT, "of an operator", scopes=["admin"])

    for secret in (made, real):
        await dev.credentials.exchange(secret)
    await house.credentials.exchange(real)
    with pytest.raises(Unauthenticated, match="unknown, expired or revoked"):
        await house.credentials.exchange(made)


async def test_the_first_administrator_is_not_one_of_dev_mode(house):
    dev = House(dev_mode=True, db=house.db, clock=house.clock)
    await dev.api_keys.create(ROOT, "of a page", scopes=["admin"])

    assert await house.bootstrap.admin_key() is not None
    assert await house.bootstrap.admin_key() is None


async def test_an_expired_key_is_refused(house):
    ends = house.clock.now() + timedelta(hours=1)
    _, secret = await house.api_keys.create(await tenant(house), "ci", expires_at=ends)
    await house.credentials.exchange(secret)
    house.clock.turn(hours=1)
    with pytest.raises(Unauthenticated):
        await house.credentials.exchange(secret)


async def test_no_context_outlives_its_key(house):
    ends = house.clock.now() + timedelta(seconds=20)
    _, secret = await house.api_keys.create(await tenant(house), "ci", expires_at=ends)
    signed = await house.credentials.exchange(secret)
    house.clock.turn(seconds=19)
    await house.verifier.verify(signed)
    house.clock.turn(seconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        await house.verifier.verify(signed)


@pytest.mark.parametrize("stronger", [{"write"}, {"read", "write", "keys"}, {"admin"}])
async def test_nobody_revokes_a_key_that_may_do_more(house, stronger):
    ann = await tenant(house)
    root = Actor(ann.organization_id, ann.user_id, frozenset({"admin"}))
    strong, secret = await house.api_keys.create(root, "strong", scopes=stronger)
    weak = Actor(ann.organization_id, ann.user_id, frozenset({"read", "keys"}))
    with pytest.raises(PermissionDenied, match="lacks"):
        await house.api_keys.revoke(weak, strong.id)
    assert (await house.verifier.verify(await house.credentials.exchange(secret))).actor.scopes == stronger
    equal, _ = await house.api_keys.create(root, "equal", scopes={"read", "keys"})
    await house.api_keys.revoke(weak, equal.id)
    await house.api_keys.revoke(root, strong.id)


async def test_a_revoked_key_is_refused_and_gone(house):
    ann = await tenant(house)
    key, secret = await house.api_keys.create(ann, "ci")
    await house.api_keys.revoke(ann, key.id)
    with pytest.raises(Unauthenticated):
        await house.credentials.exchange(secret)
    with pytest.raises(APIKeyNotFound):
        await house.api_keys.get(ann, key.id)
    with pytest.raises(APIKeyNotFound):
        await house.api_keys.revoke(ann, key.id)


async def test_removing_the_user_or_the_organization_ends_its_keys(house):
    ann, bob = await tenant(house), await tenant(house, "other")
    _, of_ann = await house.api_keys.create(ann, "ci")
    _, of_bob = await house.api_keys.create(bob, "ci")
    await house.users.delete(ROOT, ann.user_id)
    await house.organizations.delete(ROOT, bob.organization_id)
    for secret in (of_ann, of_bob):
        with pytest.raises(Unauthenticated):
            await house.credentials.exchange(secret)


async def test_use_is_written_down_once_a_minute(house):
    ann = await tenant(house)
    key, secret = await house.api_keys.create(ann, "ci")
    first = house.clock.now()
    await house.credentials.exchange(secret)
    house.clock.turn(seconds=30)
    await house.credentials.exchange(secret)
    assert (await house.api_keys.get(ann, key.id)).last_used_at == stamp_of(first)
    house.clock.turn(seconds=30)
    await house.credentials.exchange(secret)
    assert (await house.api_keys.get(ann, key.id)).last_used_at == stamp_of(house.clock.now())


async def test_nobody_grants_what_he_lacks(house):
    ann = await tenant(house)
    with pytest.raises(PermissionDenied, match="admin"):
        await house.api_keys.create(ann, "more", scopes=["read", "admin"])
    key, _ = await house.api_keys.create(ann, "same", scopes=["keys"])
    assert list(key.scopes) == scopes_of(["keys"])
    with pytest.raises(PermissionDenied):
        await house.api_keys.create(replace(ann, scopes=frozenset({"read", "write"})), "none")


async def test_keys_of_another_organization_are_out_of_reach(house):
    ann, bob = await tenant(house), await tenant(house, "other")
    key, _ = await house.api_keys.create(ann, "ci")
    with pytest.raises(APIKeyNotFound):
        await house.api_keys.get(bob, key.id)
    with pytest.raises(APIKeyNotFound):
        await house.api_keys.revoke(bob, key.id)
    with pytest.raises(UserNotFound):
        await house.api_keys.create(bob, "as ann", user_id=ann.user_id)
    assert await house.api_keys.list(bob, Page()) == []
    assert await house.api_keys.list(bob, Page(), ann.user_id) == []
    assert (await house.api_keys.get(ROOT, key.id)) == key


async def test_an_administrator_makes_keys_for_any_organization(house):
    ann = await tenant(house)
    key, _ = await house.api_keys.create(ROOT, "first", user_id=ann.user_id, scopes=["read", "keys"])
    assert (key.organization_id, key.created_by_id) == (ann.organization_id, DEFAULT_USER_ID)
    assert await house.api_keys.list(ROOT, Page(), ann.user_id) == [key]


async def test_only_administrators_reach_the_directory(house):
    ann = await tenant(house)
    for refused in (
        house.organizations.create(ann, "x"),
        house.organizations.get(ann, ann.organization_id),
        house.organizations.list(ann, Page()),
        house.organizations.update(ann, ann.organization_id, {"name": "x"}),
        house.organizations.delete(ann, ann.organization_id),
        house.users.create(ann, "x", ann.organization_id),
        house.users.get(ann, ann.user_id),
        house.users.list(ann, Page()),
        house.users.update(ann, ann.user_id, {"name": "x"}),
        house.users.delete(ann, ann.user_id),
    ):
        with pytest.raises(PermissionDenied):
            await refused


async def test_a_user_needs_an_organization_and_stays_in_it(house):
    ann = await tenant(house)
    with pytest.raises(OrganizationNotFound):
        await house.users.create(ROOT, "bob", "org-none")
    with pytest.raises(InvalidArgument, match="cannot move"):
        await house.users.update(ROOT, ann.user_id, {"organization_id": DEFAULT_ORGANIZATION_ID})
    renamed = await house.users.update(ROOT, ann.user_id, {"name": "anna", "organization_id": ann.organization_id})
    assert renamed.name == "anna"


async def test_a_removed_organization_is_gone(house):
    ann = await tenant(house)
    gone = await house.organizations.delete(ROOT, ann.organization_id)
    assert gone.name == "acme"
    with pytest.raises(OrganizationNotFound):
        await house.organizations.delete(ROOT, ann.organization_id)
    with pytest.raises(OrganizationNotFound):
        await house.organizations.update(ROOT, ann.organization_id, {"name": "x"})
    with pytest.raises(UserNotFound):
        await house.users.get(ROOT, ann.user_id)


async def test_updates_leave_what_is_not_given(house):
    made = await house.organizations.create(ROOT, "acme", privileged_tools=True)
    assert (await house.organizations.update(ROOT, made.id, {"name": ""})).privileged_tools is True
    changed = await house.organizations.update(ROOT, made.id, {"privileged_tools": False})
    assert (changed.name, changed.privileged_tools) == ("", False)
    assert (await house.organizations.create(ROOT)).name.startswith("organization ")


async def test_dev_mode_knows_the_default_user():
    house = House(dev_mode=True)
    await house.bootstrap.ensure_defaults()
    ann = await tenant(house)
    everything = frozenset({"read", "write", "keys", "admin"})
    default = Actor(DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, everything)
    unknown = "user-11111111-0000-4000-8000-000000000000"
    for credential, user_id, expected in [
        ("", "", default),
        ("sk-whatever", "", default),
        ("a.b.c", "", default),
        ("", unknown, default),
        ("", ann.user_id, Actor(ann.organization_id, ann.user_id, everything)),
    ]:
        verdict = await house.verifier.verify(await house.credentials.exchange(credential, user_id))
        assert verdict.actor == expected
    with pytest.raises(InvalidArgument):
        await house.credentials.exchange("", "somebody")
    with pytest.raises(Unauthenticated):
        await house.credentials.exchange("lk_00000000000000000000000000000000_" + "0" * 64)


async def test_without_dev_mode_the_user_id_counts_for_nothing(house):
    with pytest.raises(Unauthenticated):
        await house.credentials.exchange("", DEFAULT_USER_ID)


async def test_web_tokens_are_announced_as_missing(house):
    with pytest.raises(OperationUnimplemented, match="API key"):
        await house.credentials.exchange("eyJhbGciOiJ.eyJzdWIi.c2lnbmF0dXJl")


async def test_a_run_gets_a_context_of_its_own(house):
    ann = await tenant(house)
    signed = await house.credentials.for_run(ann.organization_id, ann.user_id, "run-1")
    house.clock.turn(minutes=14)
    verdict = await house.verifier.verify(signed)
    assert (verdict.actor.user_id, verdict.actor.scopes, verdict.run_id) == (ann.user_id, {"read", "write"}, "run-1")
    with pytest.raises(Unauthenticated):
        await house.credentials.for_run(DEFAULT_ORGANIZATION_ID, ann.user_id, "run-1")
    await house.users.delete(ROOT, ann.user_id)
    with pytest.raises(Unauthenticated, match="removed"):
        await house.credentials.for_run(ann.organization_id, ann.user_id, "run-1")


async def test_replicas_share_a_signing_key(house):
    other = House(db=house.db, clock=house.clock)
    signed = [
        await each.credentials.for_run(DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, "run-1") for each in (house, other)
    ]
    assert len({actor_pb2.SignedActorContext.FromString(each).key_id for each in signed}) == 1
    assert len(await house.keys.listed()) == 1


async def test_an_old_signing_key_is_replaced_and_still_verifies(house):
    def sign():
        return house.credentials.for_run(DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, "run-1")

    await sign()
    house.clock.turn(days=89, hours=23, minutes=55)
    old = await sign()
    house.clock.turn(minutes=11)
    new = await sign()
    assert len(await house.keys.listed()) == 2
    for signed in (old, new):
        await house.verifier.verify(signed)
    house.clock.turn(days=1)
    assert len(await house.keys.listed()) == 1


async def test_another_encryption_key_means_another_signing_key(house):
    await house.keys.signer()
    other = House(secret=b"another", db=house.db, clock=house.clock)
    signed = await other.credentials.for_run(DEFAULT_ORGANIZATION_ID, DEFAULT_USER_ID, "run-1")
    await house.verifier.verify(signed)
    assert len(await other.keys.listed()) == 2


async def test_the_first_administrator_s_key_is_made_once():
    house = House()
    secret = await house.bootstrap.admin_key()
    verdict = await house.verifier.verify(await house.credentials.exchange(secret))
    assert "admin" in verdict.actor.scopes
    assert await house.bootstrap.admin_key() is None


async def test_changes_are_chained_in_the_audit_log(house):
    ann = await tenant(house)
    key, _ = await house.api_keys.create(ann, "ci")
    await house.api_keys.revoke(ann, key.id)
    await house.organizations.delete(ROOT, ann.organization_id)
    async with house.db.read() as tx:
        chain = await tx.audit.list_entries(ann.organization_id)
    assert [(entry.action, entry.actor_user_id) for entry, _ in chain] == [
        ("organization.create", DEFAULT_USER_ID),
        ("user.create", DEFAULT_USER_ID),
        ("api_key.create", ann.user_id),
        ("api_key.revoke", ann.user_id),
        ("organization.delete", DEFAULT_USER_ID),
    ]
    assert broken_at(chain) is None
    forged = [*chain[:1], (replace(chain[1][0], actor_user_id="user-x"), chain[1][1]), *chain[2:]]
    assert broken_at(forged) == 1
    assert broken_at(chain[:2] + chain[3:]) == 2
