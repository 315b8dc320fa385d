"""Tools that require packages, from the registry to their calls."""

import json
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import sandbox_config_service_pb2_grpc, tool_pb2
from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1.sandbox_config_pb2 import LocalSandboxConfig
from letta.tools.v1.sandbox_config_service_pb2 import CreateLocalSandboxConfigRequest
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, GetBaseToolsRequest, RunToolRequest, UpdateToolRequest
from letta_common.errors import InvalidArgument, ToolRequirementsUnsatisfied, ValidationFailed
from letta_rpc.service import Deps
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.fakes.package_index import add_source, add_wheel, serving
from tests.support.rpc import running

GREET = '''def greet(name: str) -> str:
    """Greet.

    Args:
        name: whom
    """
    import greeter
    return greeter.greet(name)
'''
GREETER = tool_pb2.PipRequirement(name="greeter")

BUILT = Path(tempfile.gettempdir()) / f"built-on-the-host-{os.getpid()}"


@pytest.fixture(scope="module")
async def channel(database_url, identities, tmp_path_factory):
    """The service with packages from an index on loopback."""
    index = tmp_path_factory.mktemp("packages-index")
    add_wheel(index, "greeter", "1.0", "def greet(name):\n    return 'hello ' + name\n")
    add_wheel(index, "greeter", "2.0", "def greet(name):\n    return 'good day ' + name\n")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)  # noqa: ASYNC240 - no blocking to speak of
    BUILT.unlink(missing_ok=True)
    add_source(index, "planter", "1.0", BUILT)
    try:
        with serving(index) as address:
            settings = ToolsSettings(
                database_url=database_url,
                home=tmp_path_factory.mktemp("letta"),
                package_directory=str(directory),
                package_index=address,
            )
            async with running(await build(settings, Deps()), "network", identities=identities) as channel:
                yield channel
    finally:
        shutil.rmtree(directory)


async def created(tools, **values):
    return (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=GREET, **values)), timeout=5)).tool


async def configure(channel, *packages):
    """Give every tool of the organization these packages, specifiers or names and versions."""
    given = [{"named": each} if isinstance(each, dict) else {"specifier": each} for each in packages]
    config = LocalSandboxConfig(pip_requirements={"packages": given})
    configs = sandbox_config_service_pb2_grpc.SandboxConfigServiceStub(channel)
    await configs.CreateLocalSandboxConfig(CreateLocalSandboxConfigRequest(config=config), timeout=5)


@pytest.mark.parametrize(
    ("packages", "greeting"),
    [(("greeter",), '"good day Ann"'), (({"name": "Greeter", "version": "1.0"},), '"hello Ann"'), ((), "")],
)
async def test_packages_of_the_sandbox_are_there_for_every_tool(channel, tools, executions, packages, greeting):
    tool = await created(tools)
    call = pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}')
    assert (await executions.Execute(call, timeout=60)).error_type == "ModuleNotFoundError"
    await configure(channel, *packages)
    prepared = await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=60)

    assert bool(prepared.environment_key) is bool(packages)
    assert (await executions.Execute(call, timeout=60)).result == greeting


async def test_the_version_of_the_tool_counts(channel, tools, executions):
    await configure(channel, "Greeter>=2")
    tool = await created(tools, pip_requirements=[tool_pb2.PipRequirement(name="greeter", version="1.0")])
    call = pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}')

    assert (await executions.Execute(call, timeout=60)).result == '"hello Ann"'


async def test_code_finds_the_packages_of_the_sandbox(channel, tools, executions):
    await configure(channel, "greeter==1.0")
    builtin = (await tools.GetBaseTools(GetBaseToolsRequest(), timeout=5)).tools
    tool_id = next(tool.id for tool in builtin if tool.name == "run_code")
    arguments = json.dumps({"code": "import greeter\ngreeter.greet('Ann')", "language": "python"})
    answer = await executions.Execute(pb.ExecuteRequest(tool_id=tool_id, arguments=arguments), timeout=60)

    assert json.loads(answer.result)["results"] == ["hello Ann"], answer


async def test_packages_of_the_sandbox_that_cannot_be_installed_are_named(channel, tools, executions):
    await configure(channel, "greeter==3.0")
    tool = await created(tools)
    answer = await executions.Execute(pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}'), timeout=60)

    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
    assert "greeter" in answer.error_message


async def test_a_tool_runs_with_what_it_requires(tools, executions):
    tool = await created(tools, pip_requirements=[GREETER])
    prepared = await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=60)
    again = await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=60)
    call = pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}')
    answer = await executions.Execute(call, timeout=60)

    assert prepared.environment_key
    assert again.environment_key == prepared.environment_key
    assert (answer.status, answer.result) == (pb.EXECUTION_STATUS_SUCCESS, '"good day Ann"'), answer


async def test_a_version_is_kept_to(tools, executions):
    tool = await created(tools, pip_requirements=[tool_pb2.PipRequirement(name="greeter", version="1.0")])
    call = pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}')

    assert (await executions.Execute(call, timeout=60)).result == '"hello Ann"'


async def test_source_from_outside_runs_with_what_it_requires(tools):
    request = RunToolRequest(source_code=GREET, args='{"name": "Ann"}', name="greet", pip_requirements=[GREETER])
    message = (await tools.RunTool(request, timeout=60)).message

    assert message.tool_return_message.tool_return == "good day Ann"


async def test_what_cannot_be_installed_is_said(tools, executions):
    tool = await created(tools, pip_requirements=[tool_pb2.PipRequirement(name="greeter", version="3.0")])
    with pytest.raises(ToolRequirementsUnsatisfied) as raised:
        await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=60)
    answer = await executions.Execute(pb.ExecuteRequest(tool_id=tool.id, arguments='{"name": "Ann"}'), timeout=60)

    assert raised.value.metadata["requirements"] == "greeter==3.0"
    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
    assert "greeter" in answer.error_message


SMUGGLED = {
    "an option in a marker": "planter; os_name == 'posix'\n--no-binary=planter",
    "an option in a text of a marker": "planter; os_name != 'x\n--no-binary=planter\n'",
    "an option after extras": "planter[\n--no-binary=planter\n]",
    "an option between versions": "planter>=1,\n--no-binary=planter",
    "a file in a marker": "planter; os_name == 'posix'\n-r /etc/passwd",
    "another index": "planter\r\n--index-url=http://127.0.0.1:9",
    "a form feed": "planter\x0c--pre",
    "a line separator": "planter\u2028--pre",
    "a continued line": "planter \\\n --no-binary planter",
    "an option beside": "planter --no-binary=planter",
    "an option in a text": "planter; os_name != 'x --no-binary=planter'",
    "a comment": "planter # x",
    "a variable of the environment": "planter==${HOME}",
    "a variable in a marker": "planter; os_name != '${HTTPS_PROXY}'",
    "an address": "planter @ http://127.0.0.1:9/planter-1.0.tar.gz",
    "a repository": "planter @ git+https://127.0.0.1:9/x",
    "a bare address": "http://127.0.0.1:9/planter-1.0.tar.gz",
    "a path": "./planter",
    "an archive": "/tmp/planter-1.0.tar.gz",
    "an editable path": "-e .",
    "a file of options": "-r /etc/passwd",
    "an option": "--no-binary=:all:",
    "any version in brackets": "planter===1.0/../..",
    "letters of no alphabet": "pl\u0430nter",
    "too deep a marker": "planter; " + "(" * 480,
    "too long": "planter" + ">=1," * 200 + ">=1",
    "nothing": " ",
}


@pytest.mark.parametrize("name", list(SMUGGLED))
async def test_a_requirement_is_never_anything_else(tools, executions, name):
    source = pb.ToolSource(source_code=GREET, function="greet", requirements=["greeter", SMUGGLED[name]])
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await executions.Execute(pb.ExecuteRequest(source=source, arguments='{"name": "Ann"}'), timeout=60)

    assert not BUILT.exists(), "code of a package ran as the user of the service"


async def test_what_must_be_built_is_not(executions):
    source = pb.ToolSource(source_code=GREET, function="greet", requirements=["planter"])
    answer = await executions.Execute(pb.ExecuteRequest(source=source, arguments='{"name": "Ann"}'), timeout=60)

    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
    assert not BUILT.exists()


async def test_markers_extras_and_versions_are_kept(executions):
    wanted = "Greeter[ x ] >= 1 , < 2 ; python_version >= '3' and os_name == 'posix'"
    unwanted = "planter ; os_name == 'nt'"
    source = pb.ToolSource(source_code=GREET, function="greet", requirements=[wanted, unwanted])
    answer = await executions.Execute(pb.ExecuteRequest(source=source, arguments='{"name": "Ann"}'), timeout=60)

    assert answer.result == '"hello Ann"', answer


@pytest.mark.parametrize("version", ["--pre", "latest", "1.*.*", "-1"])
async def test_a_version_that_is_none_is_refused_when_a_tool_is_made_changed_or_run(tools, version):
    bad = tool_pb2.PipRequirement(name="greeter", version=version)
    tool = await created(tools, pip_requirements=[GREETER])
    change = tool_pb2.Tool(pip_requirements=[bad])
    mask = FieldMask(paths=["pip_requirements"])
    run = RunToolRequest(source_code=GREET, args='{"name": "Ann"}', name="greet", pip_requirements=[bad])

    with pytest.raises((InvalidArgument, ValidationFailed)):
        await created(tools, pip_requirements=[bad])
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await tools.UpdateTool(UpdateToolRequest(tool_id=tool.id, tool=change, update_mask=mask), timeout=5)
    with pytest.raises((InvalidArgument, ValidationFailed)):
        await tools.RunTool(run, timeout=60)


async def test_where_packages_come_from_and_go_to_is_not_told(executions):
    source = pb.ToolSource(source_code=GREET, function="greet", requirements=["no-such-package"])
    answer = await executions.Execute(pb.ExecuteRequest(source=source, arguments='{"name": "Ann"}'), timeout=60)

    assert answer.status == pb.EXECUTION_STATUS_REFUSED
    assert "no-such-package" in answer.error_message
    assert "127.0.0.1" not in answer.error_message
    assert "/var/tmp" not in answer.error_message
