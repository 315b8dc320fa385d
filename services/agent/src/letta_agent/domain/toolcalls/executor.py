"""Executing the tool calls of a step."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from letta.agent.v1 import agent_pb2
from letta.common.v1 import message_pb2
from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_execution_service_pb2 import ExecuteRequest
from letta_agent.domain.journal.records import RunKey
from letta_agent.domain.peers.memory import Block
from letta_agent.domain.peers.tools import Tool, ToolPeer
from letta_agent.domain.toolcalls.agent_state import edits_of, state_of, wants_state
from letta_agent.domain.toolcalls.builtin import BuiltinTools, keepable
from letta_agent.domain.toolcalls.builtin_calls import BuiltinCall
from letta_agent.domain.toolcalls.failures import ends_run, for_model
from letta_agent.domain.toolcalls.outcomes import Outcome, failed, has_failed, told
from letta_agent.domain.toolcalls.rules import REFUSED, UNREADABLE, ToolRules
from letta_agent.domain.toolcalls.toolsets import Toolset
from letta_common.errors import AppError
from letta_common.values.json_texts import json_object

Agent = agent_pb2.Agent
ToolCallContent = message_pb2.ToolCallContent
ToolReturnContent = message_pb2.ToolReturnContent

RETURN_LIMIT = 50_000  # characters, where a tool has no limit of its own
UNKNOWN_OUTCOME = (
    "Outcome unknown: the service was interrupted while this call ran. It may or may not have taken effect; "
    "check before you call it again."
)
_SHOWN = 300  # enough for a model to recognize what it wrote
_HEARTBEAT = "request_heartbeat"  # the loop's, even where the schema of a tool declares it
_UNASKED = frozenset({"thinking", "inner_thoughts"})  # models of older kinds write these, asked for or not
_HERE = frozenset(
    {
        tool_pb2.TOOL_TYPE_LETTA_CORE,
        tool_pb2.TOOL_TYPE_LETTA_MEMORY_CORE,
        tool_pb2.TOOL_TYPE_LETTA_SLEEPTIME_CORE,
        tool_pb2.TOOL_TYPE_LETTA_VOICE_SLEEPTIME_CORE,
        tool_pb2.TOOL_TYPE_LETTA_FILES_CORE,
    }
)


@dataclass(frozen=True, slots=True)
class StepCalls:
    """The calls of a step and what they are executed with."""

    run: RunKey
    step_index: int
    message_id: str
    """The message that has the calls."""
    calls: Sequence[ToolCallContent]
    toolset: Toolset
    rules: ToolRules
    history: Sequence[ToolReturnContent] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False
    """The calls may have been begun by an earlier owner of the run."""
    answers: Mapping[str, ToolReturnContent] = field(default_factory=dict)
    """Returns that are known already, by call id: denials and what a client executed."""
    state: Agent = field(default_factory=Agent)
    blocks: Sequence[Block] = ()


@dataclass(frozen=True, slots=True)
class ToolRun:
    """One call of a tool, and the run it is made in."""

    run: RunKey
    key: str
    tool: Tool
    arguments: Mapping[str, Any]
    environment: Mapping[str, str]
    state: Agent
    blocks: Sequence[Block]
    call_id: str = ""
    message_id: str = ""
    """The message with the call; both are empty where no model made it."""


class Caller:
    """Executes calls: built-in tools here, all others by the tools service."""

    def __init__(self, builtin: BuiltinTools, tools: ToolPeer) -> None:
        self._builtin = builtin
        self._tools = tools

    async def execute(self, step: StepCalls) -> list[ToolReturnContent]:
        """Return what each call returned, in order. Tools that allow it run side by side, the others in turn."""
        found: dict[int, ToolReturnContent] = {}
        aside = [i for i, call in enumerate(step.calls) if self._parallel(step, call)]

        async def run(index: int) -> None:
            found[index] = await self._return(step, index)

        tasks = [asyncio.create_task(run(index)) for index in aside]
        try:
            for index in range(len(step.calls)):
                if index not in aside:
                    await run(index)
            await asyncio.gather(*tasks)
        finally:
            # An error that ends the run leaves no call behind that still runs.
            for task in tasks:
                task.cancel()
        return [found[index] for index in range(len(step.calls))]

    def _parallel(self, step: StepCalls, call: ToolCallContent) -> bool:
        tool = step.toolset.tools.get(call.name)
        return tool is not None and tool.enable_parallel_execution and len(step.calls) > 1

    async def _return(self, step: StepCalls, index: int) -> ToolReturnContent:
        call = step.calls[index]
        known = step.answers.get(call.id)
        if known is not None:
            return known
        tool = step.toolset.tools.get(call.name)
        allowed = step.rules.freedom(step.toolset.tools.keys(), step.history).allowed
        if tool is None or call.name not in allowed:
            result = _refusal(step, call.name, sorted(allowed))
        elif not is_readable(call):
            result = failed(f"{UNREADABLE} They are: {cut(call.input, _SHOWN)}")
        else:
            result = await self._call(step, index, tool)
        limit = (tool.return_char_limit if tool is not None else 0) or RETURN_LIMIT
        return ToolReturnContent(
            tool_call_id=call.id,
            name=call.name,
            content=cut(told(result), limit),
            is_error=has_failed(result),
            stdout=cut("\n".join(result.stdout.splitlines()), limit).splitlines(),
            stderr=cut("\n".join(result.stderr.splitlines()), limit).splitlines(),
        )

    async def _call(self, step: StepCalls, index: int, tool: Tool) -> Outcome:
        call = step.calls[index]
        arguments = arguments_of(call, tool) | step.rules.prefilled(call.name, step.history)
        key = f"{step.run.run_id}:{step.step_index}:{index}"
        # Built-in tools have keys in memory and may be repeated, others only where their makers say so.
        if step.replayed and not tool.idempotent and not self._is_here(tool):
            return failed(UNKNOWN_OUTCOME)
        return await self.run(
            ToolRun(
                run=step.run,
                key=key,
                tool=tool,
                arguments=arguments,
                environment=step.environment,
                state=step.state,
                blocks=step.blocks,
                call_id=call.id,
                message_id=step.message_id,
            )
        )

    async def run(self, asked: ToolRun) -> Outcome:
        """Execute one call, and keep what it changes of the agent's blocks. Raises what `ends_run` names."""
        tool = asked.tool
        builtin = BuiltinCall(
            run=asked.run,
            key=asked.key,
            name=tool.name,
            arguments=keepable(asked.arguments),
            timezone=asked.state.timezone,
            call_id=asked.call_id,
            message_id=asked.message_id,
        )
        if self._is_here(tool):
            return await self._builtin.execute(builtin)
        state = state_of(asked.state, asked.blocks) if wants_state(tool) else ""
        request = ExecuteRequest(
            tool_id=tool.id,
            tool_version=tool.version,
            arguments=json.dumps(asked.arguments),
            environment_variables=asked.environment,
            agent_state=state,
            idempotency_key=asked.key,
            agent_id=asked.run.agent_id,
        )
        try:
            result = await self._tools.execute(request)
            # Behind the call, whose answer is stored under the key: a repeat has the same changes.
            for part, edit in enumerate(edits_of(result.changed_blocks)):
                await self._builtin.edit(builtin, edit, part=part)
        except AppError as error:
            if ends_run(error):
                raise
            return failed(f"Error executing function {tool.name}: {for_model(error)}")
        return result

    def _is_here(self, tool: Tool) -> bool:
        return tool.tool_type in _HERE and self._builtin.has(tool.name)


def arguments_of(call: ToolCallContent, tool: Tool) -> dict[str, Any]:
    """Return the arguments that the model wrote for a tool; none when they are no JSON object."""
    value = json_object(call.input or "{}") or {}
    value.pop(_HEARTBEAT, None)
    # Schemas are read only where it matters: a tool may have such a parameter of its own.
    if unasked := _UNASKED & value.keys():
        for name in unasked - _parameters(tool):
            del value[name]
    return value


def _parameters(tool: Tool) -> set[str]:
    declared = (json_object(tool.json_schema.parameters_schema) or {}).get("properties")
    return set(declared) if isinstance(declared, dict) else set()


def is_readable(call: ToolCallContent) -> bool:
    """Say whether the arguments are a JSON object, so that the call can be executed."""
    return json_object(call.input or "{}") is not None


def cut(text: str, limit: int) -> str:
    """Cut a tool's return at the limit and say so."""
    if len(text) <= limit:
        return text
    return f"{text[:limit]}\n[The tool returned {len(text)} characters; only the first {limit} are shown.]"


def _refusal(step: StepCalls, name: str, allowed: Sequence[str]) -> Outcome:
    hint = step.rules.hints(name, step.history)
    text = f"{REFUSED} Cannot call {name}, valid tools include: {list(allowed)}.{hint}"
    return failed(text)
