"""The tools service with each remote provider, as its settings make it."""

import json

import pytest

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_execution_service_pb2_grpc, tool_pb2, tool_service_pb2_grpc
from letta.tools.v1.tool_service_pb2 import CreateToolRequest
from letta_common.errors import IsolationUnavailable
from letta_rpc.service import Deps
from letta_sandbox.calls import Limits
from letta_sandbox.remote.machines import OWNER, ROLE, TOOL_CALL, UNTIL, Shape
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
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


@pytest.fixture
async def channel(vendor, database_url, identities, tmp_path):
    """Start the service where an earlier one left a machine whose time is over."""
    machines = vendor.machines()
    await machines.start(Shape(Limits(), 0, 60, {ROLE: TOOL_CALL, OWNER: "0123456789abcdef", UNTIL: "1"}))
    await machines.close()
    settings = ToolsSettings(database_url=database_url, home=tmp_path, **settings_of(vendor, tmp_path))
    async with running(await build(settings, Deps()), "local", identities=identities) as channel:
        yield channel


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
