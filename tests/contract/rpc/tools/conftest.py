"""The tools service behind both transports."""

import sys
from pathlib import Path

import pytest

from letta.tools.v1 import mcp_server_service_pb2_grpc, tool_execution_service_pb2_grpc, tool_service_pb2_grpc
from letta_common.actor import Actor, acting_as
from letta_rpc.service import Deps
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.support.rpc import running


@pytest.fixture(scope="module", params=["network", "local"])
async def channel(request, database_url, identities, tmp_path_factory):
    settings = ToolsSettings(
        database_url=database_url,
        home=tmp_path_factory.mktemp("letta"),
        mcp_stdio=True,
        mcp_stdio_organizations=("*",),
        mcp_stdio_paths=(sys.prefix, sys.base_prefix, str(Path(__file__).parent)),
        mcp_list_seconds=10,
        egress_allowed_hosts=("127.0.0.1",),
        egress_hosts_of_organizations=("*.example.com",),
    )
    service = await build(settings, Deps())
    async with running(service, request.param, identities=identities) as channel:
        yield channel


@pytest.fixture
def tools(channel):
    return tool_service_pb2_grpc.ToolServiceStub(channel)


@pytest.fixture
def executions(channel):
    return tool_execution_service_pb2_grpc.ToolExecutionServiceStub(channel)


@pytest.fixture
def servers(channel):
    return mcp_server_service_pb2_grpc.MCPServerServiceStub(channel)


@pytest.fixture(autouse=True)
def as_ann(identities, ann):
    """Calls come from a new organization, unless the test says otherwise."""
    with acting_as(identities.sign(ann)):
        yield


@pytest.fixture
def as_bob(identities):
    """Make the calls of a block come from another organization."""
    return lambda: acting_as(identities.sign(Actor("org-bob", "user-bob")))
