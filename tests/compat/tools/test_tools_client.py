"""The registry, sandbox configurations and MCP servers through the unmodified letta-client and plain HTTP."""

from __future__ import annotations

import pytest

from letta_client import APIStatusError, BadRequestError, ConflictError, NotFoundError, UnprocessableEntityError

SOURCE = '''def {name}(sides: int) -> str:
    """Roll one die.

    Args:
        sides (int): number of sides

    Returns:
        str: what was rolled
    """
    return f"rolled 1 of {{sides}}"
'''


def test_a_tool_looks_as_the_client_expects(client, http):
    source = SOURCE.format(name="roll_dice")
    tool = client.tools.create(source_code=source, tags=["demo"])

    body = http.get(f"/v1/tools/{tool.id}").json()
    hash_ = body["metadata_"].pop("tool_hash")
    assert len(hash_) == 12
    assert body == {
        "id": tool.id,
        "tool_type": "custom",
        "description": "Roll one die.",
        "source_type": "python",
        "name": "roll_dice",
        "tags": ["demo"],
        "source_code": source,
        "json_schema": {
            "name": "roll_dice",
            "description": "Roll one die.",
            "parameters": {
                "type": "object",
                "properties": {"sides": {"type": "integer", "description": "number of sides"}},
                "required": ["sides"],
            },
        },
        "args_json_schema": {},
        "return_char_limit": 50000,
        "pip_requirements": None,
        "npm_requirements": None,
        "default_requires_approval": None,
        "enable_parallel_execution": False,
        "created_by_id": "user-00000000-0000-4000-8000-000000000000",
        "last_updated_by_id": "user-00000000-0000-4000-8000-000000000000",
        "metadata_": {},
        "project_id": None,
    }
    assert client.tools.retrieve(tool.id).name == "roll_dice"


def test_creating_again_overwrites_and_upsert_too(client):
    first = client.tools.create(source_code=SOURCE.format(name="again"), tags=["kept"])
    second = client.tools.create(source_code=SOURCE.format(name="again"))
    third = client.tools.upsert(
        source_code=SOURCE.format(name="again").replace("Roll", "Throw"), pip_requirements=[{"name": "requests"}]
    )

    assert first.id == second.id == third.id
    assert (second.tags, third.tags, third.description) == (["kept"], ["kept"], "Throw one die.")
    assert third.pip_requirements[0].name == "requests"


def test_updates_and_deletes(client):
    tool = client.tools.create(source_code=SOURCE.format(name="changing"), default_requires_approval=True)
    assert tool.default_requires_approval is True

    assert client.tools.update(tool.id, description="Rolls.", tags=["new"]).description == "Rolls."
    assert client.tools.update(tool.id, return_char_limit=10).return_char_limit == 10
    assert client.tools.update(tool.id, default_requires_approval=None).default_requires_approval is None
    client.tools.delete(tool.id)
    with pytest.raises(NotFoundError):
        client.tools.retrieve(tool.id)


def test_lists_page_and_filter(client, http):
    names = [f"listed_{number}" for number in range(5)]
    for name in names:
        client.tools.create(source_code=SOURCE.format(name=name))

    assert [tool.name for tool in client.tools.list(search="listed_", limit=2)] == names[::-1]
    assert [tool.name for tool in client.tools.list(search="listed_", limit=2, order="asc")] == names
    assert {tool.tool_type for tool in client.tools.list(return_only_letta_tools=True)} > {
        "letta_core",
        "letta_builtin",
    }
    assert [tool.name for tool in client.tools.list(names=["send_message", "listed_1"], order="asc")]
    assert http.get("/v1/tools/count", params={"search": "listed_"}).json() == 5
    assert http.get("/v1/tools/count", params={"tool_types": ["letta_files_core"]}).json() == 3
    assert len(http.post("/v1/tools/add-base-tools").json()) >= 25


def test_searching(client):
    client.tools.create(source_code=SOURCE.format(name="searched"), tags=["gambling"])

    found = client.tools.search(query="gambling with a die")

    assert found[0].tool.name == "searched"
    assert found[0].combined_score > 0


def test_source_that_cannot_be_used(client, http):
    with pytest.raises(BadRequestError, match="annotation"):
        client.tools.create(source_code='def f(x):\n    """F.\n\n    Args:\n        x: it\n    """')
    with pytest.raises(ConflictError):
        client.tools.create(source_code='def send_message():\n    """Mine."""')
    with pytest.raises(UnprocessableEntityError):
        client.tools.retrieve("not-an-id")
    assert http.post("/v1/tools/", json={"tags": []}).status_code == 422


def test_source_runs_once(http):
    body = {"source_code": SOURCE.format(name="once"), "args": {"sides": 6}, "name": "once"}
    answer = http.post("/v1/tools/run", json=body).json()

    assert (answer["message_type"], answer["status"], answer["tool_return"]) == (
        "tool_return_message",
        "success",
        "rolled 1 of 6",
    )
    failed = http.post("/v1/tools/run", json={"source_code": "def f():\n    1/0\n", "args": {}, "name": "f"}).json()
    assert (failed["status"], failed["tool_return"]) == (
        "error",
        "Error executing function f: ZeroDivisionError: division by zero",
    )


def test_schema_of_source(http):
    answer = http.post("/v1/tools/generate-schema", json={"code": SOURCE.format(name="seen")})
    assert answer.json()["name"] == "seen"
    assert http.post("/v1/tools/generate-schema", json={"code": "x ="}).status_code == 400


@pytest.fixture
def sandboxes(http):
    """Remove the configurations that a test makes."""
    yield
    for config in http.get("/v1/sandbox-config/").json():
        http.delete(f"/v1/sandbox-config/{config['id']}")


@pytest.mark.usefixtures("sandboxes")
def test_settings_tell_the_kind_of_a_sandbox(http):
    def made(**settings):
        answer = http.post("/v1/sandbox-config/", json={"config": settings}).json()
        return answer["type"], answer["config"]

    none = {"sandbox_dir": None, "use_venv": False, "venv_name": "venv", "pip_requirements": []}
    assert made() == ("local", none)
    packages = [{"name": "six"}, "idna>=3", {"name": "x", "version": "1"}]
    assert made(pip_requirements=packages) == ("local", none | {"pip_requirements": packages})
    assert made(timeout=5) == ("e2b", {"timeout": 5, "template": None, "pip_requirements": None})
    assert made(template="t", pip_requirements=[]) == ("e2b", {"timeout": 300, "template": "t", "pip_requirements": []})
    modal = {"timeout": 60, "pip_requirements": None, "npm_requirements": ["ms"], "language": "python"}
    assert made(npm_requirements=["ms"]) == ("modal", modal)
    assert made(**modal | {"language": "typescript"}) == ("modal", modal | {"language": "typescript"})
    refused = ({"language": "cobol"}, {"timeout": "x"}, {"pip_requirements": [7]}, {"egress_hosts": 5}, [], None)
    answers = [http.post("/v1/sandbox-config/", json={"config": each}) for each in refused]
    assert {answer.status_code for answer in [*answers, http.post("/v1/sandbox-config/", json={})]} == {422}


@pytest.mark.usefixtures("sandboxes")
def test_one_setting_of_a_sandbox_is_changed(http):
    settings = {"timeout": 5, "template": "t", "pip_requirements": ["six"]}
    config = http.post("/v1/sandbox-config/", json={"config": settings}).json()

    def changed(**change):
        return http.patch(f"/v1/sandbox-config/{config['id']}", json={"config": change}).json()["config"]

    assert changed(pip_requirements=["idna"]) == settings | {"pip_requirements": ["idna"]}
    assert changed(timeout=9, pip_requirements=[]) == settings | {"timeout": 9, "pip_requirements": []}
    assert http.patch(f"/v1/sandbox-config/{config['id']}", json={}).json()["config"]["template"] == "t"
    assert http.post("/v1/sandbox-config/e2b/default").json()["id"] == config["id"]


def test_sandbox_configurations(http):
    config = http.post("/v1/sandbox-config/local/default").json()
    assert (config["type"], config["config"]["venv_name"]) == ("local", "venv")
    assert config["created_at"].endswith("Z")
    assert [item["id"] for item in http.get("/v1/sandbox-config/").json()] == [config["id"]]
    made = http.post(
        f"/v1/sandbox-config/{config['id']}/environment-variable", json={"key": "A", "value": "secret"}
    ).json()
    assert (made["key"], made["value"], made["value_enc"]) == ("A", "********", None)
    path = f"/v1/sandbox-config/environment-variable/{made['id']}"
    assert http.patch(path, json={"description": "why"}).json()["description"] == "why"
    run = {"source_code": "import os\ndef f():\n    return os.environ['A']\n", "args": {}}
    assert http.post("/v1/tools/run", json=run).json()["tool_return"] == "secret"
    assert http.delete(path).status_code == 204
    assert http.delete(f"/v1/sandbox-config/{config['id']}").status_code == 204


def test_mcp_servers(client):
    assert list(client.mcp_servers.list()) == []
    with pytest.raises(UnprocessableEntityError):
        client.mcp_servers.create(
            server_name="inside", config={"mcp_server_type": "streamable_http", "server_url": "http://server/mcp"}
        )
    with pytest.raises(APIStatusError) as caught:
        client.mcp_servers.create(server_name="p", config={"mcp_server_type": "stdio", "command": "true", "args": []})
    assert caught.value.status_code == 400
