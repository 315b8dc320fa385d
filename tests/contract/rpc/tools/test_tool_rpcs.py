"""Each RPC of the registry, over the network and in process."""

import json

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_service_pb2 import (
    AddBaseToolsRequest,
    CountToolsRequest,
    CreateToolRequest,
    DeleteToolRequest,
    GenerateSchemaRequest,
    GenerateToolRequest,
    GetBaseToolsRequest,
    GetToolRequest,
    GetToolVersionRequest,
    ListToolsRequest,
    ListToolVersionsRequest,
    ResolveToolsRequest,
    SearchToolsRequest,
    UpdateToolRequest,
    UpsertToolRequest,
)
from letta_common.errors import (
    CursorNotFound,
    InvalidArgument,
    OperationUnimplemented,
    StaleEtag,
    ToolNameTaken,
    ToolNotFound,
    ToolSourceInvalid,
    ValidationFailed,
)
from letta_common.values.ids import new_id

SOURCE = '''def roll_dice(sides: int) -> str:
    """Roll one die.

    Args:
        sides (int): number of sides

    Returns:
        str: what was rolled
    """
    return f"rolled 1 of {sides}"
'''


async def created(tools, source=SOURCE, **values):
    request = CreateToolRequest(tool=tool_pb2.Tool(source_code=source, **values))
    return (await tools.CreateTool(request, timeout=5)).tool


async def updated(tools, tool, *paths, **values):
    request = UpdateToolRequest(
        tool_id=tool.id, tool=tool_pb2.Tool(**values), update_mask=FieldMask(paths=paths or list(values))
    )
    return (await tools.UpdateTool(request, timeout=5)).tool


async def test_a_tool_is_made_of_source(tools, ann):
    tool = await created(tools, tags=["demo"])

    assert tool.id.startswith("tool-")
    assert (tool.name, tool.description, list(tool.tags)) == ("roll_dice", "Roll one die.", ["demo"])
    assert (tool.tool_type, tool.source_type, tool.return_char_limit) == (
        tool_pb2.TOOL_TYPE_CUSTOM,
        tool_pb2.TOOL_SOURCE_TYPE_PYTHON,
        50000,
    )
    assert (tool.json_schema.name, tool.json_schema.description) == ("roll_dice", "Roll one die.")
    assert json.loads(tool.json_schema.parameters_schema) == {
        "type": "object",
        "properties": {"sides": {"type": "integer", "description": "number of sides"}},
        "required": ["sides"],
    }
    assert (tool.created_by_id, tool.last_updated_by_id) == (ann.user_id, ann.user_id)
    assert len(json.loads(tool.metadata)["tool_hash"]) == 12
    assert tool == (await tools.GetTool(GetToolRequest(tool_id=tool.id), timeout=5)).tool


async def test_making_it_again_keeps_id_and_what_is_left_out(tools):
    first = await created(tools, tags=["demo"], default_requires_approval=True)
    same = await created(tools)
    assert same == first

    changed = await created(tools, SOURCE.replace("Roll one", "Throw one"), tags=["other"])

    assert (changed.id, changed.version, changed.description) == (first.id, 2, "Throw one die.")
    assert (list(changed.tags), changed.default_requires_approval) == (["other"], True)
    upserted = await tools.UpsertTool(UpsertToolRequest(tool=tool_pb2.Tool(source_code=SOURCE)), timeout=5)
    assert (upserted.tool.id, upserted.tool.version) == (first.id, 3)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("def f(:", "line 1"),
        ("f = lambda x: x", "lambda"),
        ("x = 1", "no function"),
        ('def f(x):\n    """D.\n\n    Args:\n        x: it\n    """', "type annotation"),
        ('def f(x: int):\n    """D."""', "description"),
        ("def f(x: int): ...", "docstring"),
        (f'def {"f" * 49}():\n    """D."""', "48"),
    ],
)
async def test_unusable_source_is_refused_with_the_reason(tools, source, says):
    with pytest.raises(ToolSourceInvalid, match=says):
        await created(tools, source)


async def test_a_builtin_name_is_taken(tools):
    source = 'def send_message():\n    """Mine."""'
    with pytest.raises(ToolNameTaken):
        await created(tools, source)
    mine = await created(tools)
    with pytest.raises(ToolNameTaken):
        await updated(tools, mine, source_code=source)


async def test_a_schema_can_be_given_instead_of_source(tools):
    schema = tool_pb2.FunctionSchema(name="look.up")
    with pytest.raises(ToolSourceInvalid, match="letters"):
        await created(tools, "", source_type=tool_pb2.TOOL_SOURCE_TYPE_JSON, json_schema=schema)

    schema.name = "look-up"
    tool = await created(tools, "", source_type=tool_pb2.TOOL_SOURCE_TYPE_JSON, json_schema=schema)

    assert (tool.name, tool.source_type) == ("look-up", tool_pb2.TOOL_SOURCE_TYPE_JSON)
    assert json.loads(tool.json_schema.parameters_schema) == {"type": "object", "properties": {}}
    with pytest.raises(ToolSourceInvalid, match="JSDoc"):
        await created(tools, "export function f() {}", source_type=tool_pb2.TOOL_SOURCE_TYPE_TYPESCRIPT)


async def test_arguments_can_come_from_a_model(tools):
    model = {
        "$defs": {"Die": {"type": "object", "title": "Die", "properties": {"sides": {"type": "integer"}}}},
        "properties": {"die": {"$ref": "#/$defs/Die", "title": "Die"}},
        "required": ["die"],
    }
    tool = await created(tools, 'def roll(die):\n    """Roll."""', args_json_schema=json.dumps(model))

    assert json.loads(tool.json_schema.parameters_schema) == {
        "type": "object",
        "properties": {"die": {"type": "object", "properties": {"sides": {"type": "integer"}}}},
        "required": ["die"],
    }


async def test_update_writes_what_the_mask_names(tools):
    tool = await created(tools, tags=["demo"], default_requires_approval=True)

    described = await updated(tools, tool, description="Rolls.")
    assert (described.description, described.version) == ("Rolls.", 2)
    assert described.json_schema.description == "Roll one die."
    cleared = await updated(tools, tool, "tags", "default_requires_approval")
    assert (list(cleared.tags), cleared.HasField("default_requires_approval"), cleared.name) == ([], False, "roll_dice")
    renamed = await updated(tools, tool, source_code=SOURCE.replace("roll_dice", "throw_dice"))
    assert (renamed.name, renamed.json_schema.name) == ("throw_dice", "throw_dice")
    for path in ("nonsense", "name", "id"):
        with pytest.raises(InvalidArgument, match=path):
            await updated(tools, tool, path)
    with pytest.raises(StaleEtag):
        await updated(tools, tool, "description", description="Late.", etag=tool.etag)


async def test_every_update_makes_a_version(tools, ann, as_bob):
    first = await created(tools)
    await created(tools)  # changes nothing
    second = await updated(tools, first, description="Rolls.")
    third = await updated(tools, first, source_code=SOURCE.replace("rolled 1", "rolled 6"))

    listed = (await tools.ListToolVersions(ListToolVersionsRequest(tool_id=first.id), timeout=5)).versions
    assert [item.version for item in listed] == [3, 2, 1]
    assert [item.tool for item in listed] == [third, second, first]
    assert (listed[1].created_at, listed[1].created_by_id) == (second.updated_at, ann.user_id)
    page = ListToolVersionsRequest(tool_id=first.id, limit=1, after="3")
    assert (await tools.ListToolVersions(page, timeout=5)).versions[0].version == 2

    old = await tools.GetToolVersion(GetToolVersionRequest(tool_id=first.id, version=1), timeout=5)
    assert old.version == listed[2]
    with pytest.raises(ToolNotFound, match="no version 4") as caught:
        await tools.GetToolVersion(GetToolVersionRequest(tool_id=first.id, version=4), timeout=5)
    assert caught.value.metadata == {"tool_id": first.id, "version": "4"}
    with pytest.raises(ValidationFailed):
        await tools.GetToolVersion(GetToolVersionRequest(tool_id=first.id), timeout=5)
    with pytest.raises(ValidationFailed):
        await tools.ListToolVersions(ListToolVersionsRequest(tool_id=first.id, after="x"), timeout=5)
    with as_bob():
        for call, request in (
            (tools.ListToolVersions, ListToolVersionsRequest(tool_id=first.id)),
            (tools.GetToolVersion, GetToolVersionRequest(tool_id=first.id, version=1)),
        ):
            with pytest.raises(ToolNotFound):
                await call(request, timeout=5)
    await tools.DeleteTool(DeleteToolRequest(tool_id=first.id), timeout=5)
    with pytest.raises(ToolNotFound):
        await tools.ListToolVersions(ListToolVersionsRequest(tool_id=first.id), timeout=5)


async def test_a_name_of_another_tool_is_refused(tools):
    await created(tools)
    other = await created(tools, 'def flip():\n    """Flip."""')

    with pytest.raises(ToolNameTaken):
        await updated(tools, other, source_code=SOURCE)


async def test_unknown_and_foreign_tools_are_not_found(tools, as_bob):
    mine = await created(tools)

    with pytest.raises(ToolNotFound):
        await tools.GetTool(GetToolRequest(tool_id=new_id("tool")), timeout=5)
    with as_bob(), pytest.raises(ToolNotFound) as caught:
        await tools.GetTool(GetToolRequest(tool_id=mine.id), timeout=5)
    assert caught.value.metadata["tool_id"] == mine.id
    with as_bob(), pytest.raises(ToolNotFound):
        await tools.DeleteTool(DeleteToolRequest(tool_id=mine.id), timeout=5)
    with as_bob(), pytest.raises(ToolNotFound):
        await updated(tools, mine, description="Stolen.")
    with pytest.raises(ValidationFailed):
        await tools.GetTool(GetToolRequest(tool_id="block-1"), timeout=5)


async def test_deleting(tools):
    tool = await created(tools)
    await tools.DeleteTool(DeleteToolRequest(tool_id=tool.id), timeout=5)

    with pytest.raises(ToolNotFound):
        await tools.DeleteTool(DeleteToolRequest(tool_id=tool.id), timeout=5)
    builtin = (await tools.ResolveTools(ResolveToolsRequest(names=["send_message"]), timeout=5)).tools[0]
    with pytest.raises(InvalidArgument):
        await tools.DeleteTool(DeleteToolRequest(tool_id=builtin.id), timeout=5)


async def test_lists_and_counts(tools):
    mine = [await created(tools, f'def mine_{n}():\n    """Mine."""') for n in range(3)]
    custom = [tool_pb2.TOOL_TYPE_CUSTOM]

    listed = (await tools.ListTools(ListToolsRequest(tool_types=custom), timeout=5)).tools
    assert [tool.name for tool in listed] == ["mine_2", "mine_1", "mine_0"]
    after = ListToolsRequest(tool_types=custom, after=mine[2].id, limit=1)
    assert [tool.name for tool in (await tools.ListTools(after, timeout=5)).tools] == ["mine_1"]
    with pytest.raises(CursorNotFound):
        await tools.ListTools(ListToolsRequest(after="tool-00000000-0000-4000-8000-000000000000"), timeout=5)

    async def count(**values):
        return (await tools.CountTools(CountToolsRequest(**values), timeout=5)).count

    assert await count(exclude_letta_tools=True) == 3
    assert await count(return_only_letta_tools=True) == await count() - 3
    assert await count(search="MINE_", names=["mine_1", "mine_2"], exclude_letta_tools=True) == 2
    assert await count(name="mine_1") == 1
    assert await count(tool_ids=[mine[0].id]) == 1


async def test_builtin_tools_exist_everywhere(tools, as_bob):
    base = (await tools.GetBaseTools(GetBaseToolsRequest(), timeout=5)).tools
    added = (await tools.AddBaseTools(AddBaseToolsRequest(), timeout=5)).tools
    with as_bob():
        foreign = (await tools.GetBaseTools(GetBaseToolsRequest(), timeout=5)).tools

    assert list(base) == list(added)
    assert [tool.name for tool in base] == [tool.name for tool in foreign]
    assert not {tool.id for tool in base} & {tool.id for tool in foreign}
    files = GetBaseToolsRequest(tool_types=[tool_pb2.TOOL_TYPE_LETTA_FILES_CORE])
    names = [tool.name for tool in (await tools.GetBaseTools(files, timeout=5)).tools]
    assert names == ["grep_files", "open_files", "semantic_search_files"]


async def test_resolving_keeps_the_order_asked(tools):
    mine = await created(tools)
    request = ResolveToolsRequest(tool_ids=[mine.id], names=["send_message", "roll_dice", "memory_insert"])

    answer = await tools.ResolveTools(request, timeout=5)

    assert [tool.name for tool in answer.tools] == ["roll_dice", "send_message", "memory_insert"]
    request.etag = answer.etag
    again = await tools.ResolveTools(request, timeout=5)
    assert (again.unchanged, len(again.tools), again.etag) == (True, 0, answer.etag)
    await updated(tools, mine, description="Changed.")
    assert len((await tools.ResolveTools(request, timeout=5)).tools) == 3


async def test_resolving_what_is_missing(tools, as_bob):
    mine = await created(tools)
    request = ResolveToolsRequest(tool_ids=[mine.id], names=["send_message"])

    with as_bob(), pytest.raises(ToolNotFound) as caught:
        await tools.ResolveTools(request, timeout=5)
    assert caught.value.metadata["tool_id"] == mine.id
    request.skip_missing = True
    with as_bob():
        assert [tool.name for tool in (await tools.ResolveTools(request, timeout=5)).tools] == ["send_message"]
    assert not (await tools.ResolveTools(ResolveToolsRequest(), timeout=5)).tools


async def test_search_finds_by_words(tools):
    await created(tools, tags=["gambling"])

    async def search(query, **values):
        results = (await tools.SearchTools(SearchToolsRequest(query=query, **values), timeout=5)).results
        return [(item.tool.name, item.fts_rank) for item in results]

    assert (await search("throw a die for gambling"))[0] == ("roll_dice", 1)
    assert ("roll_dice", 1) in await search("dice", tool_types=[tool_pb2.TOOL_TYPE_CUSTOM])
    assert await search("dice", tags=["nope"]) == []
    assert len(await search("", limit=3)) == 3


async def test_no_model_writes_tools_here(tools):
    request = GenerateToolRequest(tool_name="f", prompt="write it")
    with pytest.raises(OperationUnimplemented, match="calls no models"):
        await tools.GenerateTool(request, timeout=5)


# Names and arguments that agents of the retired server know; those with `?` may be left out.
BUILTIN = """
send_message(message)
conversation_search(query?, roles?, limit?, start_date?, end_date?)
archival_memory_insert(content, tags?)
archival_memory_search(query, tags?, tag_match_mode?, top_k?, start_datetime?, end_datetime?)
core_memory_append(label, content)
core_memory_replace(label, old_content, new_content)
memory(command, path?, file_text?, description?, old_string?, new_string?, insert_line?, insert_text?, old_path?, new_path?)
memory_apply_patch(label, patch)
memory_replace(label, old_string, new_string)
memory_insert(label, new_string, insert_line?)
memory_rethink(label, new_memory)
memory_finish_edits()
send_message_to_agent_and_wait_for_reply(message, other_agent_id)
send_message_to_agent_async(message, other_agent_id)
send_message_to_agents_matching_tags(message, match_all, match_some)
store_memories(chunks)
rethink_user_memory(new_memory)
finish_rethinking_memory()
search_memory(convo_keyword_queries?, start_minutes_ago?, end_minutes_ago?)
open_files(file_requests, close_all_others?)
grep_files(pattern, include?, context_lines?, offset?)
semantic_search_files(query, limit?)
run_code(code, language)
run_code_with_tools(code)
web_search(query, num_results?, category?, include_text?, include_domains?, exclude_domains?, start_published_date?, end_published_date?, user_location?)
fetch_webpage(url)
"""  # noqa: E501
PARALLEL = {
    "conversation_search",
    "archival_memory_search",
    "semantic_search_files",
    "grep_files",
    "run_code",
    "web_search",
    "fetch_webpage",
}


async def test_builtin_tools_have_the_names_and_arguments_that_agents_know(tools):
    found = (await tools.GetBaseTools(GetBaseToolsRequest(), timeout=5)).tools
    signatures, parallel = set(), set()
    for tool in found:
        assert tool.json_schema.name == tool.name
        assert tool.json_schema.description == tool.description
        parameters = json.loads(tool.json_schema.parameters_schema)
        names = [name if name in parameters["required"] else f"{name}?" for name in parameters["properties"]]
        signatures.add(f"{tool.name}({', '.join(names)})")
        assert all(value["description"] for value in parameters["properties"].values())
        assert (tool.return_char_limit, list(tool.tags)) == (
            50_000,
            [tool_pb2.ToolType.Name(tool.tool_type).removeprefix("TOOL_TYPE_").lower()],
        )
        parallel |= {tool.name} if tool.enable_parallel_execution else set()
    assert signatures == set(BUILTIN.split("\n")[1:-1])
    assert parallel == PARALLEL | {"search_memory"}


async def test_a_schema_without_keeping_the_tool(tools):
    answer = await tools.GenerateSchema(GenerateSchemaRequest(code=SOURCE), timeout=5)

    assert answer.json_schema.name == "roll_dice"
    with pytest.raises(ToolSourceInvalid):
        await tools.GenerateSchema(
            GenerateSchemaRequest(code="x", source_type=tool_pb2.TOOL_SOURCE_TYPE_TYPESCRIPT), timeout=5
        )
