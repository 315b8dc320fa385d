"""The tools service with each remote provider, as its settings make it."""

import json
import shutil
import tempfile
from pathlib import Path

import pytest

from letta.tools.v1 import (
    sandbox_config_service_pb2_grpc,
    tool_execution_service_pb2_grpc,
    tool_pb2,
    tool_service_pb2_grpc,
)
from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1.sandbox_config_pb2 import SandboxSettings
from letta.tools.v1.sandbox_config_service_pb2 import (
    CreateSandboxConfigRequest,
    CreateSandboxEnvironmentVariableRequest,
)
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, ResolveToolsRequest
from letta_common.errors import IsolationUnavailable
from letta_rpc.service import Deps
from letta_sandbox.calls import Limits
from letta_sandbox.remote.machines import OWNER, ROLE, TOOL_CALL, UNTIL, Shape
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.fakes.package_index import add_wheel, serving
from tests.fakes.vendors import settled
from tests.support.rpc import running

SOURCE = '''def add(a: int, b: int) -> int:
    """Add.

    Args:
        a: one
        b: two
    """
    return a + b
'''


def settings_of(vendor, directory):
    """Return the settings that an operator writes for this vendor."""
    values = {
        "docker": lambda: {"docker_address": f"unix://{vendor.fake.server_address}"},
        "e2b": lambda: {
            "e2b_api_key": vendor.secrets[0],
            "e2b_api_url": vendor.fake.address,
            "e2b_sandbox_url": vendor.fake.address,
        },
        "kubernetes": lambda: {
            "kubernetes_namespace": "letta",
            "kubernetes_config_file": vendor.fake.config_file(directory),
        },
        "modal": lambda: {"modal_token_id": vendor.secrets[0], "modal_token_secret": vendor.secrets[1]},
    }
    return {"sandbox_provider": vendor.name, **values[vendor.name]()}


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Return the settings of packages from an index on loopback."""
    index = tmp_path_factory.mktemp("packages-index")
    add_wheel(index, "greeter", "1.0", "def greet(name):\n    return 'hello ' + name\n")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    with serving(index) as address:
        yield {"package_directory": str(directory), "package_index": address}
    shutil.rmtree(directory)


@pytest.fixture
async def channel(vendor, database_url, identities, tmp_path, packages):
    """Start the service where an earlier one left a machine whose time is over."""
    machines = vendor.machines()
    await machines.start(Shape(Limits(), 0, 60, {ROLE: TOOL_CALL, OWNER: "0123456789abcdef", UNTIL: "1"}))
    await machines.close()
    settings = ToolsSettings(database_url=database_url, home=tmp_path, **packages, **settings_of(vendor, tmp_path))
    async with running(await build(settings, Deps()), "local", identities=identities) as channel:
        yield channel


GREETER = {"packages": [{"specifier": "greeter"}]}
SLOW = "import time\ndef wait() -> int:\n    time.sleep(60)\n    return 1"
PACKAGED = "import os, greeter\ndef greet() -> str:\n    return greeter.greet(os.environ['WHOM'])"


def settings_for(vendor, **values):
    """Return settings of the kind of sandbox that calls on machines of this vendor count as."""
    return SandboxSettings(**{vendor.name if vendor.name in {"e2b", "modal"} else "local": values})


async def configured(channel, settings):
    configs = sandbox_config_service_pb2_grpc.SandboxConfigServiceStub(channel)
    made = await configs.CreateSandboxConfig(CreateSandboxConfigRequest(config=settings), timeout=5)
    return configs, made.sandbox_config


async def test_what_the_configuration_of_its_kind_says_holds_there(vendor, channel):
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    configs, config = await configured(channel, settings_for(vendor, pip_requirements=GREETER))
    variable = CreateSandboxEnvironmentVariableRequest(
        sandbox_config_id=config.id, environment_variable={"key": "WHOM", "value": "Ann"}
    )
    await configs.CreateSandboxEnvironmentVariable(variable, timeout=5)
    call = pb.ExecuteRequest(source=pb.ToolSource(source_code=PACKAGED))
    answer = await executions.Execute(call, timeout=60)

    assert (answer.status, answer.result) == (pb.EXECUTION_STATUS_SUCCESS, '"hello Ann"'), answer


async def test_the_time_of_the_configuration_bounds_a_call(vendor, channel):
    if vendor.name not in {"e2b", "modal"}:
        pytest.skip("hosts of the operator have the deployment's time alone")
    await configured(channel, settings_for(vendor, timeout={"seconds": 1}))
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    answer = await executions.Execute(pb.ExecuteRequest(source=pb.ToolSource(source_code=SLOW)), timeout=50)

    assert answer.status == pb.EXECUTION_STATUS_TIMEOUT, answer


async def test_sandboxes_are_made_of_the_template_of_the_configuration(vendor, channel):
    if vendor.name != "e2b":
        pytest.skip("only E2B knows templates")
    await configured(channel, SandboxSettings(e2b={"template": "mine", "pip_requirements": GREETER}))
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    before = len(vendor.fake.created)
    source = pb.ToolSource(source_code="import greeter\ndef greet() -> str:\n    return greeter.greet('Ann')")
    answer = await executions.Execute(pb.ExecuteRequest(source=source), timeout=60)

    assert answer.result == '"hello Ann"', answer
    assert {asked["templateID"] for asked in vendor.fake.created[before:]} == {"mine"}


async def test_node_packages_of_the_configuration_are_refused_as_those_of_a_tool_are(vendor, channel):
    if vendor.name != "modal":
        pytest.skip("only the configuration of Modal has any")
    await configured(channel, settings_for(vendor, npm_requirements={"packages": [{"specifier": "left-pad"}]}))
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    script = {"source_code": "export function one() { return 1; }", "source_type": "TOOL_SOURCE_TYPE_TYPESCRIPT"}
    answer = await executions.Execute(pb.ExecuteRequest(source=pb.ToolSource(**script)), timeout=30)

    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
    assert "left-pad" in answer.error_message

    tools = tool_service_pb2_grpc.ToolServiceStub(channel)
    run_code = (await tools.ResolveTools(ResolveToolsRequest(names=["run_code"]), timeout=5)).tools[0]
    for language in ("js", "ts"):
        code = json.dumps({"language": language, "code": "require('left-pad')"})
        answer = await executions.Execute(pb.ExecuteRequest(tool_id=run_code.id, arguments=code), timeout=30)

        assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
        assert "left-pad" in answer.error_message


async def test_a_tool_runs_there_and_nothing_is_left(vendor, channel):
    tools = tool_service_pb2_grpc.ToolServiceStub(channel)
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    tool = (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=SOURCE)), timeout=5)).tool

    answer = await executions.Execute(pb.ExecuteRequest(tool_id=tool.id, arguments='{"a": 1, "b": 2}'), timeout=30)
    report = await executions.GetIsolation(pb.GetIsolationRequest(), timeout=30)

    assert (answer.status, json.loads(answer.result)) == (pb.EXECUTION_STATUS_SUCCESS, 3), answer
    assert answer.provider == report.provider == pb.ExecutionProvider.Value(f"EXECUTION_PROVIDER_{vendor.name.upper()}")
    assert answer.isolation == report.isolation
    await settled(lambda: sum(labels.get(UNTIL) == "1" for labels in vendor.left().values()), 0)


async def test_without_the_vendor_calls_fail_and_say_so(vendor, channel):
    tools = tool_service_pb2_grpc.ToolServiceStub(channel)
    executions = tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)
    tool = (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=SOURCE)), timeout=5)).tool
    vendor.fake.faults += [vendor.broken] * 50

    with pytest.raises(IsolationUnavailable, match=vendor.name):
        await executions.Execute(pb.ExecuteRequest(tool_id=tool.id, arguments='{"a": 1, "b": 2}'), timeout=30)
