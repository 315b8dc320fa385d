"""The built-in tool `run_code`: code in the sandbox, handed over as data."""

from __future__ import annotations

import asyncio
import json

from letta_common.actor import Actor
from letta_common.errors import ServiceUnavailable, ToolRequirementsUnsatisfied, ToolSourceInvalid
from letta_sandbox.calls import Language, Result, SandboxCall, SandboxProvider, Signature
from letta_tool_schemas.errors import SourceInvalid
from letta_tool_schemas.typescript.erasure import erase
from letta_tools.domain.executions import code_sources
from letta_tools.domain.executions.executions import Work, refused
from letta_tools.domain.executions.sandbox_calls import env_of_script, installed
from letta_tools.domain.executions.surroundings import Environment

_CODE = Signature(("code",), ("code",))


class CodeExecutor:
    """Runs code that the model wrote."""

    def __init__(self, sandbox: SandboxProvider, environment: Environment) -> None:
        self._sandbox = sandbox
        self._environment = environment

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the code to its end. Raises IsolationUnavailable."""
        code, language = work.arguments.get("code"), work.arguments.get("language", "python")
        if not isinstance(code, str):
            return refused("run_code needs `code`, a string")
        if language not in {"python", "js", "ts"}:
            return refused(f"this deployment runs python, js and ts, not {str(language)[:40]}")
        if language == "ts":
            try:
                code = await asyncio.to_thread(erase, code)
            except SourceInvalid as error:
                return refused(error.message, ToolSourceInvalid.reason)
        is_python = language == "python"
        given = await self._environment.surroundings(actor)
        try:
            env = await installed(self._sandbox, actor, given) if is_python else env_of_script(actor, given)
        except (ToolRequirementsUnsatisfied, ServiceUnavailable) as error:
            return refused(error.message, error.reason)
        call = SandboxCall(
            source_code=code_sources.PYTHON if is_python else code_sources.JAVASCRIPT,
            function="run_code",
            arguments=json.dumps({"code": code}, ensure_ascii=False),
            environment_variables=work.execution.environment_variables,
            limits=given.bounded(work.execution.limits),
            language=Language.PYTHON if is_python else Language.JAVASCRIPT,
            signature=_CODE,
            template=given.template,
        )
        return await self._sandbox.run(call, env)
