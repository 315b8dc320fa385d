"""Every method of `client.tools`, every argument of them, with the unmodified letta-client."""

from __future__ import annotations

import inspect
import shutil

import httpx
import pytest

from letta_client import (
    APIStatusError,
    AsyncLetta,
    BadRequestError,
    ConflictError,
    Letta,
    NotFoundError,
    UnprocessableEntityError,
)
from letta_client.resources.tools import ToolsResource

SOURCE = '''def {name}(sides: int) -> str:
    """Roll one die.

    Args:
        sides (int): number of sides
    """
    return f"rolled 1 of {{sides}}"
'''
SCRIPT = """
/**
 * Roll one die.
 * @param sides - number of sides
 */
export function rollScript(sides: number): string {
  return `rolled 1 of ${sides}`;
}
"""
TESTED = {"create", "delete", "list", "retrieve", "search", "update", "upsert"}


def test_every_method_of_the_client_is_tested():
    methods = {name for name, _ in inspect.getmembers(ToolsResource, inspect.isfunction) if not name.startswith("_")}
    assert methods == TESTED


def test_every_field_can_be_created_and_updated(client: Letta):
    schema = {
        "name": "full",
        "description": "All there is.",
        "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}, "required": ["x"]},
    }
    fields = {
        "args_json_schema": {"properties": {"x": {"type": "integer"}}, "required": ["x"]},
        "default_requires_approval": True,
        "description": "Another description.",
        "enable_parallel_execution": True,
        "json_schema": schema,
        "npm_requirements": [{"name": "left-pad", "version": "1.3.0"}],
        "pip_requirements": [{"name": "requests"}, {"name": "numpy", "version": "2.0.0"}],
        "return_char_limit": 123,
        "source_type": "python",
        "tags": ["a", "b"],
    }
    tool = client.tools.create(source_code="def full(x: int):\n    return x\n", **fields)

    assert (tool.name, tool.json_schema, tool.args_json_schema) == ("full", schema, fields["args_json_schema"])
    assert (tool.default_requires_approval, tool.enable_parallel_execution) == (True, True)
    assert (tool.description, tool.return_char_limit, tool.tags) == ("Another description.", 123, ["a", "b"])
    assert [(item.name, item.version) for item in tool.pip_requirements] == [("requests", None), ("numpy", "2.0.0")]
    assert [(item.name, item.version) for item in tool.npm_requirements] == [("left-pad", "1.3.0")]

    changed = client.tools.update(
        tool.id,
        args_json_schema=None,
        default_requires_approval=False,
        description="New.",
        enable_parallel_execution=False,
        metadata={"mine": [1, {"deep": None}]},
        npm_requirements=[],
        pip_requirements=None,
        return_char_limit=50,
        tags=[],
    )
    assert (changed.default_requires_approval, changed.enable_parallel_execution) == (False, False)
    assert (changed.description, changed.return_char_limit, changed.tags) == ("New.", 50, [])
    assert (changed.npm_requirements, changed.pip_requirements) == (None, None)
    assert changed.metadata["mine"] == [1, {"deep": None}]
    assert client.tools.update(tool.id, return_char_limit=None).return_char_limit == 50_000
    renamed = client.tools.update(tool.id, source_code=SOURCE.format(name="renamed"), json_schema=None)
    assert (renamed.name, renamed.json_schema["name"], renamed.id) == ("renamed", "renamed", tool.id)


def test_the_source_may_change_its_language(client: Letta):
    tool = client.tools.upsert(source_code=SCRIPT, source_type="typescript")
    assert (tool.name, tool.source_type, tool.description) == ("rollScript", "typescript", "Roll one die.")
    assert tool.json_schema["parameters"]["properties"] == {
        "sides": {"type": "number", "description": "number of sides"}
    }
    changed = client.tools.update(tool.id, source_code=SOURCE.format(name="rollScript"), source_type="python")
    assert (changed.source_type, changed.json_schema["parameters"]["properties"]["sides"]["type"]) == (
        "python",
        "integer",
    )


def test_languages_are_a_closed_set(http: httpx.Client):
    source = SOURCE.format(name="of_no_language")
    bodies = {
        "/v1/tools/": {"source_code": source},
        "/v1/tools/run": {"source_code": source, "args": {"sides": 6}},
        "/v1/tools/generate-schema": {"code": source},
    }
    for path, body in bodies.items():
        answer = http.post(path, json={**body, "source_type": "cobol"})
        assert answer.status_code == 422
        assert "('body', 'source_type')" in answer.json()["detail"]
        assert http.post(path, json={**body, "source_type": "python"}).status_code == 200
    schema = {"name": "of_a_schema", "description": "Mine.", "parameters": {"type": "object", "properties": {}}}
    made = http.post("/v1/tools/", json={"source_code": "", "source_type": "json", "json_schema": schema}).json()
    assert (made["source_type"], made["json_schema"]) == ("json", schema)


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
def test_a_script_runs(client: Letta, http: httpx.Client, agent):
    body = {"source_code": SCRIPT, "source_type": "typescript", "args": {"sides": 6}}
    answer = http.post("/v1/tools/run", json=body).json()
    assert (answer["status"], answer["tool_return"], answer["name"]) == ("success", "rolled 1 of 6", "rollScript")
    tool = client.tools.upsert(source_code=SCRIPT, source_type="typescript")
    client.agents.tools.attach(tool.id, agent_id=agent.id)
    ran = client.agents.tools.run("rollScript", agent_id=agent.id, args={"sides": 4})
    assert (ran.status, ran.func_return) == ("success", "rolled 1 of 4")


def test_pages_follow_each_other(client: Letta):
    made = [client.tools.create(source_code=SOURCE.format(name=f"paged_{number}")) for number in range(5)]
    ids = [tool.id for tool in made]

    first = client.tools.list(search="paged_", limit=2, order="asc", order_by="created_at")
    assert [tool.id for tool in first.items] == ids[:2]
    assert [tool.id for tool in first.get_next_page().items] == ids[2:4]
    assert [tool.id for tool in client.tools.list(search="paged_", after=ids[2], order="asc")] == ids[3:]
    assert [tool.id for tool in client.tools.list(search="paged_", before=ids[2], order="asc").items] == ids[:2]


def test_filters(client: Letta):
    made = [client.tools.create(source_code=SOURCE.format(name=f"filtered_{number}")) for number in range(3)]

    assert [tool.name for tool in client.tools.list(name="filtered_1")] == ["filtered_1"]
    assert {tool.name for tool in client.tools.list(names=["filtered_0", "filtered_2", "nothing"])} == {
        "filtered_0",
        "filtered_2",
    }
    assert [tool.id for tool in client.tools.list(tool_ids=[made[0].id])] == [made[0].id]
    kinds = {tool.tool_type for tool in client.tools.list(tool_types=["letta_core", "letta_files_core"])}
    assert kinds == {"letta_core", "letta_files_core"}
    assert "custom" not in {tool.tool_type for tool in client.tools.list(exclude_tool_types=["custom"], limit=100)}
    assert all(tool.tool_type.startswith("letta") for tool in client.tools.list(return_only_letta_tools=True))
    assert client.tools.list(name="of nobody").items == []


@pytest.mark.parametrize("mode", ["fts", "vector", "hybrid"])
def test_search_in_every_mode(client: Letta, mode: str):
    source = SOURCE.format(name="juggle_torches").replace("Roll one die.", "Juggle burning torches.")
    client.tools.create(source_code=source, tags=["circus", mode])

    found = client.tools.search(query="juggle torches", search_mode=mode, limit=3)
    assert found[0].tool.name == "juggle_torches"
    assert (found[0].fts_rank is None) is (mode == "vector")
    assert (found[0].vector_rank is None) is (mode == "fts")
    assert 0 < found[0].combined_score <= 1
    assert "Juggle burning torches." in found[0].embedded_text
    tagged = client.tools.search(query="juggle", search_mode=mode, tags=["circus"], tool_types=["custom"])
    assert [item.tool.name for item in tagged] == ["juggle_torches"]
    assert client.tools.search(query="juggle", tool_types=["letta_core"], search_mode="fts") == []
    assert client.tools.search(limit=2)[0].combined_score == 1


def test_what_is_refused(client: Letta, http: httpx.Client):
    for source, error in (
        ("def f(x):\n    pass", BadRequestError),
        ("f = lambda: 1", BadRequestError),
        ("def f(:", BadRequestError),
        ('def memory():\n    """Mine."""', ConflictError),
    ):
        with pytest.raises(error):
            client.tools.create(source_code=source)
    with pytest.raises(BadRequestError):
        client.tools.create(source_code="enum E { A }", source_type="typescript")
    with pytest.raises(UnprocessableEntityError):
        client.tools.create(source_code=SOURCE.format(name="limited"), return_char_limit=1_000_001)
    unknown = "tool-00000000-0000-4000-8000-000000000000"
    for call in (client.tools.retrieve, client.tools.delete, lambda id: client.tools.update(id, description="x")):
        with pytest.raises(NotFoundError):
            call(unknown)
    builtin = client.tools.list(name="send_message").items[0]
    with pytest.raises(BadRequestError):
        client.tools.delete(builtin.id)
    with pytest.raises(BadRequestError):
        client.tools.update(builtin.id, source_code=SOURCE.format(name="send_message"))
    with pytest.raises(APIStatusError) as caught:
        client.post(
            "/v1/tools/generate-tool", body={"tool_name": "f", "prompt": "p", "validation_errors": []}, cast_to=object
        )
    assert caught.value.status_code == 501


def test_builtin_tools_may_be_adjusted(client: Letta):
    builtin = client.tools.list(name="web_search").items[0]
    changed = client.tools.update(builtin.id, default_requires_approval=True, return_char_limit=100, tags=["careful"])
    assert (changed.default_requires_approval, changed.return_char_limit, changed.tags) == (True, 100, ["careful"])
    client.post("/v1/tools/add-base-tools", cast_to=object)
    assert client.tools.retrieve(builtin.id).return_char_limit == 100


def test_versions(client: Letta, http: httpx.Client):
    tool = client.tools.create(source_code=SOURCE.format(name="versioned"))
    client.tools.update(tool.id, description="Second.")
    versions = http.get(f"/v1/tools/{tool.id}/versions").json()

    assert [item["version"] for item in versions] == [2, 1]
    assert [item["tool"]["description"] for item in versions] == ["Second.", "Roll one die."]
    assert http.get(f"/v1/tools/{tool.id}/versions/1").json() == versions[1]
    assert http.get(f"/v1/tools/{tool.id}/versions", params={"limit": 1, "after": "2"}).json() == versions[1:]
    assert http.get(f"/v1/tools/{tool.id}/versions/7").status_code == 404
    assert http.get(f"/v1/tools/{tool.id}/versions/x").status_code == 422


async def test_the_asynchronous_client(server):
    async with AsyncLetta(base_url=server.http_url, api_key="unused", timeout=20, max_retries=0) as client:
        tool = await client.tools.create(source_code=SOURCE.format(name="asynchronous"))
        assert (await client.tools.retrieve(tool.id)).id == tool.id
        assert [item.id async for item in client.tools.list(name="asynchronous")] == [tool.id]
        assert (await client.tools.update(tool.id, tags=["x"])).tags == ["x"]
        assert (await client.tools.search(query="asynchronous"))[0].tool.id == tool.id
        assert (await client.tools.upsert(source_code=SOURCE.format(name="asynchronous"))).id == tool.id
        await client.tools.delete(tool.id)
        with pytest.raises(NotFoundError):
            await client.tools.retrieve(tool.id)


def test_answers_may_be_read_raw(client: Letta):
    raw = client.tools.with_raw_response.create(source_code=SOURCE.format(name="raw"))
    assert (raw.http_response.status_code, raw.parse().name) == (200, "raw")
    assert client.tools.with_raw_response.delete(raw.parse().id).http_response.json() is None
