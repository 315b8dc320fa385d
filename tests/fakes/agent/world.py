"""One replica of the agent service among twins of the others."""

import asyncio

from letta.agent.v1 import agent_pb2, run_pb2, tool_rule_pb2
from letta.common.v1 import agent_type_pb2, message_pb2, usage_pb2
from letta.memory.v1 import block_pb2
from letta.tools.v1 import tool_pb2
from letta_agent.domain.agents.records import StoredAgent
from letta_agent.domain.context.compactor import Compactor
from letta_agent.domain.journal.event_writer import EventWriter
from letta_agent.domain.loop.deps import LoopDeps
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.runs.runner import Runner, RunnerOptions
from letta_agent.domain.runs.runs import Runs, SendCommand
from letta_agent.domain.toolcalls.builtin import BuiltinTools
from letta_agent.domain.toolcalls.executor import Caller
from letta_agent.domain.toolcalls.toolsets import Toolsets
from letta_common.actor import Actor
from letta_common.clock import SystemClock
from letta_common.values.repeats import Digests
from letta_messages.rendering import type_of
from tests.fakes.agent.agents import FakeAgents
from tests.fakes.agent.peers import ScriptedModels, TwinCredentials, TwinMemory, TwinTools, say
from tests.fakes.agent.runs import FakeRuns

STOP = usage_pb2.StopReason
ANN = Actor("org-a", "user-a", frozenset({"write"}))
AGENT = "agent-1"
SIGNED = b"signed"
MEMORY = tool_pb2.TOOL_TYPE_LETTA_SLEEPTIME_CORE


class NoSecrets:
    def environment(self, organization_id, agent_id, sealed):
        return {"KEY": "value"}


class World:
    """One replica of the agent service among twins; `another()` is a second one on the same data."""

    def __init__(
        self,
        *script,
        tools=(),
        behaviours=None,
        store=None,
        memory=None,
        twin_tools=None,
        takeovers=5,
        models=None,
        credentials=None,
        window=0.0,
        **shares,
    ):
        self.clock = SystemClock()
        self.store = store or FakeRuns(self.clock)
        self.memory = memory or TwinMemory()
        self.models = models or ScriptedModels(*script)
        self.tools = twin_tools or TwinTools(*tools, **(behaviours or {}))
        kit = LoopDeps(
            store=self.store,
            memory=self.memory,
            models=self.models,
            toolsets=Toolsets(self.tools, self.clock),
            caller=Caller(BuiltinTools(self.memory, self.clock), self.tools),
            compactor=Compactor(self.models, self.clock),
            secrets=NoSecrets(),
            clock=self.clock,
        )
        self.writer = EventWriter(self.store, window=window)
        self.credentials = credentials or TwinCredentials()
        options = RunnerOptions(owner=f"replica-{id(self)}", lease_ms=60_000, takeovers=takeovers, **shares)
        self.runner = Runner(kit, self.store, self.credentials, self.writer, options)
        self.runs = Runs(self.store, self.runner, self.memory, self.clock, digests=Digests(b"secret"))

    def state_of(self, **changes):
        """Return the definition of an agent."""
        state = agent_pb2.Agent(id=AGENT, name="a", model="twin/model", system="Be kind.")
        state.agent_type = changes.pop("kind", agent_type_pb2.AGENT_TYPE_LETTA_V1_AGENT)
        state.context_window_limit = changes.pop("window", 128_000)
        state.message_buffer_autoclear = changes.pop("forgetful", False)
        state.model_settings.parallel_tool_calls = changes.pop("parallel", False)
        for name in changes.pop("approve", ()):
            state.tool_rules.add(requires_approval=tool_rule_pb2.RequiresApprovalToolRule(tool_name=name))
        state.tool_rules.extend(changes.pop("rules", ()))
        for moment in (state.created_at, state.updated_at):
            moment.FromDatetime(self.clock.now())
        return state

    async def agent(self, **changes):
        secrets = changes.pop("secrets", b"")
        state = self.state_of(**changes)
        ids = tuple(found.id for found in self.tools.tools.values())
        await FakeAgents(self.store.state).create(ANN, StoredAgent(AGENT, state, ids, secrets))
        first = Message(id="message-0", role=message_pb2.MESSAGE_ROLE_SYSTEM, parts=[say("compiled")])
        await self.memory.provision(AGENT, "a", [block_pb2.Block(label="human", value="Bob", limit=100)], [], [first])
        return self

    def another(self, *script, **more):
        return World(*script, store=self.store, memory=self.memory, twin_tools=self.tools, **more)

    async def send(self, text="hi", **request):
        return await self.runs.send(ANN, send_of(text, **request), SIGNED)

    def texts(self):
        return self.memory.texts(AGENT)[1:]

    def expire(self):
        """Let the leases of this replica run out, as when it died."""
        for thread in self.store.state.threads.values():
            thread.until = self.clock.now()


def send_of(text="hi", *, request_id="", record=False, **request):
    messages = request.pop("messages", None)
    asked = run_pb2.RunRequest(messages=messages) if messages else run_pb2.RunRequest(input_text=text)
    asked.MergeFrom(run_pb2.RunRequest(**request))
    return SendCommand(AGENT, AGENT, asked, request_id, record=record)


def shown(answered):
    return [type_of(message) for message in answered.messages]


def returned(answered):
    [found] = [m.tool_return_message for m in answered.messages if m.HasField("tool_return_message")]
    return found.tool_return, found.status == message_pb2.TOOL_RETURN_STATUS_ERROR


async def asked(world):
    """Wait until the model was asked."""
    while not world.models.prompts:  # noqa: ASYNC110
        await asyncio.sleep(0)
