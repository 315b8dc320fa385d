"""One suite over every implementation of auth's storage."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta_auth.domain.api_keys import APIKey
from letta_auth.domain.audit import AuditEntry, broken_at
from letta_auth.domain.organizations import Organization
from letta_auth.domain.signing_keys import SigningKey
from letta_auth.domain.users import User
from letta_auth.store.database import SqlAuthDatabase
from letta_common.errors import APIKeyNotFound, CursorNotFound, OrganizationNotFound, UserNotFound
from letta_common.values.paging import Page
from letta_postgres.db import Database
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
    return Organization(f"org-{number}", f"organization {number}", number % 2 == 1, at, at)


def user(number=0, organization_id="org-0"):
    at = START + timedelta(minutes=number)
    return User(f"user-{number}", organization_id, f"user {number}", at, at)


def key(number=0, organization_id="org-0", user_id="user-0", **more):
    at = START + timedelta(minutes=number)
    scopes = more.pop("scopes", frozenset({"write", "read"}))
    return APIKey(f"api_key-{number}", organization_id, user_id, "ci", b"\x00h", scopes, at, "user-0", **more)


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
        assert await tx.api_keys.get("api_key-1") == wanted
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
        await tx.organizations.update(replace(organization(), name="new", privileged_tools=True, updated_at=later))
        await tx.users.update(replace(user(), name="new", updated_at=later))
    async with db.read() as tx:
        found = await tx.organizations.get("org-0")
        assert (found.name, found.privileged_tools, found.updated_at) == ("new", True, later)
        assert (await tx.users.get("user-0")).name == "new"


async def test_removed_ones_are_gone_until_they_are_ensured(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.users.update(replace(user(), is_deleted=True))
        await tx.organizations.update(replace(organization(1), is_deleted=True))
    async with db.read() as tx:
        assert await tx.users.list_users(ASCENDING) == []
        assert [each.id for each in await tx.organizations.list_organizations(ASCENDING)] == ["org-0"]
        with pytest.raises(UserNotFound):
            await tx.users.get("user-1")
    async with db.begin() as tx:
        await tx.users.ensure(replace(user(), name="not this"))
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
        assert (await tx.api_keys.get("api_key-0")).last_used_at == START
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
        gone = {"users": user(), "organizations": organization()}[what]
        await getattr(tx, what).update(replace(gone, is_deleted=True))
    async with db.read() as tx:
        assert await tx.api_keys.find_usable("api_key-0") is None


async def test_administrators_keys_are_counted_while_they_are_valid(db):
    await fill(db)
    async with db.begin() as tx:
        await tx.api_keys.create(key())
        await tx.api_keys.create(key(2, scopes=frozenset({"admin"}), development=True))
        assert (await tx.api_keys.get("api_key-2")).development is True
        assert await tx.api_keys.has_admin() is False
        await tx.api_keys.create(key(1, scopes=frozenset({"admin", "read"})))
        assert await tx.api_keys.has_admin() is True
        await tx.api_keys.revoke("api_key-1", START)
        assert await tx.api_keys.has_admin() is False


async def test_signing_keys_retire(db):
    keys = [SigningKey(f"signing_key-{n}", b"\x00p", b"\xffs", START + timedelta(days=n)) for n in range(3)]
    async with db.begin() as tx:
        for each in keys:
            await tx.signing_keys.create(each)
        await tx.signing_keys.retire(START + timedelta(days=1), START + timedelta(days=5))
    async with db.read() as tx:
        assert await tx.signing_keys.list_active() == keys[2:]
        assert await tx.signing_keys.list_since(START + timedelta(days=4)) == keys[::-1]
        assert await tx.signing_keys.list_since(START + timedelta(days=5)) == keys[2:]


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
