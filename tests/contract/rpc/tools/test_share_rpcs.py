"""What organizations share of executions: a flood of one is its own affair."""

import asyncio

import pytest

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_pb2, tool_service_pb2_grpc
from letta.tools.v1.tool_service_pb2 import CreateToolRequest
from letta_common.codes import Code
from letta_common.errors import RateLimited
from letta_rpc.service import Deps
from letta_tools.settings import ToolsSettings
from letta_tools.wiring import build
from tests.support.rpc import running

NAP = "import time\ndef nap():\n    time.sleep(100)"
TRIVIAL = "def f():\n    return 1"
ADD = '''def add(a: int) -> int:
    """Add.

    Args:
        a: one
    """
    return a + 1
'''


@pytest.fixture(scope="module")
async def channel(database_url, identities, tmp_path_factory):
    settings = ToolsSettings(
        database_url=database_url,
        home=tmp_path_factory.mktemp("letta"),
        concurrent_calls=8,
        concurrent_calls_per_organization=4,
        waiting_calls_per_organization=296,
    )
    async with running(await build(settings, Deps()), "network", identities=identities) as channel:
        yield channel


def bare(source):
    return pb.ExecuteRequest(source=pb.ToolSource(source_code=source))


async def test_a_flood_of_one_organization_delays_no_other_and_has_an_end(channel, executions, as_bob):
    flood = [asyncio.ensure_future(executions.Execute(bare(NAP), timeout=90)) for _ in range(301)]
    refused, _ = await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    with as_bob():
        tools = tool_service_pb2_grpc.ToolServiceStub(channel)
        tool = (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=ADD)), timeout=60)).tool
        registered = pb.ExecuteRequest(tool_id=tool.id, arguments='{"a": 1}', idempotency_key="run:1:0")
        answers = [await executions.Execute(request, timeout=60) for request in (bare(TRIVIAL), registered)]
    ended = [call for call in flood if call.done()]
    for call in flood:
        call.cancel()
    results = await asyncio.gather(*flood, return_exceptions=True)

    assert [answer.result for answer in answers] == ["1", "2"]
    assert len(refused) == len(ended) == 1, (
        "four run, 296 wait, one is refused, and the other organization has its answers"
    )
    (error,) = [result for result in results if isinstance(result, RateLimited)]
    assert error.code is Code.RESOURCE_EXHAUSTED
    assert error.metadata["retry_after"]


async def test_a_refused_call_may_be_made_again_with_its_key(executions):
    flood = [asyncio.ensure_future(executions.Execute(bare(NAP), timeout=90)) for _ in range(301)]
    await asyncio.wait(flood, return_when=asyncio.FIRST_COMPLETED)
    request = pb.ExecuteRequest(source=pb.ToolSource(source_code=TRIVIAL), idempotency_key="run:1:0")
    with pytest.raises(RateLimited):
        await executions.Execute(request, timeout=60)
    for call in flood:
        call.cancel()
    await asyncio.gather(*flood, return_exceptions=True)
    answer = await executions.Execute(request, timeout=60)

    assert (answer.result, answer.repeated_call) == ("1", False)
