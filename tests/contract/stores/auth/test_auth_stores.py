"""One suite over every implementation of auth's storage."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from letta.auth.v1.api_key_pb2 import APIKey
from letta.auth.v1.credential_service_pb2 import SigningKey
from letta.auth.v1.organization_pb2 import Organization
from letta.auth.v1.user_pb2 import User
from letta_auth.domain.api_keys import KeptKey
from letta_auth.domain.audit import AuditEntry, broken_at
from letta_auth.domain.organizations import Organizations
from letta_auth.domain.scopes import ADMIN
from letta_auth.domain.signing_keys import KeyPair
from letta_auth.store.database import SqlAuthDatabase
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.errors import APIKeyNotFound, CursorNotFound, OrganizationNotFound, UserNotFound
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_postgres.db import Database
from letta_rpc.verdicts import scopes_of
from tests.fakes.auth.database import FakeAuthDatabase

START = datetime(2026, 1, 1, 12, 0, 0, 123456, tzinfo=UTC)
ASCENDING = Page(ascending=True)


@pytest.fixture(params=["fake", "sql"])
async def db(request):
    if request.param == "fake":
        yield FakeAuthDatabase()
        return
    database = await Database.open(request.getfixturevalue("database_url"), schema="auth")
    await database.hot(
        "truncate auth.organizations, auth.users, auth.api_keys, auth.signing_keys, auth.audit_log cascade"
    )
    yield SqlAuthDatabase(database)
    await database.close()


def organization(number=0):
    at = START + timedelta(minutes=number)
    name, privileged = f"organization {number}", number % 2 == 1
    return Organization(id=f"org-{number}", name=name, privileged_tools=privileged, created_at=at, updated_at=at)


def user(number=0, organization_id="org-0"):
    at = START + timedelta(minutes=number)
    id_, name = f"user-{number}", f"user {number}"
    return User(id=id_, organization_id=organization_id, name=name, created_at=at, updated_at=at)


def key(number=0, organization_id="org-0", user_id="user-0", **more):
    at = START + timedelta(minutes=number)
    development = more.pop("development", False)
    owner = {"organization_id": organization_id, "user_id": user_id, "created_by_id": "user-0"}
    made = APIKey(
        id=f"api_key-{number}", name="ci", created_at=at, **{"scopes": scopes_of(["read", "write"]), **owner, **more}
    )
    return KeptKey(made, b"\x00h", development)


def changed(message, **values):
    """Return a message with some fields of other values."""
    copy = type(message)()
    copy.CopyFrom(message)
    copy.MergeFrom(type(message)(**values))
    return copy


async def fill(db):
    """Keep two organizations with a user each."""
    async with db.begin() as tx:
        for number in range(2):
            await tx.organizations.create(organization(number))
            await tx.users.create(user(number, f"org-{number}"))


async def test_what_was_added_is_found(db):
    await fill(db)
    wanted = key(1, expires_at=START + timedelta(days=1))
    async with db.begin() as tx:
        await tx.api_keys.create(wanted)
    async with db.read() as tx:
        assert await tx.organizations.get("org-1") == organization(1)
        assert await tx.users.get("user-1") == user(1, "org-1")
        assert await tx.api_keys.get("api_key-1") == wanted.key
        assert await tx.api_keys.find_usable("api_key-1") == wanted


async def test_what_does_not_exist_is_missing(db):
    async with db.read() as tx:
        with pytest.raises(OrganizationNotFound):
            await tx.organizations.get("org-none")
        with pytest.raises(UserNotFound):
            await tx.users.get("user-none")
        with pytest.raises(APIKeyNotFound):
            await tx.api_keys.get("api_key-none")
        assert await tx.api_keys.find_usable("api_key-none") is None
    async with db.begin() as tx:
        with pytest.raises(OrganizationNotFound):
            await tx.organizations.update(organization())
        with pytest.raises(UserNotFound):
            await tx.users.update(user())


async def test_changes_of_an_organization_at_the_same_time_all_stay(db):
    await fill(db)
    house, admin = Organizations(db, SystemClock()), Actor("org-0", "user-0", frozenset({ADMIN}))
    for number in range(10):
        privileged = number % 2 == 0
        await asyncio.gather(
            house.update(admin, "org-0", {"name": f"name {number}"}),
            house.update(admin, "org-0", {"privileged_tools": privileged}),
        )
        found = await house.get(admin, "org-0")
        assert (found.name, found.privileged_tools) == (f"name {number}", privileged)


async def test_a_block_that_raises_changes_nothing(db):
    with pytest.raises(ZeroDivisionError):  # noqa: PT012 the block is what is tested
        async with db.begin() as tx:
            await tx.organizations.create(organization())
            raise ZeroDivisionError
    async with db.read() as tx:
        assert await tx.organizations.list_organizations(Page()) == []


async def test_replace_writes(db):
    await fill(db)
    later = START + timedelta(days=1)
    async with db.begin() as tx:
        await tx.organizations.update(changed(organization(), name="new", privileged_tools=True, updated_at=later))
        await tx.users.update(changed(user(), name="new", updated_at=later))
    async with db.read() as tx:
        found = await tx.organizations.get("org-0")
        assert (found.name, found.privileged_tools, time_of(found.updated_at)) == ("new", True, later)
        assert (await tx.users.get("user-0")).name == "new"


async def test_removed_ones_are_gone_until_they_are_ensured(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.users.update(changed(user(), is_deleted=True))
        await tx.organizations.delete("org-1", START)
    async with db.read() as tx:
        assert await tx.users.list_users(ASCENDING) == []
        assert [each.id for each in await tx.organizations.list_organizations(ASCENDING)] == ["org-0"]
        with pytest.raises(UserNotFound):
            await tx.users.get("user-1")
    async with db.begin() as tx:
        await tx.users.ensure(changed(user(), name="not this"))
        await tx.organizations.ensure(organization(1))
        await tx.organizations.ensure(organization(2))
    async with db.read() as tx:
        assert [each.name for each in await tx.users.list_users(ASCENDING)] == ["user 0", "user 1"]
        assert len(await tx.organizations.list_organizations(ASCENDING)) == 3


async def test_lists_are_paged(db):
    async with db.begin() as tx:
        for number in range(5):
            await tx.organizations.create(organization(number))
            await tx.users.create(user(number, f"org-{number % 2}"))
        for number in range(5):
            await tx.api_keys.create(key(number, f"org-{number % 2}", f"user-{number % 2}"))
    async with db.read() as tx:
        assert _ids(await tx.organizations.list_organizations(Page(2))) == ["org-4", "org-3"]
        assert _ids(await tx.organizations.list_organizations(Page(2, ascending=True, after="org-1"))) == [
            "org-2",
            "org-3",
        ]
        assert _ids(await tx.users.list_users(Page(2, ascending=True, before="user-3"))) == ["user-1", "user-2"]
        assert _ids(await tx.users.list_users(ASCENDING, "org-1")) == ["user-1", "user-3"]
        assert _ids(await tx.api_keys.list_keys(Page(2, after="api_key-4"), "org-0")) == ["api_key-2", "api_key-0"]
        assert _ids(await tx.api_keys.list_keys(ASCENDING, "", "user-1")) == ["api_key-1", "api_key-3"]
        assert _ids(await tx.api_keys.list_keys(ASCENDING, "org-0", "user-1")) == []
        for unknown in (
            tx.organizations.list_organizations(Page(after="org-none")),
            tx.users.list_users(Page(after="user-none")),
            tx.api_keys.list_keys(Page(after="api_key-none"), "org-0"),
        ):
            with pytest.raises(CursorNotFound):
                await unknown


def _ids(items):
    return [item.id for item in items]


async def test_a_key_is_confined_to_its_organization(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.api_keys.create(key())
    async with db.read() as tx:
        assert (await tx.api_keys.get("api_key-0", "org-0")).id == "api_key-0"
        with pytest.raises(APIKeyNotFound):
            await tx.api_keys.get("api_key-0", "org-1")


async def test_use_and_revocation_of_a_key(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.api_keys.create(key())
        await tx.api_keys.touch("api_key-0", START)
        assert (await tx.api_keys.get("api_key-0")).last_used_at == Timestamp(
            seconds=int(START.timestamp()), nanos=123_456_000
        )
        await tx.api_keys.revoke("api_key-0", START)
        with pytest.raises(APIKeyNotFound):
            await tx.api_keys.get("api_key-0")
        assert await tx.api_keys.find_usable("api_key-0") is None
        assert await tx.api_keys.list_keys(Page()) == []


@pytest.mark.parametrize("what", ["users", "organizations"])
async def test_a_key_without_its_owner_is_not_usable(db, what):
    await fill(db)
    async with db.begin() as tx:
        await tx.api_keys.create(key())
        if what == "users":
            await tx.users.update(changed(user(), is_deleted=True))
        else:
            await tx.organizations.delete("org-0", START)
    async with db.read() as tx:
        assert await tx.api_keys.find_usable("api_key-0") is None


async def test_administrators_keys_are_counted_while_they_are_valid(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.api_keys.create(key())
        await tx.api_keys.create(key(2, scopes=scopes_of(["admin"]), development=True))
        assert (await tx.api_keys.find_usable("api_key-2")).development is True
        assert await tx.api_keys.has_admin() is False
        await tx.api_keys.create(key(1, scopes=scopes_of(["admin", "read"])))
        assert await tx.api_keys.has_admin() is True
        await tx.api_keys.revoke("api_key-1", START)
        assert await tx.api_keys.has_admin() is False


async def test_signing_keys_retire(db):
    made = [
        SigningKey(id=f"signing_key-{n}", public_key=b"\x00p", created_at=START + timedelta(days=n)) for n in range(3)
    ]
    keys = [KeyPair(each, b"\xffs") for each in made]
    async with db.begin() as tx:
        for each in keys:
            await tx.signing_keys.create(each)
        await tx.signing_keys.retire(START + timedelta(days=1), START + timedelta(days=5))
    async with db.read() as tx:
        assert await tx.signing_keys.list_active() == keys[2:]
        assert await tx.signing_keys.list_since(START + timedelta(days=4)) == made[::-1]
        assert await tx.signing_keys.list_since(START + timedelta(days=5)) == made[2:]


async def test_concurrent_changes_make_one_chain(db):
    await fill(db)

    async def act(number):
        async with db.begin() as tx:
            entry = AuditEntry("org-0", START + timedelta(seconds=number), "user-0", "test", f"t-{number}", "r")
            await tx.audit.append(entry)

    await asyncio.gather(*(act(number) for number in range(8)))
    async with db.read() as tx:
        chain = await tx.audit.list_entries("org-0")
        assert await tx.audit.list_entries("org-1") == []
    assert sorted(entry.target_id for entry, _ in chain) == [f"t-{number}" for number in range(8)]
    assert broken_at(chain) is None
