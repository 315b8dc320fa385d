"""What is away while a memory tool runs: tried again under the key of the call, and no word of it to the model."""

import pytest

from letta.agent.v1 import agent_service_pb2 as pb
from letta.common.v1 import message_pb2
from letta.memory.v1 import block_pb2
from letta_agent.clients import patience
from letta_agent.domain.toolcalls.failures import NEUTRAL, for_model
from letta_common.errors import (
    BlockNotFound,
    DatabaseUnavailable,
    DeadlineExceeded,
    InternalError,
    LLMUnavailable,
    RequestCancelled,
    ServiceUnavailable,
)

INSIDE = 'connection to server on socket "/tmp/pg/.s.PGSQL.5432" failed; ipv4:10.0.0.5:5432'
AWAY = [DatabaseUnavailable, ServiceUnavailable, DeadlineExceeded, RequestCancelled]
TRIES = 7
APPEND = 'call core_memory_append {"label": "human", "content": "Likes tea."}'
ARCHIVE = 'call archival_memory_insert {"content": "Likes tea."}'
SEARCH = 'call archival_memory_search {"query": "tea"}'


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(patience, "PAUSES", (0.0,) * TRIES)


async def remembering(stubs):
    tools = ["core_memory_append", "archival_memory_insert", "archival_memory_search"]
    return await stubs.agent(tools=tools, memory_blocks=[block_pb2.Block(label="human", value="Ann", limit=1000)])


def returned(answer):
    [told] = [m.tool_return_message for m in answer.messages if m.HasField("tool_return_message")]
    return told


@pytest.mark.parametrize("kind", AWAY)
@pytest.mark.parametrize(
    ("method", "call"),
    [
        ("EditBlock", APPEND),
        ("CreateArchivalMemory", ARCHIVE),
        ("SearchArchivalMemory", SEARCH),
        ("CommitStep", APPEND),
    ],
)
@pytest.mark.parametrize("after", [False, True])
async def test_a_memory_call_that_fails_is_made_again_and_counts_once(stubs, kind, method, call, after):
    agent = await remembering(stubs)
    stubs.faults.plan(method, *(kind(INSIDE) for _ in range(TRIES)), after=after)
    answer = await stubs.send(agent.id, call)
    assert stubs.faults.calls[method] > TRIES
    assert returned(answer).status == message_pb2.TOOL_RETURN_STATUS_SUCCESS
    assert not any(".s.PGSQL" in text or "10.0.0.5" in text for text in stubs.model.seen)
    shown = await stubs.send(agent.id, SEARCH)
    if call == ARCHIVE:
        assert returned(shown).tool_return.count("Likes tea.") == 1
    block = (await stubs.agents.GetAgent(_get(agent.id), timeout=5)).agent.blocks[0].value
    assert block == ("Ann\nLikes tea." if call == APPEND else "Ann")


@pytest.mark.parametrize("error", [InternalError, LLMUnavailable])
async def test_the_model_reads_nothing_of_an_internal_error(stubs, error):
    agent = await remembering(stubs)
    stubs.faults.plan("EditBlock", error(INSIDE))
    told = returned(await stubs.send(agent.id, APPEND))
    assert (told.tool_return, told.status) == (NEUTRAL, message_pb2.TOOL_RETURN_STATUS_ERROR)


def test_what_the_model_can_mend_is_told_as_it_is():
    assert for_model(BlockNotFound("the agent has no block 'x'")) == "the agent has no block 'x'"


@pytest.mark.parametrize(
    "arguments",
    [
        '{"query": "tea", "top_k": 1e400}',
        '{"query": "tea", "top_k": 99999999999999999999999}',
        '{"query": "\\ud83d"}',
        '{"query": "tea", "start_datetime": "0001-01-01T00:00:00+23:00"}',
        '{"query": "tea", "end_datetime": "9999-12-31T23:59:59-23:00"}',
    ],
)
async def test_no_argument_of_a_model_ends_a_run(stubs, arguments):
    agent = await remembering(stubs)
    answer = await stubs.send(agent.id, f"call archival_memory_search {arguments}")
    assert NEUTRAL not in returned(answer).tool_return


def _get(agent_id):
    return pb.GetAgentRequest(agent_id=agent_id, include=[pb.AGENT_INCLUDE_BLOCKS])
