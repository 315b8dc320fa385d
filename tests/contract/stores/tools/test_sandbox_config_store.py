"""What every store of sandbox configurations does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_postgres.db import Database
from letta_tools.domain.executions.sandbox_configs import EnvironmentVariable, KeyTaken, SandboxConfig
from letta_tools.store.sandbox_configs import SqlSandboxConfigStore
from tests.fakes.tools.configs import FakeSandboxConfigStore

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["fake", "sql"])
async def store(request, database_url):
    if request.param == "fake":
        yield FakeSandboxConfigStore()
        return
    db = await Database.open(database_url, schema="tools")
    yield SqlSandboxConfigStore(db)
    await db.close()


def a_config(kind="local", minute=0, **values):
    at = BEGIN + timedelta(minutes=minute)
    return SandboxConfig(new_id("sandbox"), kind, "{}", "user-ann", "user-ann", created_at=at, updated_at=at, **values)


def a_variable(config, key, minute=0, value=b"v"):
    at = BEGIN + timedelta(minutes=minute)
    id = new_id("sandbox-env")
    return EnvironmentVariable(id, config.id, key, value, "why", "user-ann", "user-ann", at, at)


async def test_there_is_one_configuration_of_a_type(store, ann):
    first = await store.put(ann, a_config())
    second = await store.put(ann, replace(a_config(minute=1), config='{"a":1}', last_updated_by_id="user-bob"))

    assert (second.id, second.config, second.version) == (first.id, '{"a":1}', 2)
    assert (second.created_at, second.updated_at) == (first.created_at, BEGIN + timedelta(minutes=1))
    assert (second.created_by_id, second.last_updated_by_id) == ("user-ann", "user-bob")
    assert await store.find(ann, first.id) == second


async def test_configurations_are_listed_and_removed(store, ann):
    local = await store.put(ann, a_config("local", 0))
    modal = await store.put(ann, a_config("modal", 1))

    assert await store.list_configs(ann, "", Page()) == [modal, local]
    assert await store.list_configs(ann, "local", Page()) == [local]
    assert await store.list_configs(ann, "", Page(after=modal.id)) == [local]
    await store.put_variable(ann, a_variable(local, "A"))
    assert await store.delete(ann, local.id)
    assert not await store.delete(ann, local.id)
    assert await store.find(ann, local.id) is None
    assert await store.list_values(ann, "local") == []


async def test_another_organization_sees_nothing(store, ann):
    config = await store.put(ann, a_config())
    variable = await store.put_variable(ann, a_variable(config, "A"))
    bob = Actor(new_id("org"), "user-bob")

    assert await store.find(bob, config.id) is None
    assert await store.list_configs(bob, "", Page()) == []
    assert not await store.delete(bob, config.id)
    assert await store.find_variable(bob, variable.id) is None
    assert await store.list_variables(bob, config.id, Page()) == []
    assert not await store.update_variable(bob, variable)
    assert not await store.delete_variable(bob, variable.id)
    assert await store.list_values(bob, "local") == []


async def test_variables(store, ann):
    config = await store.put(ann, a_config())
    other = await store.put(ann, a_config("e2b"))
    a = await store.put_variable(ann, a_variable(config, "A", 0))
    b = await store.put_variable(ann, a_variable(config, "B", 1))
    await store.put_variable(ann, a_variable(other, "C"))

    assert await store.list_variables(ann, config.id, Page()) == [b, a]
    again = await store.put_variable(ann, a_variable(config, "A", 2, b"new"))
    assert (again.id, again.value, again.created_at) == (a.id, b"new", a.created_at)
    assert sorted(await store.list_values(ann, "local")) == [(config.id, "A", b"new"), (config.id, "B", b"v")]
    with pytest.raises(KeyTaken):
        await store.update_variable(ann, replace(b, key="A"))
    assert await store.update_variable(ann, replace(b, key="D", description=None))
    assert await store.find_variable(ann, b.id) == replace(b, key="D", description=None)
    assert await store.delete_variable(ann, b.id)
    assert not await store.delete_variable(ann, b.id)
