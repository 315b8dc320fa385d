"""Work on a long context leaves everybody else their turns."""

import asyncio
import json

from letta.agent.v1 import agent_pb2
from letta.common.v1 import message_pb2
from letta.common.v1.message_pb2 import COMPACTION_TRIGGER_POST_STEP
from letta.memory.v1.context_service_pb2 import BeginStepResponse
from letta_agent.domain.agents.context_window import Overview
from letta_agent.domain.context.compactor import CompactionRequest, Compactor
from letta_agent.domain.context.system_prompt import Sections
from letta_agent.domain.context.working import WorkingContext
from letta_agent.domain.peers.memory import Message
from letta_agent.servicers.overviews import pack_overview
from letta_common.clock import SystemClock
from tests.fakes.agent.peers import ScriptedModels, answer, say

LONG = 17_000
MOST = 256
"""Messages that may be read from one turn to the next."""
ROLES = (message_pb2.MESSAGE_ROLE_USER, message_pb2.MESSAGE_ROLE_ASSISTANT)


def long_history() -> list[bytes]:
    said = [Message(id=f"message-{n}", role=ROLES[n % 2], parts=[say(f"said {n}")]) for n in range(LONG)]
    return [message.SerializeToString() for message in said]


async def turns_during(work):
    """Do some work beside somebody who wants every turn; return what it returns and how many turns there were."""
    turns, doing = 0, asyncio.ensure_future(work)
    while not doing.done():
        await asyncio.sleep(0)
        turns += 1
    return await doing, turns


async def test_measuring_a_long_context_leaves_everybody_else_their_turns():
    context = WorkingContext(BeginStepResponse(messages=long_history()))

    tokens, turns = await turns_during(context.measure(0))

    assert tokens > LONG
    assert turns >= LONG // MOST


async def test_showing_a_long_context_leaves_everybody_else_their_turns():
    messages = tuple(Message.FromString(data) for data in long_history())
    overview = Overview("agent-1", "agent-1", 1_000, "Be kind.", Sections("", "", "", ""), messages, 9, (), LONG, 0)

    shown, turns = await turns_during(pack_overview(overview))

    assert [each["id"] for each in json.loads(shown.messages)] == [message.id for message in messages]
    assert turns >= LONG // MOST


async def test_compacting_a_long_context_leaves_everybody_else_their_turns():
    full = CompactionRequest(
        state=agent_pb2.Agent(id="agent-1"),
        messages=long_history(),
        overhead=0,
        window=1_000,
        model="m",
        trigger=COMPACTION_TRIGGER_POST_STEP,
    )

    moved, turns = await turns_during(Compactor(ScriptedModels(answer(say("All of it."))), SystemClock()).compact(full))

    assert moved is not None
    assert moved.summary.compaction_stats.messages_count_before == LONG
    assert turns >= 2 * (LONG // MOST), "they are read, and then written down for the model"
