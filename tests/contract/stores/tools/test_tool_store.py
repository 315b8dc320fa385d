"""What every store of tools does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from letta_common.actor import Actor
from letta_common.errors import CursorNotFound
from letta_common.values.ids import new_id
from letta_common.values.paging import Page
from letta_postgres.db import Database
from letta_tools.domain.registry.records import RegisteredTool, Requirement, ToolFilter, ToolSourceType, ToolType
from letta_tools.domain.registry.tools import NameTaken
from letta_tools.store.tools import SqlToolStore
from tests.fakes.tools.stores import FakeToolStore

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["fake", "sql"])
async def store(request, database_url):
    if request.param == "fake":
        yield FakeToolStore()
        return
    db = await Database.open(database_url, schema="tools")
    yield SqlToolStore(db)
    await db.close()


def a_tool(name, minute=0, **values):
    at = BEGIN + timedelta(minutes=minute)
    return RegisteredTool(id=new_id("tool"), name=name, json_schema="{}", created_at=at, updated_at=at, **values)


FULL = {
    "description": "Rolls dice.",
    "source_code": "def roll(): ...",
    "source_type": ToolSourceType.TYPESCRIPT,
    "args_json_schema": '{"properties":{}}',
    "tags": ("games", "chance"),
    "return_char_limit": 7,
    "pip_requirements": (Requirement("numpy", "2.0"), Requirement("requests")),
    "npm_requirements": (Requirement("left-pad"),),
    "default_requires_approval": False,
    "enable_parallel_execution": True,
    "idempotent": True,
    "metadata": '{"big":9007199254740993}',
    "project_id": "p",
    "created_by_id": "user-ann",
    "last_updated_by_id": "user-bob",
    "version": 3,
}


async def test_what_is_inserted_comes_back_whole(store, ann):
    tool = a_tool("roll", **FULL)
    await store.create(ann, tool)

    assert await store.find(ann, tool.id) == tool
    assert await store.resolve(ann, (), ("roll",)) == [tool]


async def test_another_organization_sees_nothing(store, ann):
    tool = a_tool("roll")
    await store.create(ann, tool)
    bob = Actor(new_id("org"), "user-bob")

    assert await store.find(bob, tool.id) is None
    assert await store.resolve(bob, (tool.id,), ("roll",)) == []
    assert await store.list_tools(bob, ToolFilter(), Page()) == []
    assert await store.count(bob, ToolFilter()) == 0
    assert not await store.update(bob, tool, expected=1)
    assert not await store.delete(bob, tool.id)
    await store.create(bob, a_tool("roll"))


async def test_a_name_is_taken_once(store, ann):
    await store.create(ann, a_tool("roll"))
    other = a_tool("flip")
    await store.create(ann, other)

    with pytest.raises(NameTaken):
        await store.create(ann, a_tool("roll"))
    with pytest.raises(NameTaken):
        await store.update(ann, replace(other, name="roll"), expected=1)


async def test_a_stale_version_is_not_written(store, ann):
    tool = a_tool("roll")
    await store.create(ann, tool)
    newer = replace(tool, description="New.", version=2)

    assert await store.update(ann, newer, expected=1)
    assert not await store.update(ann, replace(tool, description="Old.", version=2), expected=1)
    assert await store.find(ann, tool.id) == newer


async def written(store, ann, versions):
    tool = a_tool("roll", **FULL | {"version": 1})
    await store.create(ann, tool)
    for number in range(2, versions + 1):
        tool = replace(tool, version=number, description=f"no. {number}", updated_at=BEGIN + timedelta(hours=number))
        assert await store.update(ann, tool, expected=number - 1)
    return tool


async def test_every_write_makes_a_version(store, ann):
    tool = await written(store, ann, 3)

    assert await store.list_versions(ann, tool.id, Page()) == [
        tool,
        await store.find_version(ann, tool.id, 2),
        await store.find_version(ann, tool.id, 1),
    ]
    assert (await store.find_version(ann, tool.id, 2)).description == "no. 2"
    assert await store.find_version(ann, tool.id, 4) is None
    assert not await store.update(ann, replace(tool, version=9), expected=8)
    assert await store.find_version(ann, tool.id, 9) is None


@pytest.mark.parametrize(
    ("page", "numbers"),
    [
        (Page(limit=2), [5, 4]),
        (Page(limit=2, after="4"), [3, 2]),
        (Page(limit=2, before="2"), [4, 3]),
        (Page(ascending=True, limit=3), [1, 2, 3]),
        (Page(ascending=True, after="3"), [4, 5]),
        (Page(ascending=True, before="4", limit=2), [2, 3]),
        (Page(after="4", before="1"), [3, 2]),
        (Page(after="0"), []),
        (Page(after="77"), [5, 4, 3, 2, 1]),
    ],
)
async def test_versions_come_in_pages(store, ann, page, numbers):
    tool = await written(store, ann, 5)
    assert [item.version for item in await store.list_versions(ann, tool.id, page)] == numbers


async def test_versions_go_with_their_tool_and_belong_to_its_organization(store, ann):
    tool = await written(store, ann, 2)
    bob = Actor(new_id("org"), "user-bob")

    assert await store.list_versions(bob, tool.id, Page()) == []
    assert await store.find_version(bob, tool.id, 1) is None
    await store.delete(ann, tool.id)
    assert await store.list_versions(ann, tool.id, Page()) == []


async def test_the_last_hundred_versions_are_kept(store, ann):
    tool = await written(store, ann, 103)

    numbers = [item.version for item in await store.list_versions(ann, tool.id, Page(limit=1000))]
    assert numbers == list(range(103, 3, -1))
    assert await store.find_version(ann, tool.id, 3) is None


async def test_tools_that_come_with_the_product_have_versions_too(store, ann):
    tool = a_tool("send_message", tool_type=ToolType.LETTA_CORE, description="old")
    await store.upsert(ann, [tool])
    await store.upsert(ann, [tool])
    await store.upsert(ann, [replace(tool, description="new")])

    assert [item.description for item in await store.list_versions(ann, tool.id, Page())] == ["new", "old"]


async def test_each_tool_is_resolved_once(store, ann):
    tools = [a_tool("one"), a_tool("two"), a_tool("three")]
    for tool in tools:
        await store.create(ann, tool)

    found = await store.resolve(ann, (tools[0].id, tools[1].id), ("one", "nothing"))

    assert sorted(tool.name for tool in found) == ["one", "two"]


async def test_builtin_tools_are_brought_up_to_date_and_keep_what_the_user_set(store, ann):
    old = a_tool("send_message", tool_type=ToolType.LETTA_CORE)
    await store.upsert(ann, [old])
    await store.upsert(ann, [old])
    assert await store.find(ann, old.id) == old
    assert await store.update(ann, replace(old, tags=("mine",), version=2), expected=1)

    await store.upsert(ann, [replace(old, json_schema='{"new":1}', description="New.")])

    new = await store.find(ann, old.id)
    assert (new.json_schema, new.description, new.tags, new.version) == ('{"new":1}', "New.", ("mine",), 3)


async def test_a_tool_that_may_no_longer_run_twice_is_brought_up_to_date(store, ann):
    once = a_tool("pay", tool_type=ToolType.EXTERNAL_MCP, idempotent=True)
    await store.upsert(ann, [once])
    await store.upsert(ann, [replace(once, idempotent=False)])

    new = await store.find(ann, once.id)
    assert (new.idempotent, new.version) == (False, 2)


async def test_a_custom_tool_is_not_made_a_builtin_one(store, ann):
    mine = a_tool("send_message")
    await store.create(ann, mine)

    await store.upsert(ann, [a_tool("send_message", tool_type=ToolType.LETTA_CORE), a_tool("other")])

    assert await store.resolve(ann, (), ("send_message",)) == [mine]


async def test_pages_follow_each_other(store, ann):
    tools = [a_tool(f"tool_{minute}", minute) for minute in range(5)]
    for tool in tools:
        await store.create(ann, tool)

    async def names(**page):
        return [tool.name for tool in await store.list_tools(ann, ToolFilter(), Page(**page))]

    assert await names(limit=2) == ["tool_4", "tool_3"]
    assert await names(limit=2, after=tools[3].id) == ["tool_2", "tool_1"]
    assert await names(limit=2, before=tools[1].id) == ["tool_3", "tool_2"]
    assert await names(limit=9, ascending=True, after=tools[3].id) == ["tool_4"]
    with pytest.raises(CursorNotFound):
        await names(after="tool-00000000-0000-4000-8000-000000000000")


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (ToolFilter(names=("b", "zzz")), ["b"]),
        (ToolFilter(search="LPH"), ["alpha"]),
        (ToolFilter(search="%"), []),
        (ToolFilter(types=frozenset({ToolType.LETTA_CORE})), ["b"]),
        (ToolFilter(excluded_types=frozenset({ToolType.LETTA_CORE})), ["alpha", "c"]),
        (ToolFilter(tags=("x", "y")), ["alpha", "c"]),
        (ToolFilter(tags=("x",), search="c"), []),
    ],
)
async def test_filters(store, ann, wanted, names):
    await store.create(ann, a_tool("alpha", tags=("x",)))
    await store.create(ann, a_tool("b", tool_type=ToolType.LETTA_CORE))
    await store.create(ann, a_tool("c", tags=("y", "z")))

    assert sorted(tool.name for tool in await store.list_tools(ann, wanted, Page())) == names
    assert await store.count(ann, wanted) == len(names)


async def test_filter_by_ids(store, ann):
    tool = a_tool("alpha")
    await store.create(ann, tool)
    await store.create(ann, a_tool("b"))

    assert await store.list_tools(ann, ToolFilter(ids=(tool.id, "tool-none")), Page()) == [tool]


async def test_one_shared_word_is_enough_to_be_found(store, ann):
    await store.create(ann, a_tool("get_weather", description="Weather of a city.", tags=("climate",)))
    await store.create(ann, a_tool("roll_dice", description="Rolls."))

    by_words = await store.search(ann, "weather forecast for tomorrow", ToolFilter(), 5)
    assert [match.tool.name for match in by_words if match.words] == ["get_weather"]
    assert "climate" in by_words[0].text
    assert [match.tool.name for match in await store.search(ann, "climate", ToolFilter(), 5)] == ["get_weather"]
    assert await store.search(ann, "weather", ToolFilter(tags=("nope",)), 5) == []
    assert await store.search(ann, "& | ! ( )", ToolFilter(), 5) == []


async def test_deleting_tells_whether_there_was_one(store, ann):
    tool = a_tool("roll")
    await store.create(ann, tool)

    assert await store.delete(ann, tool.id)
    assert not await store.delete(ann, tool.id)
    assert await store.find(ann, tool.id) is None
