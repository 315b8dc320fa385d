"""What was changed last about an agent's tools is what its next message uses, on every replica."""

from letta.tools.v1 import tool_pb2
from letta_common.errors import ServiceUnavailable
from tests.fakes.agent.peers import TwinTools, answer, call, say, tool
from tests.fakes.agent.world import MEMORY, World, returned, shown


def turn(name):
    return answer(call(name)), answer(say("done"))


def edited(found, description, version):
    changed = tool_pb2.Tool(json_schema={"name": found.name, "description": description}, version=version)
    made = tool_pb2.Tool()
    made.CopyFrom(found)
    made.MergeFrom(changed)
    return made


async def test_an_edited_tool_is_what_the_next_message_uses():
    world = await World(*turn("roll"), *turn("roll"), tools=[edited(tool("roll"), "old", 1)]).agent()
    await world.send()
    world.tools.tools["roll"] = edited(tool("roll"), "new", 2)
    await world.send()

    assert [[s.description for s in prompt.tools] for prompt in world.models.prompts] == [["old"]] * 2 + [["new"]] * 2
    assert world.tools.versions == [1, 2]


async def test_it_is_so_on_another_replica_too():
    first = await World(*turn("roll"), tools=[edited(tool("roll"), "old", 1)]).agent()
    second = first.another(*turn("roll"), *turn("roll"))
    await second.send()
    await first.send()
    first.tools.tools["roll"] = edited(tool("roll"), "new", 2)
    await second.send()

    assert first.tools.versions == [1, 1, 2]
    assert second.models.prompts[-1].tools[0].description == "new"


async def test_a_set_that_did_not_change_is_not_sent_again():
    world = await World(answer(say("a")), answer(say("b")), tools=[tool("roll")]).agent()
    await world.send()
    await world.send()

    assert len(world.tools.asked) == 2
    assert world.tools.asked[1]


async def test_a_removed_tool_is_gone_and_the_agent_goes_on():
    world = await World(answer(say("a")), *turn("roll"), tools=[tool("roll"), tool("stay")]).agent()
    await world.send()
    del world.tools.tools["roll"]
    got = await world.send()

    assert returned(got)[0].startswith("[ToolConstraintError] Cannot call roll, valid tools include: ['stay']")
    assert [schema.name for schema in world.models.prompts[-1].tools] == ["stay"]


async def test_built_in_tools_are_not_asked_about_for_each_message():
    script = [answer(say(str(number))) for number in range(4)]
    world = await World(*script, tools=[tool("memory_insert", MEMORY)]).agent()
    for _ in range(4):
        await world.send()

    assert world.tools.asked == [""]


class Away(TwinTools):
    """A tools service that goes away."""

    gone = False

    async def attached(self, tool_ids, etag=""):
        if self.gone:
            raise ServiceUnavailable("nobody there")
        return await super().attached(tool_ids, etag)


async def test_without_the_tools_service_an_agent_can_still_answer():
    tools = Away(tool("roll"))
    world = await World(answer(say("a")), answer(say("b")), twin_tools=tools).agent()
    await world.send()
    tools.gone = True

    assert shown(await world.send()) == ["assistant_message"]
