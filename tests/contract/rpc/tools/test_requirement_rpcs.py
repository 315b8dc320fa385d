"""Tools that require packages, from the registry to their calls."""

import shutil
import tempfile
from pathlib import Path

import pytest

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_execution_service_pb2_grpc, tool_pb2, tool_service_pb2_grpc
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, RunToolRequest
from letta_common.errors import ToolRequirementsUnsatisfied
from letta_common.rpc_testing import running
from letta_common.service import Deps
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.fakes.package_index import add_wheel, serving

GREET = '''def greet(name: str) -> str:
    """Greet.

    Args:
        name: whom
    """
    import greeter
    return greeter.greet(name)
'''
GREETER = tool_pb2.PipRequirement(name="greeter")


@pytest.fixture(scope="module")
async def channel(database_url, identities, tmp_path_factory):
    """The service with packages from an index on loopback."""
    index = tmp_path_factory.mktemp("packages-index")
    add_wheel(index, "greeter", "1.0", "def greet(name):\n    return 'hello ' + name\n")
    add_wheel(index, "greeter", "2.0", "def greet(name):\n    return 'good day ' + name\n")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)  # noqa: ASYNC240 - no blocking to speak of
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


@pytest.fixture
def tools(channel):
    return tool_service_pb2_grpc.ToolServiceStub(channel)


@pytest.fixture
def executions(channel):
    return tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)


async def created(tools, **values):
    return (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=GREET, **values)), timeout=5)).tool


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
