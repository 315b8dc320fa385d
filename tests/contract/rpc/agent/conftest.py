"""The agent service over both transports, with the real services behind it and a model that does as it is told."""

import asyncio
from inspect import iscoroutinefunction

import pytest
from pydantic import SecretStr

import letta_llm_gateway.wiring
import letta_memory.wiring
import letta_tools.wiring
from letta.agent.v1 import (
    agent_pb2,
    agent_service_pb2_grpc,
    conversation_service_pb2_grpc,
    run_pb2,
    run_service_pb2_grpc,
    step_service_pb2_grpc,
)
from letta.agent.v1.agent_service_pb2 import CreateAgentRequest
from letta.agent.v1.run_service_pb2 import SendMessageRequest
from letta.auth.v1 import credential_service_pb2, credential_service_pb2_grpc
from letta.common.v1 import message_pb2
from letta.llm.v1 import generation_service_pb2, generation_service_pb2_grpc
from letta.memory.v1 import block_pb2
from letta.tools.v1 import tool_pb2, tool_service_pb2, tool_service_pb2_grpc
from letta_agent.settings import AgentSettings
from letta_agent.wiring import build
from letta_common.actor import Actor, acting_as
from letta_common.errors import LLMRateLimit
from letta_common.values.ids import new_id
from letta_llm_gateway.providers.vendors.builtin import last_text
from letta_llm_gateway.servicers.generations import GenerationServicer
from letta_llm_gateway.settings import LLMGatewaySettings
from letta_memory.settings import MemorySettings
from letta_rpc.service import Deps, Service
from letta_tools.settings import ToolsSettings
from tests.support.rpc import running

TIMEOUT = 20


class Issuer(credential_service_pb2_grpc.CredentialServiceServicer):
    """Signs for runs as auth does, with the key of the tests."""

    def __init__(self, identities):
        self._identities = identities

    async def IssueRunContext(self, request, context):
        signed = self._identities.sign(Actor(request.organization_id, request.user_id))
        answer = credential_service_pb2.IssueRunContextResponse()
        answer.context.ParseFromString(signed)
        return answer


class Model(generation_service_pb2_grpc.GenerationServiceServicer):
    """Obeys the user's message: `hold` waits, `fail` fails, `call NAME JSON` calls a tool; all else is an echo."""

    def __init__(self, real):
        self._real = real
        self.release = asyncio.Event()
        self.release.set()
        self.holding = asyncio.Event()
        self.seen = []
        self.shapes = []
        self.returned = []
        self.failures = []

    def hold(self):
        """Let `hold` wait from now on."""
        self.release.clear()
        self.holding.clear()

    async def Generate(self, request, context):
        made = await self._obey(request.prompt)
        if made is None:
            return await self._real.Generate(request, context)
        return generation_service_pb2.GenerateResponse(generation=made)

    async def StreamGenerate(self, request, context):
        await self._obey(request.prompt)
        async for event in self._real.StreamGenerate(request, context):
            yield event

    async def _obey(self, prompt):
        messages = list(map(message_pb2.Message.FromString, prompt.messages))
        last = messages[-1]
        self.seen = [last_text(message) for message in messages]
        self.shapes = [shape(message) for message in messages]
        parts = [part for message in messages for part in message.parts]
        self.returned = [part.tool_return.content for part in parts if part.HasField("tool_return")]
        failure = self.failures.pop(0) if self.failures else None
        if failure is not None:
            raise failure
        text = last_text(last) if last.role == message_pb2.MESSAGE_ROLE_USER else ""
        if text == "hold":
            self.holding.set()
            await self.release.wait()
        if text == "fail":
            raise LLMRateLimit("the vendor wants us to wait", retry_after="0")
        if not text.startswith(("call ", "calls ")):
            return None
        word, name, given = text.split(" ", 2)
        inputs = [given] if word == "call" else [f"{part}}}" for part in given.split("}")[:-1]]
        parts = [
            message_pb2.ContentPart(
                tool_call=message_pb2.ToolCallContent(id=new_id("call"), name=name, input=one.strip())
            )
            for one in inputs
        ]
        return generation_service_pb2.Generation(parts=parts, model=prompt.model, provider_type="builtin")


def shape(message):
    """Say what a message is to a vendor: its role, and how many calls or returns it has."""
    role = message_pb2.MessageRole.Name(message.role).removeprefix("MESSAGE_ROLE_").lower()
    if message.approvals:
        return "answer"
    count = sum(part.HasField("tool_call") or part.HasField("tool_return") for part in message.parts)
    return f"{role} {count}" if count else role


class Faults:
    """Lets methods of a service fail before they begin or after they are done, as often as a test says."""

    def __init__(self):
        self.planned = {}
        self.calls = {}

    def plan(self, method, *errors, after=False):
        """Let the next calls of a method fail with these errors."""
        self.planned[method] = (list(errors), after)
        self.calls[method] = 0

    def around(self, servicer):
        """Return a servicer whose methods fail as planned."""
        return _Faulty(servicer, self)

    async def take(self, method, *, after):
        """Raise what is planned for this moment of a call."""
        if not after:
            self.calls[method] = self.calls.get(method, 0) + 1
        errors, late = self.planned.get(method, ([], False))
        if errors and late == after:
            raise errors.pop(0)


class _Faulty:
    def __init__(self, servicer, faults):
        self._servicer, self._faults = servicer, faults

    def __getattr__(self, name):
        real = getattr(self._servicer, name)
        if not name[0].isupper() or not iscoroutinefunction(real):
            return real

        async def method(request, context):
            await self._faults.take(name, after=False)
            answer = await real(request, context)
            await self._faults.take(name, after=True)
            return answer

        return method


class Stubs:
    """Stubs of every service of the agent, and what tests make with them."""

    def __init__(self, channel, peers, model, identities, faults):
        self.agents = agent_service_pb2_grpc.AgentServiceStub(channel)
        self.runs = run_service_pb2_grpc.RunServiceStub(channel)
        self.conversations = conversation_service_pb2_grpc.ConversationServiceStub(channel)
        self.steps = step_service_pb2_grpc.StepServiceStub(channel)
        self._tools = tool_service_pb2_grpc.ToolServiceStub(peers)
        self._identities = identities
        self.model = model
        self.faults = faults

    def bob(self):
        """Make the calls of a block come from another organization."""
        return acting_as(self._identities.sign(Actor(new_id("org"), "user-bob")))

    async def agent(self, **more):
        """Make an agent with one block."""
        more.setdefault("memory_blocks", [block_pb2.Block(label="human", value="Ann")])
        more.setdefault("include_base_tools", False)
        beside = {name: more.pop(name) for name in CreateAgentRequest.DESCRIPTOR.fields_by_name if name in more}
        request = CreateAgentRequest(agent=agent_pb2.Agent(model="builtin/echo", **more), **beside)
        return (await self.agents.CreateAgent(request, timeout=TIMEOUT)).agent

    async def tool(self, name="roll", body="return 'rolled'", parameters="", described="", **more):
        """Make a custom tool."""
        source = f'def {name}({parameters}):\n    """Do {name}.{described}"""\n    {body}\n'
        request = tool_service_pb2.CreateToolRequest(tool=tool_pb2.Tool(source_code=source, **more))
        return (await self._tools.CreateTool(request, timeout=TIMEOUT)).tool

    async def send(self, agent_id, text="hi", *, request_id="", **run):
        """Send a message and wait for the answer."""
        asked = run_pb2.RunRequest(input_text=text, **run)
        request = SendMessageRequest(agent_id=agent_id, run=asked, request_id=request_id)
        return await self.runs.SendMessage(request, timeout=TIMEOUT)

    async def held(self, agent_id):
        """Begin a run that holds the conversation; return the waiting send."""
        self.model.hold()
        waiting = asyncio.ensure_future(self.send(agent_id, "hold"))
        await self.model.holding.wait()
        return waiting


@pytest.fixture(scope="module")
def agent_settings():
    """Settings of the agent service; a module overrides this fixture for others than the defaults."""
    return {}


@pytest.fixture(scope="module", params=["network", "local"])
async def stubs(request, database_url, identities, tmp_path_factory, agent_settings):
    dsn, home = SecretStr(database_url), tmp_path_factory.mktemp("letta")
    tools = await letta_tools.wiring.build(ToolsSettings(database_url=dsn, home=home), Deps())
    llm = await letta_llm_gateway.wiring.build(LLMGatewaySettings(database_url=dsn, home=home, pool_size=3), Deps())
    [(add_model, real)] = [pair for pair in llm.servicers if isinstance(pair[1], GenerationServicer)]
    model = Model(real)
    others = tuple(pair for pair in llm.servicers if pair[1] is not real)
    llm = Service(llm.name, (*others, (add_model, model)), llm.start, llm.close)
    issuer = (credential_service_pb2_grpc.add_CredentialServiceServicer_to_server, Issuer(identities))
    async with running([Service("auth", (issuer,)), tools, llm], identities=identities) as leaves:
        settings = MemorySettings(database_url=dsn, home=home, pool_size=3)
        memory = await letta_memory.wiring.build(settings, Deps({"llm_gateway": leaves}))
        faults = Faults()
        remembered = tuple((add, faults.around(servicer)) for add, servicer in memory.servicers)
        memory = Service(memory.name, remembered, memory.start, memory.close)
        async with running(memory, identities=identities) as remembering:
            peers = {"auth": leaves, "tools": leaves, "llm_gateway": leaves, "memory": remembering}
            chosen = AgentSettings(database_url=dsn, home=home, pool_size=4, **agent_settings)
            agent = await build(chosen, Deps(peers))
            async with running(agent, request.param, identities=identities) as channel:
                yield Stubs(channel, leaves, model, identities, faults)


@pytest.fixture(autouse=True)
def as_ann(identities):
    """Calls come from a new organization, unless the test says otherwise."""
    with acting_as(identities.sign(Actor(new_id("org"), "user-ann"))):
        yield
