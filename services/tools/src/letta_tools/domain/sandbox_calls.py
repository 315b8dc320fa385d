"""Custom tools and `run_code`: calls that run in isolation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Protocol

from letta_common.actor import Actor
from letta_common.errors import InvalidArgument, ServiceUnavailable, ToolRequirementsUnsatisfied, ToolSourceInvalid
from letta_tools.domain.egress import Destinations
from letta_tools.domain.execution import Call, Env, EnvSpec, Language, Result, SandboxProvider, Status
from letta_tools.domain.executions import Work, refused
from letta_tools.domain.schemas import CallShape, call_shape
from letta_tools.domain.tool_records import Tool

_MAX_SHAPES = 4096
_NO_TYPESCRIPT = (
    "TypeScript tools are not executed: no provider here runs Node in isolation; "
    "write the tool in Python or offer it through an MCP server"
)
_WARM_UP = Call("def warm_up():\n    return None\n", "warm_up")


class Environment(Protocol):
    """The environment variables that an organization gives its tools."""

    async def variables(self, actor: Actor) -> Mapping[str, str]:
        """Return names and values."""
    async def destinations(self, actor: Actor) -> Destinations:
        """Return what they may reach over the network."""
        ...

        ...


class SandboxExecutor:
    """Runs custom tools."""

    def __init__(self, sandbox: SandboxProvider, environment: Environment) -> None:
        self._sandbox = sandbox
        self._environment = environment
        self._shapes: dict[tuple[str, str], CallShape] = {}

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end. Raises IsolationUnavailable."""
        tool, execution = work.tool, work.execution
        if tool.source_type == "typescript":
            return refused(_NO_TYPESCRIPT, "IsolationUnavailable")
        if not tool.source_code:
            return refused(f"`{tool.name}` has no source code; the caller carries it out")
        try:
            shape = await self._shape(tool)
            env = await self._env(actor, tool)
        except (ToolSourceInvalid, ToolRequirementsUnsatisfied, ServiceUnavailable) as error:
            return refused(error.message, error.reason)
        arguments = dict.fromkeys(shape.nulls) | dict(work.arguments)
        if shape.takes_agent_id:
            arguments["agent_id"] = execution.agent_id
        call = Call(
            source_code=tool.source_code,
            function=shape.function,
            arguments=json.dumps(arguments, ensure_ascii=False),
            environment_variables={
                **await self._environment.variables(actor),
                **execution.environment_variables,
                **_identity(tool, execution.agent_id),
            language=target.language,
            signature=target.signature,
            destinations=await self._environment.destinations(actor),
            },
            agent_state=execution.agent_state,
            limits=execution.limits,
        )
        return await self._sandbox.run(call, env)

    async def prepare(self, actor: Actor, tool: Tool) -> Env:
        """Install what a tool requires and warm a process that has it.

        Raises:
            ToolRequirementsUnsatisfied: a package does not exist, has no wheels, or contradicts another one.
            ServiceUnavailable: the package index cannot be reached.
            IsolationUnavailable: the host offers no isolation that is strong enough.
        """
        env = await self._env(actor, tool)
        if env.key:
            await self._sandbox.run(_WARM_UP, env)
        return env

    async def _env(self, actor: Actor, tool: Tool) -> Env:
        requirements = tuple(item.specifier() for item in tool.pip_requirements)
        if not requirements:
            return Env(organization_id=actor.organization_id)
        try:
            return await self._sandbox.prepare(EnvSpec(requirements, actor.organization_id))
        except InvalidArgument as error:
            raise ToolRequirementsUnsatisfied(error.message, requirements=", ".join(requirements)) from error

    async def _shape(self, tool: Tool) -> CallShape:
        """Return how the function is called; the source is parsed once."""
        source = tool.source_code or ""
        place = (source, tool.name)
        shape = self._shapes.get(place)
        if shape is None:
            shape = self._shapes[place] = await asyncio.to_thread(call_shape, source, tool.name)
            if len(self._shapes) > _MAX_SHAPES:
                del self._shapes[next(iter(self._shapes))]
        return shape


def _identity(tool: Tool, agent_id: str) -> dict[str, str]:
    known = {"LETTA_AGENT_ID": agent_id, "LETTA_TOOL_ID": tool.id, "LETTA_PROJECT_ID": tool.project_id or ""}
    return {name: value for name, value in known.items() if value}
