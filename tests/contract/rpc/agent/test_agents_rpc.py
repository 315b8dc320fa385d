"""Each RPC of AgentService, over the network and in process."""

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from letta.agent.v1 import agent_pb2, tool_rule_pb2
from letta.agent.v1 import agent_service_pb2 as pb
from letta.common.v1 import agent_type_pb2, sort_order_pb2, usage_pb2
from letta.compat.v1.agent_pb2 import AgentCompat
from letta.memory.v1 import block_pb2
from letta_common.actor import Actor, acting_as
from letta_common.errors import (
    AgentNotFound,
    BlockLabelTaken,
    BlockLimitExceeded,
    BlockNotFound,
    ConversationBusy,
    CursorNotFound,
    InvalidArgument,
    ModelNotFound,
    OperationUnimplemented,
    PermissionDenied,
    StaleEtag,
    ToolNotFound,
    ValidationFailed,
)
from letta_common.values.ids import new_id

ALL = [pb.AGENT_INCLUDE_BLOCKS, pb.AGENT_INCLUDE_TOOLS, pb.AGENT_INCLUDE_TAGS, pb.AGENT_INCLUDE_SECRETS]


@pytest.mark.parametrize("method", ["GetAgent", "ListAgents"])
async def test_secrets_are_shown_to_writers_alone(stubs, identities, method):
    org = new_id("org")
    with acting_as(identities.sign(Actor(org, "user-ann"))):
        agent = await stubs.agent(secret_values={"TOKEN": "hush"})
    request = getattr(pb, f"{method}Request")(include=ALL)
    if method == "GetAgent":
        request.agent_id = agent.id
    with acting_as(identities.sign(Actor(org, "user-reader", frozenset({"read"})))):
        with pytest.raises(PermissionDenied, match="write"):
            await getattr(stubs.agents, method)(request, timeout=5)
        request.include.remove(pb.AGENT_INCLUDE_SECRETS)
        assert "hush" not in str(await getattr(stubs.agents, method)(request, timeout=5))
    request.include.append(pb.AGENT_INCLUDE_SECRETS)
    with acting_as(identities.sign(Actor(org, "user-writer", frozenset({"read", "write"})))):
        assert "hush" in str(await getattr(stubs.agents, method)(request, timeout=5))


async def test_an_agent_with_a_block_above_its_limit_is_not_made(stubs):
    for block in (block_pb2.Block(label="a", value="x" * 100_001), block_pb2.Block(label="a", value="x" * 6, limit=5)):
        with pytest.raises(BlockLimitExceeded):
            await stubs.agent(memory_blocks=[block])
    assert not (await stubs.agents.ListAgents(pb.ListAgentsRequest(), timeout=5)).agents


async def got(stubs, agent_id, include=ALL):
    return (await stubs.agents.GetAgent(pb.GetAgentRequest(agent_id=agent_id, include=include), timeout=5)).agent


async def listed(stubs, **query):
    return (await stubs.agents.ListAgents(pb.ListAgentsRequest(**query), timeout=5)).agents


async def updated(stubs, agent_id, *paths, **values):
    request = pb.UpdateAgentRequest(
        agent_id=agent_id, agent=agent_pb2.Agent(**values), update_mask=FieldMask(paths=paths or list(values))
    )
    return (await stubs.agents.UpdateAgent(request, timeout=5)).agent


async def test_an_agent_is_made_and_read(stubs):
    tool = await stubs.tool()
    made = await stubs.agent(
        name="Ada", tools=["roll"], tags=["x"], secret_values={"KEY": "value"}, description="Helps."
    )

    assert made.id.startswith("agent-")
    assert (made.name, made.description, made.model) == ("Ada", "Helps.", "builtin/echo")
    assert [block.value for block in made.blocks] == ["Ann"]
    assert [found.id for found in made.tools] == [tool.id]
    assert (list(made.tags), made.secrets[0].value, len(made.message_ids)) == (["x"], "value", 1)
    assert await got(stubs, made.id) == made
    bare = await got(stubs, made.id, [])
    assert (list(bare.tools), list(bare.blocks), list(bare.tags), list(bare.secrets)) == ([], [], [], [])


async def test_base_tools_come_with_an_agent_unless_refused(stubs):
    assert [tool.name for tool in (await stubs.agent()).tools] == []
    assert {tool.name for tool in (await stubs.agent(include_base_tools=True)).tools} == {
        "conversation_search",
        "memory_insert",
        "memory_replace",
    }


async def test_what_an_agent_is_made_of_must_exist(stubs):
    request = pb.CreateAgentRequest(agent=agent_pb2.Agent(model="builtin/nothing"))
    with pytest.raises(ModelNotFound):
        await stubs.agents.CreateAgent(request, timeout=5)
    with pytest.raises(ToolNotFound):
        await stubs.agent(tools=["nothing"])
    with pytest.raises(BlockNotFound):
        await stubs.agent(block_ids=[new_id("block")])
    with pytest.raises(InvalidArgument):
        await stubs.agent(name="a/b")
    assert list(await listed(stubs)) == []


async def test_the_same_request_makes_one_agent(stubs):
    key = new_id("request")
    first, again = await stubs.agent(request_id=key), await stubs.agent(request_id=key)

    assert first.id == again.id
    with stubs.bob():
        assert (await stubs.agent(request_id=key)).id != first.id


async def test_an_agent_of_another_organization_is_not_found(stubs):
    mine, unknown = await stubs.agent(), new_id("agent")
    calls = [
        lambda i: got(stubs, i),
        lambda i: updated(stubs, i, name="Stolen"),
        lambda i: stubs.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=i), timeout=5),
        lambda i: stubs.agents.AttachBlock(pb.AttachBlockRequest(agent_id=i, block_id=mine.blocks[0].id), timeout=5),
        lambda i: stubs.agents.DetachBlock(pb.DetachBlockRequest(agent_id=i, block_id=mine.blocks[0].id), timeout=5),
        lambda i: stubs.agents.DetachTool(pb.DetachToolRequest(agent_id=i, tool_id=new_id("tool")), timeout=5),
        lambda i: stubs.agents.ListAgentTools(pb.ListAgentToolsRequest(agent_id=i), timeout=5),
        lambda i: stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=i), timeout=5),
        lambda i: stubs.agents.RecompileAgent(pb.RecompileAgentRequest(agent_id=i), timeout=5),
        stubs.send,
    ]
    for call in calls:
        with pytest.raises(AgentNotFound):
            await call(unknown)
        with stubs.bob(), pytest.raises(AgentNotFound):
            await call(mine.id)
    with stubs.bob():
        assert list(await listed(stubs)) == []
    with pytest.raises(ValidationFailed):
        await got(stubs, "block-1")
    assert (await got(stubs, mine.id)).name == mine.name


async def test_agents_are_listed_in_pages(stubs):
    made = [(await stubs.agent(name=f"a{i}")).id for i in range(5)]
    newest = made[::-1]

    assert [a.id for a in await listed(stubs)] == newest
    assert [a.id for a in await listed(stubs, limit=2)] == newest[:2]
    assert [a.id for a in await listed(stubs, limit=2, after=newest[1])] == newest[2:4]
    assert [a.id for a in await listed(stubs, limit=2, before=newest[3])] == newest[1:3]
    assert [a.id for a in await listed(stubs, order=sort_order_pb2.SORT_ORDER_ASC)] == made
    assert [a.id for a in await listed(stubs, compat={"ascending": True}, limit=1)] == made[:1]
    await stubs.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=newest[1]), timeout=5)
    assert [a.id for a in await listed(stubs, after=newest[1])] == newest[2:]
    with pytest.raises(CursorNotFound):
        await listed(stubs, after="agent-never")
    with pytest.raises(ValidationFailed):
        await listed(stubs, limit=-1)


async def test_agents_are_found_and_counted_by_what_they_are(stubs):
    ada, bea = await stubs.agent(name="Ada", tags=["x", "y"]), await stubs.agent(name="Bea", tags=["x"])

    async def count(**query):
        return (await stubs.agents.CountAgents(pb.CountAgentsRequest(**query), timeout=5)).count

    assert [a.id for a in await listed(stubs, name="Ada")] == [ada.id]
    assert [a.id for a in await listed(stubs, query_text="be")] == [bea.id]
    assert [a.id for a in await listed(stubs, tags=["x", "y"], match_all_tags=True)] == [ada.id]
    assert (await count(), await count(tags=["x"]), await count(tags=["y"]), await count(name="Cy")) == (2, 2, 1, 0)


async def test_an_update_writes_what_the_mask_names(stubs):
    agent = await stubs.agent(name="Ada", description="Helps.", tags=["x"], secret_values={"A": "1"})

    changed = await updated(stubs, agent.id, "description", "tags", name="ignored")
    assert (changed.name, changed.HasField("description"), list(changed.tags)) == ("Ada", False, [])
    assert changed.secrets[0].key == "A"
    changed = await updated(
        stubs, agent.id, name="Bea", system="Be kind.", secret_values={"B": "2"}, context_window_limit=9_000
    )
    assert (changed.name, changed.system, changed.context_window_limit) == ("Bea", "Be kind.", 9_000)
    assert [(v.key, v.value) for v in changed.secrets] == [("B", "2")]
    with pytest.raises(InvalidArgument):
        await updated(stubs, agent.id, "nonsense")
    with pytest.raises(InvalidArgument):
        await updated(stubs, agent.id, message_ids=["message-1"])
    with pytest.raises(InvalidArgument, match="memory's"):
        await updated(stubs, agent.id, compat=AgentCompat(message_ids=["message-1"]))
    with pytest.raises(StaleEtag):
        await updated(stubs, agent.id, name="Late", etag=agent.etag)
    with pytest.raises(ModelNotFound):
        await updated(stubs, agent.id, model="builtin/nothing")
    assert (await got(stubs, agent.id)).name == "Bea"


async def test_an_update_replaces_tools_and_blocks(stubs):
    first, second = await stubs.tool("first"), await stubs.tool("second")
    agent, other = await stubs.agent(tool_ids=[first.id]), await stubs.agent()

    changed = await updated(stubs, agent.id, tool_ids=[second.id], block_ids=[other.blocks[0].id])

    assert [tool.name for tool in changed.tools] == ["second"]
    assert [block.id for block in changed.blocks] == [other.blocks[0].id]
    assert list((await updated(stubs, agent.id, "block_ids", "tool_ids")).blocks) == []
    with pytest.raises(ToolNotFound):
        await updated(stubs, agent.id, tool_ids=[new_id("tool")])


async def test_a_deleted_agent_is_gone_and_its_blocks_stay(stubs):
    agent = await stubs.agent()
    block = agent.blocks[0].id
    answer = await stubs.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent.id), timeout=5)

    assert agent.id in answer.message
    with pytest.raises(AgentNotFound):
        await stubs.agents.DeleteAgent(pb.DeleteAgentRequest(agent_id=agent.id), timeout=5)
    assert [b.id for b in (await stubs.agent(memory_blocks=[], block_ids=[block])).blocks] == [block]


async def test_blocks_are_attached_and_detached(stubs):
    agent = await stubs.agent()
    other = await stubs.agent(memory_blocks=[block_pb2.Block(label="task", value="t")])
    task, human = other.blocks[0].id, (await stubs.agent()).blocks[0].id

    async def attached(block_id):
        request = pb.AttachBlockRequest(agent_id=agent.id, block_id=block_id)
        return [block.label for block in (await stubs.agents.AttachBlock(request, timeout=5)).agent.blocks]

    async def detached(block_id):
        request = pb.DetachBlockRequest(agent_id=agent.id, block_id=block_id)
        return [block.label for block in (await stubs.agents.DetachBlock(request, timeout=5)).agent.blocks]

    assert [await attached(task), await attached(task)] == [["human", "task"]] * 2
    with pytest.raises(BlockLabelTaken):
        await attached(human)
    with pytest.raises(BlockNotFound):
        await attached(new_id("block"))
    assert [await detached(task), await detached(task)] == [["human"]] * 2


async def test_tools_are_attached_listed_and_detached(stubs):
    agent = await stubs.agent()
    made = [await stubs.tool(name) for name in ("one", "two", "three")]

    for tool in (*made, made[0]):
        request = pb.AttachToolRequest(agent_id=agent.id, tool_id=tool.id)
        await stubs.agents.AttachTool(request, timeout=5)

    async def names(**query):
        request = pb.ListAgentToolsRequest(agent_id=agent.id, **query)
        return [tool.name for tool in (await stubs.agents.ListAgentTools(request, timeout=5)).tools]

    assert await names() == ["three", "two", "one"]
    assert await names(limit=1) == ["three"]
    assert await names(limit=1, after=made[2].id) == ["two"]
    assert await names(before=made[0].id, limit=1) == ["two"]
    assert await names(order=sort_order_pb2.SORT_ORDER_ASC) == ["one", "two", "three"]
    for _ in range(2):
        await stubs.agents.DetachTool(pb.DetachToolRequest(agent_id=agent.id, tool_id=made[1].id), timeout=5)
    assert await names() == ["three", "one"]
    with pytest.raises(ToolNotFound):
        await stubs.agents.AttachTool(pb.AttachToolRequest(agent_id=agent.id, tool_id=new_id("tool")), timeout=5)


async def test_calls_of_a_tool_wait_for_approval_when_asked(stubs):
    tool = await stubs.tool()
    agent = await stubs.agent(tool_ids=[tool.id])

    async def approval(name, required):
        request = pb.SetToolApprovalRequest(agent_id=agent.id, tool_name=name, requires_approval=required)
        return (await stubs.agents.SetToolApproval(request, timeout=5)).agent

    assert [r.requires_approval.tool_name for r in (await approval("roll", True)).tool_rules] == ["roll"]
    assert list((await approval("roll", False)).tool_rules) == []
    with pytest.raises(ToolNotFound):
        await approval("nothing", True)


async def test_messages_are_forgotten_unless_a_run_is_going_on(stubs):
    agent = await stubs.agent()
    await stubs.send(agent.id)
    assert len((await got(stubs, agent.id)).message_ids) == 3
    waiting = await stubs.held(agent.id)
    with pytest.raises(ConversationBusy):
        await stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), timeout=5)
    stubs.model.release.set()
    await waiting

    reset = (await stubs.agents.ResetMessages(pb.ResetMessagesRequest(agent_id=agent.id), timeout=5)).agent

    assert (len(reset.message_ids), len(reset.blocks)) == (1, 1)
    assert (await stubs.send(agent.id, "again")).messages[0].assistant_message.text == "again"


async def test_the_system_prompt_is_that_of_the_next_step(stubs):
    agent = await stubs.agent(system="Be kind.")
    request = pb.RecompileAgentRequest(agent_id=agent.id, dry_run=True)

    prompt = (await stubs.agents.RecompileAgent(request, timeout=5)).system_prompt

    assert "Be kind." in prompt
    assert "Ann" in prompt


def rules_of(agent):
    return {(rule.WhichOneof("rule"), getattr(rule, rule.WhichOneof("rule")).tool_name) for rule in agent.tool_rules}


async def test_an_agent_of_the_older_kind_gets_its_tools_and_rules(stubs):
    agent = await stubs.agent(agent_type=agent_type_pb2.AGENT_TYPE_MEMGPT_V2_AGENT, include_base_tools=True)
    assert {tool.name for tool in agent.tools} == {
        "memory_insert",
        "memory_replace",
        "conversation_search",
        "send_message",
    }
    assert rules_of(agent) == {
        ("continue_loop", "memory_insert"),
        ("continue_loop", "memory_replace"),
        ("continue_loop", "conversation_search"),
        ("exit_loop", "send_message"),
    }
    own = tool_rule_pb2.ToolRule(exit_loop=tool_rule_pb2.TerminalToolRule(tool_name="memory_insert"))
    kept = await stubs.agent(
        agent_type=agent_type_pb2.AGENT_TYPE_MEMGPT_V2_AGENT, include_base_tools=True, tool_rules=[own]
    )
    assert ("exit_loop", "memory_insert") in rules_of(kept)
    assert ("continue_loop", "memory_insert") not in rules_of(kept)
    bare = await stubs.agent(
        agent_type=agent_type_pb2.AGENT_TYPE_MEMGPT_V2_AGENT, include_base_tools=True, include_base_tool_rules=False
    )
    assert rules_of(bare) == set()


async def test_an_agent_of_the_older_kind_speaks_through_its_tool(stubs):
    agent = await stubs.agent(agent_type=agent_type_pb2.AGENT_TYPE_MEMGPT_AGENT, include_base_tools=True)
    answer = await stubs.send(agent.id, 'call send_message {"message": "Hello!", "request_heartbeat": false}')
    assert [message.assistant_message.text for message in answer.messages] == ["Hello!"]
    assert answer.stop_reason.stop_reason == usage_pb2.STOP_REASON_END_TURN


async def test_an_agent_for_workflows_forgets(stubs):
    agent = await stubs.agent(agent_type=agent_type_pb2.AGENT_TYPE_WORKFLOW_AGENT)
    assert agent.message_buffer_autoclear


@pytest.mark.parametrize("kind", ["VOICE_CONVO", "VOICE_SLEEPTIME"])
async def test_kinds_of_a_later_release_are_refused(stubs, kind):
    with pytest.raises(OperationUnimplemented, match=f"{kind.lower()}_agent"):
        await stubs.agent(agent_type=f"AGENT_TYPE_{kind}_AGENT")


async def test_the_core_memory_of_an_agent_is_told_to_its_organization_alone(stubs):
    agent = await stubs.agent(memory_blocks=[block_pb2.Block(label="human", value="Sam.")])
    request = pb.GetCoreMemoryRequest(agent_id=agent.id)

    memory = (await stubs.agents.GetCoreMemory(request, timeout=5)).memory

    assert [(block.label, block.value) for block in memory.blocks] == [("human", "Sam.")]
    assert memory.agent_type == agent_type_pb2.AGENT_TYPE_LETTA_V1_AGENT
    with stubs.bob(), pytest.raises(AgentNotFound):
        await stubs.agents.GetCoreMemory(request, timeout=5)
