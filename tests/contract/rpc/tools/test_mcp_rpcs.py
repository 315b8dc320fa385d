"""Each RPC of MCP servers, against servers that the test starts."""

import contextlib
import json
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import mcp_server_service_pb2 as pb
from letta.tools.v1 import sandbox_config_service_pb2 as configs_pb
from letta.tools.v1 import (
    sandbox_config_service_pb2_grpc,
    tool_pb2,
    tool_service_pb2_grpc,
)
from letta.tools.v1 import tool_execution_service_pb2 as execution_pb
from letta.tools.v1.mcp_server_pb2 import (
    MCPServer,
    MCPServerConfig,
    MCPServerSettings,
    SseMCPConfig,
    StdioMCPConfig,
    StreamableHttpMCPConfig,
)
from letta.tools.v1.sandbox_config_pb2 import SandboxEnvironmentVariable
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, GetToolRequest
from letta_common.errors import (
    AlreadyExists,
    InvalidArgument,
    MCPConnectionFailed,
    MCPServerNotFound,
    SecretRequired,
    ToolNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id

DEMO = Path(__file__).with_name("mcp_demo_server.py")


def started(transport):
    process = subprocess.Popen([sys.executable, DEMO, transport], stdout=subprocess.PIPE, text=True)
    port = int(process.stdout.readline())
    while process.poll() is None:  # the port is known before anybody listens
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return process, port
        time.sleep(0.02)
    raise AssertionError(f"the server of {transport} did not start")


@pytest.fixture(scope="module")
def ports():
    running = {transport: started(transport) for transport in ("sse", "streamable_http")}
    yield {transport: port for transport, (_, port) in running.items()}
    for process, _ in running.values():
        process.kill()
        process.wait()
        process.stdout.close()


@pytest.fixture
def changeable():
    process, port = started("streamable_http")
    yield port
    process.kill()
    process.wait()
    process.stdout.close()


def http(port, **values):
    url = f"http://127.0.0.1:{port}/mcp"
    return MCPServerConfig(streamable_http=StreamableHttpMCPConfig(server_url=url, **values))


def stdio(**values):
    return MCPServerConfig(stdio=StdioMCPConfig(command=sys.executable, args=[str(DEMO), "stdio"], **values))


async def create(servers, config, name="demo"):
    request = pb.CreateMCPServerRequest(server_name=name, config=config)
    return (await servers.CreateMCPServer(request, timeout=30)).mcp_server


async def tools_of(servers, server):
    request = pb.ListMCPServerToolsRequest(mcp_server_id=server.id)
    return {tool.name: tool for tool in (await servers.ListMCPServerTools(request, timeout=5)).tools}


async def run(servers, server, tool, **args):
    request = pb.RunMCPServerToolRequest(mcp_server_id=server.id, tool_id=tool.id, args=json.dumps(args))
    return await servers.RunMCPServerTool(request, timeout=30)


@pytest.mark.parametrize("transport", ["stdio", "sse", "streamable_http"])
async def test_tools_of_a_server_are_called(servers, executions, ports, transport):
    configs = {
        "stdio": stdio(),
        "sse": MCPServerConfig(sse=SseMCPConfig(server_url=f"http://127.0.0.1:{ports['sse']}/sse")),
        "streamable_http": http(ports["streamable_http"]),
    }
    server = await create(servers, configs[transport])
    tools = await tools_of(servers, server)

    assert sorted(tools) == ["add", "boom", "change", "environment", "headers", "sleep", "weird_name_1"]
    add = tools["add"]
    assert (add.tool_type, list(add.tags), add.description) == (
        tool_pb2.TOOL_TYPE_EXTERNAL_MCP,
        ["mcp:demo"],
        "Add two numbers.",
    )
    assert list(json.loads(add.json_schema.parameters_schema)["properties"]) == ["a", "b"]
    assert json.loads(add.metadata)["mcp:SCHEMA_STATUS"] == "NON_STRICT_ONLY"
    answer = await run(servers, server, add, a=1, b=2)
    assert (answer.status, json.loads(answer.func_return)) == (pb.MCP_TOOL_STATUS_SUCCESS, "3")
    assert json.loads((await run(servers, server, tools["weird_name_1"])).func_return) == "weird"
    failed = await run(servers, server, tools["boom"])
    assert failed.status == pb.MCP_TOOL_STATUS_ERROR
    assert "Error executing tool boom" in failed.stderr[0]
    call = execution_pb.ExecuteRequest(tool_id=add.id, arguments='{"a": 2, "b": 3}', idempotency_key=new_id("run"))
    first = await executions.Execute(call, timeout=30)
    assert (first.status, first.result, first.provider) == (
        execution_pb.EXECUTION_STATUS_SUCCESS,
        '"5"',
        execution_pb.EXECUTION_PROVIDER_MCP,
    )
    assert (await executions.Execute(call, timeout=30)).repeated_call


async def test_secrets_stay_inside_and_templates_are_filled(servers, executions, ports):
    config = http(
        ports["streamable_http"],
        auth_token="Bearer {{ TOKEN | none }}",
        custom_headers={"x-colour": "{{ COLOUR | grey }}"},
    )
    server = await create(servers, config)

    shown = server.config.streamable_http
    assert (shown.auth_token, dict(shown.custom_headers)) == ("********", {"x-colour": "********"})
    tool = (await tools_of(servers, server))["headers"]
    call = execution_pb.ExecuteRequest(tool_id=tool.id, environment_variables={"TOKEN": "secret"})
    sent = json.loads(json.loads((await executions.Execute(call, timeout=30)).result))
    assert (sent["authorization"], sent["x-colour"]) == ("Bearer secret", "grey")


async def test_a_program_gets_its_own_environment_alone(servers, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "of the service")
    server = await create(servers, stdio(env={"TOKEN": "mine"}))

    answer = await run(servers, server, (await tools_of(servers, server))["environment"])
    seen = json.loads(json.loads(answer.func_return))
    assert seen["TOKEN"] == "mine"
    assert seen.keys() <= {"TOKEN", "PATH", "HOME", "LANG", "LC_CTYPE"}
    assert dict(server.config.stdio.env) == {"TOKEN": "********"}


async def test_refreshing_follows_the_server(servers, changeable, channel):
    server = await create(servers, http(changeable))
    before = await tools_of(servers, server)
    await run(servers, server, before["change"])

    done = await servers.RefreshMCPServer(pb.RefreshMCPServerRequest(mcp_server_id=server.id), timeout=30)

    assert (list(done.added), list(done.updated), list(done.deleted)) == (["fresh"], ["add"], ["boom"])
    after = await tools_of(servers, server)
    assert (after["add"].id, after["add"].version) == (before["add"].id, 2)
    assert json.loads((await run(servers, server, after["add"], a=1, b=2, c=3)).func_return) == "6"
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    with pytest.raises(ToolNotFound):
        await registry.GetTool(GetToolRequest(tool_id=before["boom"].id), timeout=5)
    again = await servers.RefreshMCPServer(pb.RefreshMCPServerRequest(mcp_server_id=server.id), timeout=30)
    assert again == pb.RefreshMCPServerResponse()


async def test_a_taken_name_gets_the_servers_name_in_front(servers, ports, channel):
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    mine = tool_pb2.Tool(source_code='def add():\n    """Mine."""')
    await registry.CreateTool(CreateToolRequest(tool=mine), timeout=5)

    first = await tools_of(servers, await create(servers, http(ports["streamable_http"]), "one"))
    second = await tools_of(servers, await create(servers, http(ports["streamable_http"]), "two"))

    assert "one_add" in first
    assert "boom" in first
    assert {"two_add", "two_boom"} <= set(second)


async def update(servers, server, config, *paths, **values):
    given = MCPServer(config=config, **values)
    request = pb.UpdateMCPServerRequest(mcp_server_id=server.id, mcp_server=given, update_mask=FieldMask(paths=paths))
    return (await servers.UpdateMCPServer(request, timeout=5)).mcp_server


@pytest.mark.parametrize(
    "secrets", [{"auth_token": "secret"}, {"custom_headers": {"x-key": "secret"}}, {"auth_token": "{{ TOKEN }}"}]
)
async def test_secrets_of_a_server_do_not_follow_a_new_address(servers, ports, secrets):
    server = await create(servers, http(ports["streamable_http"], **secrets))
    masked = {name: "********" if isinstance(value, str) else {"x-key": "********"} for name, value in secrets.items()}
    for given in ({}, masked):
        for url in ("http://127.0.0.1:1/mcp", f"http://localhost:{ports['streamable_http']}/mcp"):
            config = MCPServerConfig(streamable_http=StreamableHttpMCPConfig(server_url=url, **given))
            with pytest.raises(SecretRequired):
                await update(servers, server, config)
    other_path = StreamableHttpMCPConfig(server_url=f"http://127.0.0.1:{ports['streamable_http']}/mcp?x=1", **masked)
    assert (await update(servers, server, MCPServerConfig(streamable_http=other_path))).version > server.version
    moved = StreamableHttpMCPConfig(server_url="http://127.0.0.1:1/mcp", **secrets)
    shown = await update(servers, server, MCPServerConfig(streamable_http=moved))
    assert shown.config.streamable_http.server_url == "http://127.0.0.1:1/mcp"


async def test_secrets_of_a_program_do_not_follow_to_another_one(servers):
    server = await create(servers, stdio(env={"TOKEN": "mine", "OTHER": "too"}))
    evil = StdioMCPConfig(command=sys.executable, args=["-c", "import os; print(os.environ)"])
    for env in ({}, {"TOKEN": "********"}, {"TOKEN": "new", "OTHER": "********"}):
        config = MCPServerConfig(stdio=StdioMCPConfig(command=evil.command, args=evil.args, env=env))
        with pytest.raises(SecretRequired, match="env"):
            await update(servers, server, config)
    await update(servers, server, stdio(env={"TOKEN": "********", "OTHER": "new"}))
    fresh = StdioMCPConfig(command=sys.executable, args=[str(DEMO), "stdio", "again"], env={"TOKEN": "new"})
    assert list((await update(servers, server, MCPServerConfig(stdio=fresh))).config.stdio.env) == ["TOKEN"]


async def test_servers_are_listed_changed_and_removed(servers, ports, as_bob, channel):
    server = await create(servers, http(ports["streamable_http"], auth_token="secret"))
    await create(servers, http(ports["streamable_http"]), "other")
    listed = (await servers.ListMCPServers(pb.ListMCPServersRequest(), timeout=5)).mcp_servers
    assert [item.server_name for item in listed] == ["other", "demo"]
    assert (await servers.GetMCPServer(pb.GetMCPServerRequest(mcp_server_id=server.id), timeout=5)).mcp_server == server

    masked = http(ports["streamable_http"], auth_token="********", auth_header="x-key")
    changed = await update(servers, server, masked, server_name="renamed")
    assert (changed.server_name, changed.config.streamable_http.auth_header) == ("renamed", "x-key")
    tool = (await tools_of(servers, server))["headers"]
    assert json.loads(json.loads((await run(servers, server, tool)).func_return))["x-key"] == "secret"

    with pytest.raises(AlreadyExists):
        await update(servers, server, None, server_name="other")
    with pytest.raises(InvalidArgument, match="type"):
        await update(servers, server, stdio())
    with as_bob(), pytest.raises(MCPServerNotFound):
        await servers.DeleteMCPServer(pb.DeleteMCPServerRequest(mcp_server_id=server.id), timeout=5)
    await servers.DeleteMCPServer(pb.DeleteMCPServerRequest(mcp_server_id=server.id), timeout=5)
    with pytest.raises(MCPServerNotFound):
        await servers.GetMCPServer(pb.GetMCPServerRequest(mcp_server_id=server.id), timeout=5)
    registry = tool_service_pb2_grpc.ToolServiceStub(channel)
    with pytest.raises(ToolNotFound):
        await registry.GetTool(GetToolRequest(tool_id=tool.id), timeout=5)


SECRETS = {"auth_token": "secret", "custom_headers": {"x-colour": "blue", "x-shape": "round"}}
ALL = {"authorization": "secret", "x-colour": "blue", "x-shape": "round"}
REMOTE = "config.streamable_http"


async def sent(servers, server):
    """Return the headers that a server gets."""
    tool = (await tools_of(servers, server))["headers"]
    headers = json.loads(json.loads((await run(servers, server, tool)).func_return))
    return {name: headers[name] for name in ("authorization", "x-colour", "x-shape", "x-key") if name in headers}


@pytest.mark.parametrize(
    ("values", "paths", "expected"),
    [
        ({}, [], ALL),
        ({"auth_header": "x-key"}, [], {"x-key": "secret", "x-colour": "blue", "x-shape": "round"}),
        ({}, [f"{REMOTE}.auth_token"], {"x-colour": "blue", "x-shape": "round"}),
        ({}, [f"{REMOTE}.custom_headers"], {"authorization": "secret"}),
        (
            {"custom_headers": {"x-shape": "********"}},
            [f"{REMOTE}.custom_headers"],
            {"authorization": "secret", "x-shape": "round"},
        ),
        (
            {"auth_token": "********", "custom_headers": {"x-shape": "flat"}},
            [REMOTE],
            {"authorization": "secret", "x-shape": "flat"},
        ),
        ({"auth_token": "********"}, ["config"], {"authorization": "secret"}),
        ({}, ["config"], {}),
        ({"auth_token": "other", "custom_headers": {"x-shape": "flat"}}, ["server_name"], ALL),
        (
            {"auth_token": "other", "auth_header": "x-key"},
            [f"{REMOTE}.auth_header"],
            {"x-key": "secret", "x-colour": "blue", "x-shape": "round"},
        ),
    ],
)
async def test_a_mask_names_parts_of_how_a_server_is_reached(servers, ports, values, paths, expected):
    server = await create(servers, http(ports["streamable_http"], **SECRETS))

    shown = await update(servers, server, MCPServerConfig(streamable_http=StreamableHttpMCPConfig(**values)), *paths)

    assert await sent(servers, server) == expected
    assert shown.config.streamable_http.server_url == server.config.streamable_http.server_url
    assert set(shown.config.streamable_http.custom_headers.values()) <= {"********"}


async def test_what_a_mask_clears_keeps_no_secret_from_a_new_address(servers, ports):
    server = await create(servers, http(ports["streamable_http"], **SECRETS))
    moved = MCPServerConfig(streamable_http=StreamableHttpMCPConfig(server_url="http://127.0.0.1:1/mcp"))
    with pytest.raises(SecretRequired):
        await update(servers, server, moved, f"{REMOTE}.server_url", f"{REMOTE}.auth_token")

    shown = await update(servers, server, moved, "config")

    assert shown.config == moved


@pytest.mark.parametrize("path", ["config.sse", "config.stdio.env"])
async def test_a_mask_for_another_transport_is_refused(servers, ports, path):
    server = await create(servers, http(ports["streamable_http"], **SECRETS))

    with pytest.raises(InvalidArgument, match="type"):
        await update(servers, server, None, path)

    assert await sent(servers, server) == ALL


async def change(servers, settings, *paths):
    request = pb.ChangeMCPServerRequest(mcp_server_name="demo", settings=settings, update_mask=FieldMask(paths=paths))
    return (await servers.ChangeMCPServer(request, timeout=5)).mcp_server


async def test_settings_are_changed_whatever_the_transport_is(servers, ports):
    server = await create(servers, http(ports["streamable_http"], **SECRETS))
    settings = MCPServerSettings(auth_header="x-key", auth_token="other")

    await change(servers, settings, "auth_header", "custom_headers")
    assert await sent(servers, server) == {"x-key": "secret"}
    await change(servers, settings)
    assert await sent(servers, server) == {"x-key": "other"}
    await change(servers, MCPServerSettings(), "auth_token")
    assert await sent(servers, server) == {}
    with pytest.raises(InvalidArgument, match="type"):
        await change(servers, MCPServerSettings(), "stdio_config.env")


async def test_settings_of_a_program(servers):
    server = await create(servers, stdio(env={"TOKEN": "mine", "OTHER": "too"}))

    kept = MCPServerSettings(stdio_config=StdioMCPConfig(env={"TOKEN": "********"}))
    assert list((await change(servers, kept, "stdio_config.env")).config.stdio.env) == ["TOKEN"]
    answer = await run(servers, server, (await tools_of(servers, server))["environment"])
    assert json.loads(json.loads(answer.func_return))["TOKEN"] == "mine"
    assert not (await change(servers, MCPServerSettings(), "stdio_config.env")).config.stdio.env
    with pytest.raises(InvalidArgument, match="type"):
        await change(servers, MCPServerSettings(server_url="http://127.0.0.1:1"), "server_url")


async def test_a_server_is_made_and_tried_whole(servers):
    for given in (MCPServer(config=http(1)), MCPServer(server_name="demo"), MCPServer(server_name="")):
        for method, request in (
            (servers.PutMCPServer, pb.PutMCPServerRequest(mcp_server=given)),
            (servers.TestMCPServer, pb.TestMCPServerRequest(mcp_server=given)),
        ):
            with pytest.raises(ValidationFailed, match=r"is required|at least 1 characters"):
                await method(request, timeout=5)
        with pytest.raises(ValidationFailed, match=r"is required|at least 1 characters"):
            [step async for step in servers.ConnectMCPServer(pb.ConnectMCPServerRequest(mcp_server=given), timeout=5)]


async def test_names_of_servers_are_taken_once(servers, ports):
    await create(servers, http(ports["streamable_http"]))
    with pytest.raises(AlreadyExists):
        await create(servers, http(ports["streamable_http"]))


@pytest.mark.parametrize(
    "url",
    [
        "http://server/mcp",
        "http://localhost:1/mcp",
        "http://10.0.0.1/",
        "http://[::1]/",
        "ftp://a.b/",
        "http://u:p@a.b/",
        "x",
    ],
)
async def test_inward_addresses_are_refused(servers, url):
    for config in (
        MCPServerConfig(streamable_http=StreamableHttpMCPConfig(server_url=url)),
        MCPServerConfig(sse=SseMCPConfig(server_url=url)),
    ):
        with pytest.raises(ValidationFailed):
            await create(servers, config)


async def test_incomplete_configurations_are_refused(servers):
    with pytest.raises(InvalidArgument, match="command"):
        await create(servers, MCPServerConfig(stdio=StdioMCPConfig()))
    with pytest.raises(InvalidArgument, match="server_url"):
        await create(servers, MCPServerConfig(sse=SseMCPConfig()))
    with pytest.raises(ValidationFailed):
        await create(servers, MCPServerConfig())


@pytest.mark.parametrize(
    "config",
    [
        stdio(env={"": "x"}),
        stdio(env={"A=B": "x"}),
        stdio(env={"A\nB": "x"}),
        http(1, custom_headers={"X-A": "1\r\nX-Admin: 1"}),
        http(1, custom_headers={"X-A\r\nX-B": "1"}),
        http(1, custom_headers={"X A": "1"}),
        http(1, custom_headers={"X-A": "\u00e9t\u00e9"}),
        http(1, auth_token="\u77f3"),
        http(1, auth_header="X-A: 1\r\nX-B", auth_token="secret"),
        http(1, auth_token="Bearer x\r\nX-Admin: 1"),
    ],
    ids=str,
)
async def test_what_could_be_more_than_one_argument_or_header_is_refused(servers, config):
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await create(servers, config)


async def test_a_server_that_is_down(servers, changeable, executions):
    with pytest.raises(MCPConnectionFailed):
        await create(servers, http(1))
    with pytest.raises(MCPConnectionFailed):
        await create(servers, MCPServerConfig(stdio=StdioMCPConfig(command="/bin/true")))


async def test_a_slow_tool_is_a_timeout(servers, ports, executions):
    server = await create(servers, http(ports["streamable_http"]))
    tool = (await tools_of(servers, server))["sleep"]
    limits = execution_pb.Limits(timeout=Duration(nanos=300_000_000))
    call = execution_pb.ExecuteRequest(tool_id=tool.id, arguments='{"seconds": 5}', limits=limits)

    assert (await executions.Execute(call, timeout=20)).status == execution_pb.EXECUTION_STATUS_TIMEOUT


async def test_variables_of_the_organization_fill_templates(servers, ports, channel):
    configs = sandbox_config_service_pb2_grpc.SandboxConfigServiceStub(channel)
    config = await configs.GetDefaultLocalSandboxConfig(configs_pb.GetDefaultLocalSandboxConfigRequest(), timeout=5)
    request = configs_pb.CreateSandboxEnvironmentVariableRequest(
        sandbox_config_id=config.sandbox_config.id,
        environment_variable=SandboxEnvironmentVariable(key="TOKEN", value="kept"),
    )
    await configs.CreateSandboxEnvironmentVariable(request, timeout=5)
    server = await create(servers, http(ports["streamable_http"], auth_token="{{ TOKEN }}"))

    answer = await run(servers, server, (await tools_of(servers, server))["headers"])

    assert json.loads(json.loads(answer.func_return))["authorization"] == "kept"


async def test_unknown_tools_of_a_server(servers, ports):
    server = await create(servers, http(ports["streamable_http"]))
    request = pb.GetMCPServerToolRequest(mcp_server_id=server.id, tool_id=new_id("tool"))
    with pytest.raises(ToolNotFound):
        await servers.GetMCPServerTool(request, timeout=5)
    request.mcp_server_id = new_id("mcp_server")
    with pytest.raises(MCPServerNotFound):
        await servers.GetMCPServerTool(request, timeout=5)
    tool = (await tools_of(servers, server))["add"]
    found = pb.GetMCPServerToolRequest(mcp_server_id=server.id, tool_id=tool.id)
    assert (await servers.GetMCPServerTool(found, timeout=5)).tool == tool
