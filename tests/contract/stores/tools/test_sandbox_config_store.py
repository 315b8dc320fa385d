"""What every store of sandbox configurations does."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from letta.compat.tools.v1.sandbox_pb2 import SandboxLanguage
from letta.tools.v1.sandbox_config_pb2 import (
    E2bSandboxConfig,
    LocalSandboxConfig,
    ModalSandboxConfig,
    NamedPackage,
    SandboxConfig,
    SandboxEnvironmentVariable,
    SandboxPackage,
    SandboxPackages,
    SandboxSettings,
    SandboxType,
)
from letta_common.actor import Actor
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_common.values.times import time_of
from letta_postgres.db import Database
from letta_tools.domain.executions.sandbox_configs import E2B, LOCAL, MASK, MODAL, KeyTaken
from letta_tools.store.sandbox_configs import SqlSandboxConfigStore
from tests.fakes.tools.configs import FakeSandboxConfigStore

ANY = SandboxType.SANDBOX_TYPE_UNSPECIFIED
SETTINGS = {
    LOCAL: SandboxSettings(local=LocalSandboxConfig()),
    E2B: SandboxSettings(e2b=E2bSandboxConfig()),
    MODAL: SandboxSettings(modal=ModalSandboxConfig()),
}
PACKAGES = SandboxPackages(
    packages=[
        SandboxPackage(specifier="numpy>=2"),
        SandboxPackage(named=NamedPackage(name="six")),
        SandboxPackage(named=NamedPackage(name="x", version="1")),
    ]
)
FULL = {
    LOCAL: SandboxSettings(local=LocalSandboxConfig(pip_requirements=PACKAGES, egress_hosts={"hosts": ["a.org", "*"]})),
    E2B: SandboxSettings(e2b={"timeout": Duration(seconds=7), "template": "t", "pip_requirements": PACKAGES}),
    MODAL: SandboxSettings(
        modal={
            "timeout": Duration(seconds=9),
            "pip_requirements": SandboxPackages(),
            "npm_requirements": PACKAGES,
            "compat": {"language": SandboxLanguage.SANDBOX_LANGUAGE_TYPESCRIPT},
        }
    ),
}
BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["fake", "sql"])
async def store(request, database_url):
    if request.param == "fake":
        yield FakeSandboxConfigStore()
        return
    db = await Database.open(database_url, schema="tools")
    yield SqlSandboxConfigStore(db)
    await db.close()


def hosts(*names):
    return SandboxSettings(local={"egress_hosts": {"hosts": names}})


def a_config(kind=LOCAL, minute=0, **values):
    at = BEGIN + timedelta(minutes=minute)
    given = {"created_by_id": "user-ann", "last_updated_by_id": "user-ann", "config": SETTINGS[kind], **values}
    return SandboxConfig(id=new_id("sandbox"), type=kind, created_at=at, updated_at=at, version=1, **given)


def a_variable(config, key, minute=0):
    at = BEGIN + timedelta(minutes=minute)
    given = {"description": "why", "created_by_id": "user-ann", "last_updated_by_id": "user-ann"}
    id_ = new_id("sandbox-env")
    return SandboxEnvironmentVariable(
        id=id_, sandbox_config_id=config.id, key=key, created_at=at, updated_at=at, **given
    )


@pytest.mark.parametrize("kind", list(FULL))
async def test_every_setting_comes_back(store, ann, kind):
    given = FULL[kind]
    config = await store.put(ann, a_config(kind, config=given))

    assert {field.name for field, _ in getattr(given, given.WhichOneof("kind")).ListFields()} == {
        field.name for field in getattr(given, given.WhichOneof("kind")).DESCRIPTOR.fields
    }
    assert (await store.find(ann, config.id)).config == given


async def test_there_is_one_configuration_of_a_type(store, ann):
    first = await store.put(ann, a_config())
    second = await store.put(ann, a_config(minute=1, config=hosts("one"), last_updated_by_id="user-bob"))

    assert (second.id, second.config, second.organization_id) == (first.id, hosts("one"), ann.organization_id)
    assert (second.created_at, time_of(second.updated_at)) == (first.created_at, BEGIN + timedelta(minutes=1))
    assert (second.created_by_id, second.last_updated_by_id) == ("user-ann", "user-bob")
    assert await store.find(ann, first.id) == second


async def test_settings_are_replaced_only_while_they_are_the_expected_ones(store, ann):
    first = await store.put(ann, a_config(config=hosts("one")))
    await store.put(ann, a_config(E2B, config=SETTINGS[E2B]))
    changed = a_config(minute=1, config=hosts("two"), last_updated_by_id="user-bob")

    assert await store.update(ann, changed, expected=2) is None
    assert await store.find(ann, first.id) == first
    written = await store.update(ann, changed, expected=1)
    assert (written.id, written.config, written.created_at) == (first.id, hosts("two"), first.created_at)
    assert (written.created_by_id, written.last_updated_by_id) == ("user-ann", "user-bob")
    assert await store.find(ann, first.id) == written


async def test_what_is_there_stays_when_defaults_are_added(store, ann):
    added = await store.create(ann, a_config(config=SETTINGS[LOCAL]))
    written = await store.put(ann, a_config(minute=1, config=hosts("one"), last_updated_by_id="user-bob"))
    found = await store.create(ann, a_config(minute=2, config=SETTINGS[LOCAL]))

    assert (added.config, written.id) == (SETTINGS[LOCAL], added.id)
    assert found == written
    assert await store.list_configs(ann, ANY, Page()) == [written]


async def test_configurations_are_listed_and_removed(store, ann):
    local = await store.put(ann, a_config(LOCAL, 0))
    modal = await store.put(ann, a_config(MODAL, 1))

    assert await store.list_configs(ann, ANY, Page()) == [modal, local]
    assert await store.list_configs(ann, LOCAL, Page()) == [local]
    assert await store.list_configs(ann, ANY, Page(after=modal.id)) == [local]
    await store.put_variable(ann, a_variable(local, "A"), b"v")
    assert await store.delete(ann, local.id)
    assert not await store.delete(ann, local.id)
    assert await store.find(ann, local.id) is None
    assert await store.find_kept(ann, LOCAL) is None


async def test_another_organization_sees_nothing(store, ann):
    config = await store.put(ann, a_config())
    variable = await store.put_variable(ann, a_variable(config, "A"), b"v")
    bob = Actor(new_id("org"), "user-bob")

    assert await store.find(bob, config.id) is None
    assert await store.list_configs(bob, ANY, Page()) == []
    assert not await store.delete(bob, config.id)
    assert await store.find_variable(bob, variable.id) is None
    assert await store.list_variables(bob, config.id, Page()) == []
    assert not await store.update_variable(bob, variable, b"x")
    assert not await store.delete_variable(bob, variable.id)
    assert await store.find_kept(bob, LOCAL) is None


async def test_variables(store, ann):
    config = await store.put(ann, a_config())
    other = await store.put(ann, a_config(E2B))
    assert await store.find_kept(ann, E2B) == (other.id, other.config, {})
    a = await store.put_variable(ann, a_variable(config, "A", 0), b"v")
    b = await store.put_variable(ann, a_variable(config, "B", 1), b"v")
    await store.put_variable(ann, a_variable(other, "C"), b"v")

    assert await store.list_variables(ann, config.id, Page()) == [b, a]
    again = await store.put_variable(ann, a_variable(config, "A", 2), b"new")
    assert (again.id, again.value, again.created_at) == (a.id, MASK, a.created_at)
    assert await store.find_kept(ann, LOCAL) == (config.id, config.config, {"A": b"new", "B": b"v"})
    taken, sealed = await store.find_variable(ann, b.id)
    taken.key = "A"
    with pytest.raises(KeyTaken):
        await store.update_variable(ann, taken, sealed)
    b.key = "D"
    b.ClearField("description")
    assert await store.update_variable(ann, b, b"other")
    assert await store.find_variable(ann, b.id) == (b, b"other")
    assert await store.delete_variable(ann, b.id)
    assert not await store.delete_variable(ann, b.id)
