"""The built-in tool `run_code`: Python in the sandbox, the code handed over as data."""

from __future__ import annotations

import json

from letta_common.actor import Actor
from letta_tools.domain.execution import Call, Env, Result, SandboxProvider
from letta_tools.domain.executions import Work, refused

_RUNNER = """
import ast, contextlib, io, json, traceback

def run_code(code):
    scope = {"__name__": "__main__"}
    out, err = io.StringIO(), io.StringIO()
    results, error = [], None
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            tree = ast.parse(code, "<code>")
            last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
            exec(compile(tree, "<code>", "exec"), scope)
            value = scope.get("result")
            if last is not None:
                value = eval(compile(ast.Expression(last.value), "<code>", "eval"), scope)
            if value is not None:
                try:
                    json.dumps(value, allow_nan=False)
                except (TypeError, ValueError):
                    value = repr(value)
                results.append(value)
        except BaseException as raised:
            lines = traceback.format_exception(raised)
            error = {"name": type(raised).__name__, "value": str(raised), "traceback": "".join(lines)[-8000:]}
    logs = {"stdout": out.getvalue().splitlines(), "stderr": err.getvalue().splitlines()}
    return {"results": results, "logs": logs, **({"error": error} if error else {})}
"""


class CodeExecutor:
    """Runs code that the model wrote."""

    def __init__(self, sandbox: SandboxProvider) -> None:
        self._sandbox = sandbox

    async def run(self, actor: Actor, work: Work) -> Result:
        """Run the code to its end. Raises IsolationUnavailable."""
        code, language = work.arguments.get("code"), work.arguments.get("language", "python")
        if not isinstance(code, str):
            return refused("run_code needs `code`, a string")
        if language != "python":
            return refused(f"this deployment runs Python only, not {str(language)[:40]}")
        call = Call(
            source_code=_RUNNER,
            function="run_code",
            arguments=json.dumps({"code": code}, ensure_ascii=False),
            environment_variables=work.execution.environment_variables,
            limits=work.execution.limits,
        )
        return await self._sandbox.run(call, Env(organization_id=actor.organization_id))
