"""What every store of MCP servers and their authorizations does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_postgres.db import Database
from letta_tools.domain.mcp.oauth import AUTHORIZED, PENDING, OAuthSession
from letta_tools.domain.mcp.servers import SealedMCPServer
from letta_tools.store.mcp_oauth import SqlOAuthStore
from letta_tools.store.mcp_servers import SqlMCPServerStore
from tests.fakes.tools.oauth import FakeOAuthStore
from tests.fakes.tools.servers import FakeMCPServerStore
from tests.fakes.tools.stores import FakeToolStore

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
BOB = Actor("org-bob", "user-bob")


@pytest.fixture(params=["fake", "sql"])
async def stores(request, database_url):
    if request.param == "fake":
        yield FakeMCPServerStore(FakeToolStore()), FakeOAuthStore()
        return
    db = await Database.open(database_url, schema="tools")
    yield SqlMCPServerStore(db), SqlOAuthStore(db)
    await db.close()


@pytest.fixture
async def server(stores, ann):
    made = SealedMCPServer(new_id("mcp_server"), "demo", "sse", "{}", b"sealed", created_at=BEGIN, updated_at=BEGIN)
    assert await stores[0].create(ann, made)
    return made


def attempt(server, **values):
    session = OAuthSession(
        new_id("mcp-oauth"), server.id, b"hash", PENDING, None, "user-ann", BEGIN, BEGIN + timedelta(minutes=5)
    )
    return replace(session, **values)


async def test_servers_have_names(stores, ann, server):
    assert await stores[0].find_named(ann, "demo") == server
    assert await stores[0].find_named(ann, "other") is None
    assert await stores[0].find_named(BOB, "demo") is None


async def test_an_attempt_takes_the_place_of_those_before(stores, ann, server):
    first, second = attempt(server), attempt(server)
    await stores[1].begin(ann, first)
    await stores[1].begin(ann, second)

    assert await stores[1].find(ann, first.id) is None
    assert await stores[1].find(ann, second.id) == second
    assert await stores[1].find(BOB, second.id) is None


async def test_an_attempt_is_answered_once_and_in_time(stores, ann, server):
    session = attempt(server)
    await stores[1].begin(ann, session)
    late = session.expires_at

    assert not await stores[1].settle(BOB, session.id, AUTHORIZED, b"theirs", BEGIN)
    assert not await stores[1].settle(ann, session.id, AUTHORIZED, b"late", late)
    assert await stores[1].settle(ann, session.id, AUTHORIZED, b"first", BEGIN)
    assert not await stores[1].settle(ann, session.id, AUTHORIZED, b"second", BEGIN)
    assert await stores[1].find(ann, session.id) == replace(session, status=AUTHORIZED, answer=b"first")


async def test_the_last_grant_of_a_server_is_kept(stores, ann, server):
    assert await stores[1].find_grant(ann, server.id) is None
    await stores[1].put_grant(ann, server.id, b"one", BEGIN)
    await stores[1].put_grant(ann, server.id, b"two", BEGIN)

    assert await stores[1].find_grant(ann, server.id) == b"two"
    assert await stores[1].find_grant(BOB, server.id) is None


async def test_what_was_granted_goes_with_the_server(database_url, ann):
    db = await Database.open(database_url, schema="tools")
    try:
        servers, oauth = SqlMCPServerStore(db), SqlOAuthStore(db)
        made = SealedMCPServer(new_id("mcp_server"), "gone", "sse", "{}", b"sealed", created_at=BEGIN, updated_at=BEGIN)
        await servers.create(ann, made)
        session = attempt(made)
        await oauth.begin(ann, session)
        await oauth.put_grant(ann, made.id, b"grant", BEGIN)

        await servers.delete(ann, made.id)

        assert await oauth.find_grant(ann, made.id) is None
        assert await oauth.find(ann, session.id) is None
    finally:
        await db.close()
