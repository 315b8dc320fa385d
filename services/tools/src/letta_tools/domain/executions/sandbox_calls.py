"""Custom tools and `run_code`: calls that run in isolation."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cachetools import LRUCache

from letta_common.actor import Actor
from letta_common.errors import InvalidArgument, ServiceUnavailable, ToolRequirementsUnsatisfied, ToolSourceInvalid
from letta_sandbox.calls import CallEnding, Env, EnvSpec, Language, Result, SandboxCall, SandboxProvider
from letta_tool_schemas.fitting import SchemaMismatch, fit_arguments
from letta_tool_schemas.typescript.reader import EXPORT
from letta_tools.domain.executions.executions import Work, refused
from letta_tools.domain.executions.surroundings import Environment, Surroundings
from letta_tools.domain.executions.targets import Target, target_of
from letta_tools.domain.registry.records import RegisteredTool, Requirement, ToolSourceType
from letta_tools.domain.registry.requirements import joined_python

_MAX_TARGETS = 4096
# A call of nothing leaves a process behind that has the packages.
_WARM_UP = SandboxCall("def warm_up():\n    return None\n", "warm_up")
_WARM_UP_SCRIPT = SandboxCall(f"export const {EXPORT} = () => null;\n", EXPORT, language=Language.JAVASCRIPT)


class SandboxExecutor:
    """Runs custom tools."""

    def __init__(self, sandbox: SandboxProvider, environment: Environment) -> None:
        self._sandbox = sandbox
        self._environment = environment
        self._targets: LRUCache[tuple[ToolSourceType, str, str], Target] = LRUCache(_MAX_TARGETS)

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the call to its end. Raises IsolationUnavailable."""
        tool, execution = work.tool, work.execution
        if not tool.source_code:
            return refused(f"`{tool.name}` has no source code; the caller carries it out")
        given = await self._environment.surroundings(actor)
        try:
            target = await self._target(tool)
            env = await self._env(actor, tool, given)
        except (ToolSourceInvalid, ToolRequirementsUnsatisfied, ServiceUnavailable) as error:
            return refused(error.message, error.reason)
        try:
            fitted = fit_arguments(_judged(tool, target), work.arguments, target.nulls)
        except SchemaMismatch as error:
            return refused(str(error), "ArgumentError")
        arguments = dict.fromkeys(target.nulls) | fitted
        if target.takes_agent_id:
            # Over what the model said, so that it cannot speak for another agent.
            arguments["agent_id"] = execution.agent_id
        call = SandboxCall(
            source_code=target.source_code,
            function=target.function,
            arguments=json.dumps(arguments, ensure_ascii=False),
            # Later ones win: the agent's over the organization's, and who calls over both.
            environment_variables={
                **given.variables,
                **execution.environment_variables,
                **_identity(tool, execution.agent_id),
            },
            agent_state=execution.agent_state,
            limits=given.bounded(execution.limits),
            language=target.language,
            signature=target.signature,
            borrowed=target.borrowed,
            destinations=given.destinations,
            template=given.template,
        )
        return await self._sandbox.run(call, env)

    async def prepare(self, actor: Actor, tool: RegisteredTool) -> Env:
        """Install what a tool requires and warm a process that has it.

        Raises:
            ToolRequirementsUnsatisfied: a package does not exist, has no wheels, or contradicts another one; or the
                language of the tool cannot be run.
            ServiceUnavailable: the package index cannot be reached.
            IsolationUnavailable: the host offers no isolation that is strong enough.
        """
        given = await self._environment.surroundings(actor)
        env = await self._env(actor, tool, given)
        if env.key:
            await self._sandbox.run(replace(_WARM_UP, template=given.template), env)
        elif tool.source_type is ToolSourceType.TYPESCRIPT:
            result = await self._sandbox.run(_WARM_UP_SCRIPT, env)
            if result.status is CallEnding.REFUSED and result.failure is not None:
                raise ToolRequirementsUnsatisfied(result.failure.message, requirements="node")
        return env

    async def _env(self, actor: Actor, tool: RegisteredTool, given: Surroundings) -> Env:
        if tool.source_type is ToolSourceType.TYPESCRIPT:
            return env_of_script(actor, given, (*tool.npm_requirements, *tool.pip_requirements))
        return await installed(self._sandbox, actor, given, tool.pip_requirements)

    async def _target(self, tool: RegisteredTool) -> Target:
        """Return what is executed; the source is read once."""
        place = (tool.source_type, tool.source_code or "", tool.name)
        target = self._targets.get(place)
        if target is None:
            target = self._targets[place] = await asyncio.to_thread(target_of, tool)
        return target


async def installed(
    sandbox: SandboxProvider, actor: Actor, given: Surroundings, own: Sequence[Requirement] = ()
) -> Env:
    """Return an environment with these Python packages and those of every tool, of which the former go before.

    Raises ToolRequirementsUnsatisfied, ServiceUnavailable, IsolationUnavailable.
    """
    requirements = joined_python(own, given.pip_requirements)
    if not requirements:
        return Env(organization_id=actor.organization_id)
    try:
        return await sandbox.prepare(EnvSpec(requirements, actor.organization_id, given.template))
    except InvalidArgument as error:
        raise ToolRequirementsUnsatisfied(error.message, requirements=", ".join(requirements)) from error


def env_of_script(actor: Actor, given: Surroundings, own: Sequence[Requirement] = ()) -> Env:
    """Return the bare environment: what Node brings along is all that a script may import.

    Raises ToolRequirementsUnsatisfied, also for packages of every tool.
    """
    required = ", ".join(item.specifier() for item in (*own, *given.npm_requirements))
    if required:
        raise ToolRequirementsUnsatisfied(
            f"no packages are installed for JavaScript and TypeScript ({required}); use what Node brings along, "
            "put the code into the tool, or offer it through an MCP server",
            requirements=required,
        )
    return Env(organization_id=actor.organization_id)


def _judged(tool: RegisteredTool, target: Target) -> Mapping[str, Any]:
    """Return the schema that arguments are fitted to here: what has a type in Python is fitted where the type is."""
    parameters = tool.parameters
    known = parameters.get("properties")
    if target.language is Language.JAVASCRIPT or not isinstance(known, dict):
        return parameters
    return {**parameters, "properties": {name: known[name] for name in target.untyped if name in known}}


def _identity(tool: RegisteredTool, agent_id: str) -> dict[str, str]:
    known = {"LETTA_AGENT_ID": agent_id, "LETTA_TOOL_ID": tool.id, "LETTA_PROJECT_ID": tool.project_id or ""}
    return {name: value for name, value in known.items() if value}
