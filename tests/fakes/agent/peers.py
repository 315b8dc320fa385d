"""In-memory twins of the services that the agent loop talks to. They keep the contracts, and can be told to fail."""

import asyncio
import hashlib
import json
from dataclasses import dataclass, field
from types import SimpleNamespace

from letta.common.v1 import message_pb2, usage_pb2
from letta.llm.v1 import generation_service_pb2 as llm_pb2
from letta.llm.v1 import model_pb2
from letta.memory.v1 import block_pb2, message_service_pb2, passage_service_pb2
from letta.memory.v1 import context_service_pb2 as pb
from letta.tools.v1 import tool_pb2, tool_service_pb2
from letta_agent.domain.peers.memory import Message
from letta_agent.domain.peers.models import ContentPart
from letta_agent.domain.peers.tools import Tool
from letta_agent.domain.toolcalls.outcomes import Outcome, returned
from letta_common.errors import AgentNotFound, BlockNotFound, ConversationNotFound, Fenced, ModelNotFound, ToolNotFound
from letta_messages.rendering import expand, text_of

ROLE = message_pb2.MessageRole
WHEN = "2026-01-01T00:00:00Z"


def say(text):
    return ContentPart(text=message_pb2.TextContent(text=text))


def call(name, arguments="{}", id="call-1"):
    given = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return ContentPart(tool_call=message_pb2.ToolCallContent(id=id, name=name, input=given))


def answer(*parts, tokens=(100, 10), cut=False):
    usage = usage_pb2.TokenUsage(prompt_tokens=tokens[0], completion_tokens=tokens[1])
    reason = llm_pb2.FINISH_REASON_LENGTH if cut else llm_pb2.FINISH_REASON_STOP
    return llm_pb2.Generation(
        parts=parts,
        usage=usage,
        model="twin/model",
        provider_type="twin",
        context_window=128_000,
        finish_reason=reason,
    )


def asked(prompt, messages):
    """Return the fields of a prompt, its messages as they are read."""
    fields = {field.name: getattr(prompt, field.name) for field in llm_pb2.Prompt.DESCRIPTOR.fields}
    return SimpleNamespace(**{**fields, "messages": list(map(Message.FromString, messages))})


def tool(name, kind=tool_pb2.TOOL_TYPE_CUSTOM, **more):
    parameters = json.dumps({"type": "object", "properties": {}})
    schema = tool_pb2.FunctionSchema(name=name, description=name, parameters_schema=parameters)
    return Tool(id=f"tool-{name}", name=name, tool_type=kind, json_schema=schema, return_char_limit=50_000, **more)


@dataclass
class Thread:
    messages: list = field(default_factory=list)
    window: list | None = None
    fence: int = 0
    begun: set = field(default_factory=set)
    inputs: dict = field(default_factory=dict)
    steps: dict = field(default_factory=dict)


class TwinMemory:
    """Memory: fences, appends once, edits once."""

    def __init__(self):
        self.threads = {}
        self.blocks = {}
        self.edits = {}
        self.passages = []
        self.calls = []
        self.fail = {}

    def thread(self, conversation_id):
        return self.threads[conversation_id]

    def _enter(self, name):
        self.calls.append(name)
        failures = self.fail.get(name)
        if failures:
            failure = failures.pop(0)
            if failure is not None:
                raise failure

    def _fenced(self, thread):
        held = self.threads.get(thread.conversation_id)
        if held is None:
            raise AgentNotFound("no such agent", agent_id=thread.agent_id)
        if thread.fence < held.fence:
            raise Fenced("a newer owner came first", fence=str(held.fence))
        return held

    async def provision(self, agent_id, name, new_blocks, block_ids, messages, *, embedding=""):
        self._enter("provision")
        if any(block_id.startswith("block-missing") for block_id in block_ids):
            raise BlockNotFound("no such block", block_id=block_ids[0])
        if agent_id not in self.threads:
            self.threads[agent_id] = Thread([m.SerializeToString() for m in messages])
            self.blocks[agent_id] = {}
            for block in new_blocks:
                made = block_pb2.Block()
                made.CopyFrom(block)
                made.id, made.version = f"block-{agent_id}-{block.label}", 1
                self.blocks[agent_id][block.label] = made
        return self._memory(agent_id)

    async def set_embedding(self, agent_id, embedding):
        self._enter("set_embedding")

    async def deprovision(self, agent_id):
        self._enter("deprovision")
        self.threads.pop(agent_id, None)
        self.blocks.pop(agent_id, None)

    async def provision_conversation(
        self, agent_id, conversation_id, messages, isolated_labels, *, source_id, last_message_id
    ):
        taken = self.threads[source_id].messages[1:] if source_id else []
        self.threads[conversation_id] = Thread([*(m.SerializeToString() for m in messages), *taken])
        return tuple(f"block-copy-{label}" for label in isolated_labels)

    async def deprovision_conversation(self, agent_id, conversation_id):
        self.threads.pop(conversation_id, None)

    async def begin_step(self, organization_id, request):
        self._enter("begin_step")
        held = self._fenced(request)
        held.fence = request.fence
        if request.input and request.run_id not in held.begun:
            held.begun.add(request.run_id)
            held.inputs[request.run_id] = [m.id for m in request.input]
            self._append(held, request.input)
        window = held.messages if held.window is None else [held.messages[0], *held.window]
        answer = pb.BeginStepResponse(
            blocks=self.blocks.get(request.agent_id, {}).values(),
            messages=window,
            message_count=len(held.messages),
            passage_count=len(self.passages),
        )
        done = [(index, stop) for (run, index), stop in held.steps.items() if run == request.run_id]
        if done:
            answer.last_step.step_index, answer.last_step.stop_reason = max(done)
        return answer

    async def withdraw_input(self, request):
        self._enter("withdraw_input")
        held, run_id = self._fenced(request), request.run_id
        if run_id not in held.begun or any(run == run_id for run, _ in held.steps):
            return pb.WithdrawInputResponse(withdrawn=False)
        held.begun.discard(run_id)
        gone = held.inputs.pop(run_id)
        held.messages = [data for data in held.messages if Message.FromString(data).id not in gone]
        if held.window is not None:
            held.window = [data for data in held.window if Message.FromString(data).id not in gone]
        return pb.WithdrawInputResponse(withdrawn=True)

    async def commit_step(self, request):
        self._enter("commit_step")
        held = self._fenced(request)
        if (request.run_id, request.step_index) not in held.steps:
            moved = request.HasField("window")
            if moved:
                self._shrink(held, request.window)
            self._append(held, request.messages)
            if moved and request.window.cleared:
                held.window = []
            elif moved:
                held.messages.append(request.window.summary.SerializeToString())
            held.steps[request.run_id, request.step_index] = request.stop_reason
        self._after("commit_step")
        blocks = self.blocks.get(request.agent_id, {}).values()
        known = {block.block_id: block.version for block in request.known_blocks}
        changed = [block for block in blocks if known.get(block.id) != block.version]
        return pb.CommitStepResponse(changed_blocks=changed, detached_block_ids=set(known) - {b.id for b in blocks})

    def _after(self, name):
        failures = self.fail.get(f"{name}:after")
        if failures:
            raise failures.pop(0)

    def _append(self, held, messages):
        data = [message.SerializeToString() for message in messages]
        held.messages += data
        if held.window is not None:
            held.window += data

    def _shrink(self, held, window):
        if window.cleared:
            return
        ids = [Message.FromString(data).id for data in held.messages]
        first = ids.index(window.first_kept_message_id) if window.first_kept_message_id else len(ids)
        kept = [data for data in held.messages[first:] if Message.FromString(data).role != ROLE.MESSAGE_ROLE_SUMMARY]
        held.window = [window.summary.SerializeToString(), *kept]

    async def edit_block(self, request):
        self._enter("edit_block")
        self._fenced(request)
        key = request.idempotency_key
        if key not in self.edits:
            block = self.blocks[request.agent_id].get(request.label)
            if block is None:
                raise BlockNotFound(f"no block {request.label}", label=request.label)
            text = request.rethink.value or request.append.content or request.insert.text or request.replace.new_text
            block.value = text if request.HasField("rethink") else block.value + "\n" + text
            block.version += 1
            copy = block_pb2.Block()
            copy.CopyFrom(block)
            self.edits[key] = copy
        return pb.EditBlockResponse(block=self.edits[key])

    async def insert_passage(self, request):
        if request.request_id not in [passage[0] for passage in self.passages]:
            self.passages.append((request.request_id, request.text, tuple(request.tags)))

    async def search_passages(self, request):
        found = passage_service_pb2.SearchArchivalMemoryResponse()
        for _, text, tags in self.passages:
            found.results.add(id="passage-1", content=text, tags=tags).timestamp.FromJsonString(WHEN)
        return found

    async def search_messages(self, request):
        message = Message(id="message-1", role=ROLE.MESSAGE_ROLE_USER, parts=[say("found")])
        message.created_at.FromJsonString(WHEN)
        found = message_service_pb2.StoredMessageResult(message=message.SerializeToString())
        return message_service_pb2.SearchStoredMessagesResponse(results=[found])

    async def run_messages(self, run_id):
        stored = [Message.FromString(data) for held in self.threads.values() for data in held.messages]
        return [shown for message in stored if message.run_id == run_id for shown in expand(message)]

    async def agents_with(self, wanted):
        block_id = getattr(wanted, "block_id", "")
        if not block_id:
            return None
        return [agent_id for agent_id, held in self.blocks.items() if block_id in [block.id for block in held.values()]]

    async def set_identities(self, agent_id, identity_ids):
        self._enter("set_identities")

    async def memories(self, agent_ids, *, blocks, folders=False, identities=False):
        return {agent_id: self._memory(agent_id) for agent_id in agent_ids if agent_id in self.threads}

    async def reset(self, request):
        self._enter("reset")
        held = self._fenced(request)
        held.fence = request.fence
        held.messages, held.window = [m.SerializeToString() for m in request.messages], None

    async def context(self, agent_id, conversation_id):
        held = self.threads.get(conversation_id)
        if held is None:
            raise ConversationNotFound("no such conversation", conversation_id=conversation_id)
        window = held.messages if held.window is None else [held.messages[0], *held.window]
        return pb.GetContextResponse(
            blocks=self.blocks.get(agent_id, {}).values(),
            messages=window,
            message_count=len(held.messages),
            passage_count=len(self.passages),
        )

    async def set_system(self, agent_id, conversation_id, text):
        held = self.threads[conversation_id]
        first = Message.FromString(held.messages[0])
        first.parts[0].text.text = text
        held.messages[0] = first.SerializeToString()

    async def attach_block(self, agent_id, block_id):
        block = block_pb2.Block(id=block_id, label=block_id, version=1)
        self.blocks[agent_id][block_id] = block

    async def detach_block(self, agent_id, block_id):
        self.blocks[agent_id] = {k: b for k, b in self.blocks[agent_id].items() if b.id != block_id}

    def _memory(self, agent_id):
        ids = [Message.FromString(data).id for data in self.threads[agent_id].messages]
        return pb.AgentMemory(agent_id=agent_id, blocks=self.blocks[agent_id].values(), message_ids=ids)

    def texts(self, conversation_id):
        """Say what a conversation holds: role and text, calls, or returns of each message."""
        return [_told(Message.FromString(data)) for data in self.threads[conversation_id].messages]


def _told(message):
    role = ROLE.Name(message.role).removeprefix("MESSAGE_ROLE_").lower()
    calls = [part.tool_call.name for part in message.parts if part.HasField("tool_call")]
    returns = [part.tool_return.content for part in message.parts if part.HasField("tool_return")]
    return role, text_of(message) or "+".join(calls or returns)


def started_with(index, part):
    return llm_pb2.StreamGenerateResponse(part_started=llm_pb2.PartStarted(index=index, part=part))


def more_of(index, text):
    return llm_pb2.StreamGenerateResponse(part_delta=llm_pb2.PartDelta(index=index, delta=text))


class ScriptedModels:
    """A model that answers from a script; an exception in the script is raised, an Event is waited for."""

    def __init__(self, *script):
        self.script = list(script)
        self.prompts = []
        self.cancelled = 0

    async def generate(self, prompt, messages):
        self.prompts.append(asked(prompt, messages))
        item = self.script.pop(0) if self.script else answer(say("done"))
        while isinstance(item, asyncio.Event):
            try:
                await item.wait()
            except asyncio.CancelledError:
                self.cancelled += 1
                raise
            item = self.script.pop(0)
        if isinstance(item, BaseException):
            raise item
        return item

    async def stream(self, prompt, messages):
        whole = await self.generate(prompt, messages)
        for index, part in enumerate(whole.parts):
            if part.HasField("tool_call"):
                started = call(part.tool_call.name, "", part.tool_call.id)
                yield started_with(index, started)
                yield more_of(index, part.tool_call.input)
                continue
            yield started_with(index, say(""))
            for word in part.text.text.split(" "):
                yield more_of(index, word)
        yield llm_pb2.StreamGenerateResponse(finished=llm_pb2.Finished(generation=whole))

    async def model(self, handle):
        if handle == "no/model":
            raise ModelNotFound("no such model", handle=handle)
        handle = handle or "twin/model"
        return model_pb2.Model(
            handle=handle,
            name="model",
            provider_type="twin",
            provider_name="twin",
            context_window=128_000,
            temperature=1.0,
        )

    async def embedding_model(self, handle):
        handle = handle or "twin/embedder"
        return model_pb2.EmbeddingModel(
            handle=handle,
            name="embedder",
            embedding_endpoint_type="twin",
            embedding_chunk_size=300,
            batch_size=32,
        )


class TwinTools:
    """Tools: executes once for each key; what a tool does is a function of its arguments."""

    def __init__(self, *tools, **behaviours):
        self.tools = {found.name: found for found in tools}
        self.behaviours = behaviours
        self.executed = []
        self.asked = []
        self.versions = []
        self.results = {}

    async def resolve(self, tool_ids, names=()):
        by_id = {found.id: found for found in self.tools.values()}
        wanted = [by_id.get(tool_id) for tool_id in tool_ids] + [self.tools.get(name) for name in names]
        if None in wanted:
            raise ToolNotFound("no such tool")
        return list({found.id: found for found in wanted}.values())

    async def attached(self, tool_ids, etag=""):
        known = {found.id: found for found in self.tools.values()}
        found = [known[tool_id] for tool_id in tool_ids if tool_id in known]
        stamp = hashlib.sha256(b"".join(tool.SerializeToString(deterministic=True) for tool in found)).hexdigest()
        self.asked.append(etag)
        if etag == stamp:
            return tool_service_pb2.ResolveToolsResponse(etag=stamp, unchanged=True)
        return tool_service_pb2.ResolveToolsResponse(etag=stamp, tools=found)

    async def execute(self, given):
        if given.idempotency_key not in self.results:
            self.executed.append((given.tool_id, given.arguments))
            self.versions.append(given.tool_version)
            behaviour = self.behaviours.get(given.tool_id.removeprefix("tool-"))
            result = behaviour(json.loads(given.arguments)) if behaviour else "ok"
            if asyncio.iscoroutine(result):
                result = await result
            self.results[given.idempotency_key] = result if isinstance(result, Outcome) else returned(result)
        return self.results[given.idempotency_key]


class TwinCredentials:
    """Auth: signs with a word."""

    def __init__(self):
        self.issued = []

    async def issue(self, actor, run_id):
        self.issued.append(run_id)
        return b"signed"
