"""A step reads the messages that decide something, and no older ones, however many are in context."""

import sys
from contextlib import contextmanager

import pytest

from letta.common.v1 import message_pb2
from letta.memory.v1.context_service_pb2 import BeginStepResponse
from letta_agent.domain.context.working import WorkingContext
from letta_agent.domain.peers.memory import Message
from tests.fakes.agent.peers import answer, call, say, tool
from tests.fakes.agent.world import AGENT, World

FEW, MANY = 10, 1_000
TURNS = (message_pb2.MESSAGE_ROLE_USER, message_pb2.MESSAGE_ROLE_ASSISTANT)


@contextmanager
def counted():
    """Collect the parses of messages in the agent service."""
    parsed = []

    def watch(frame, event, value):
        reads = event == "c_call" and value.__name__ in {"FromString", "ParseFromString", "MergeFromString"}
        if reads and "/services/agent/src/" in frame.f_code.co_filename:
            parsed.append(value)

    sys.setprofile(watch)
    try:
        yield parsed
    finally:
        sys.setprofile(None)


async def parses(count, **kind):
    """Return how many parses a message with a tool call takes in the agent service, and how many messages are sent."""
    world = await World(answer(call("roll")), answer(say("Six.")), tools=[tool("roll")]).agent(**kind)
    old = [Message(id=f"message-{n + 1}", role=TURNS[n % 2], parts=[say(f"said {n}")]) for n in range(count)]
    world.memory.thread(AGENT).messages += [message.SerializeToString() for message in old]
    with counted() as parsed:
        await world.send()
    return len(parsed), len(world.models.prompts[0].messages)


@pytest.mark.parametrize("kind", [{}, {"forgetful": True}], ids=["usual", "forgetful"])
async def test_the_length_of_the_history_parses_nothing_more(kind):
    few, sent_of_few = await parses(FEW, **kind)
    many, sent_of_many = await parses(MANY, **kind)

    assert 0 < few == many
    assert (sent_of_few, sent_of_many) == ((1, 1) if kind else (FEW + 1, MANY + 1))


def test_what_leaves_a_context_is_not_read_again():
    old = [Message(id=f"message-{n:04}", role=TURNS[n % 2], parts=[say(f"said {n}")]) for n in range(MANY)]
    context = WorkingContext(BeginStepResponse(messages=[message.SerializeToString() for message in old]))

    with counted() as parsed:
        context.shrink(Message(id="summary"), old[-FEW].id)

    assert [Message.FromString(data).id for data in context.messages] == ["summary", *(m.id for m in old[-FEW:])]
    assert len(parsed) == 1
