"""Each RPC of executions, with the real sandbox."""

import asyncio
import json
import shutil

import pytest
from google.protobuf.duration_pb2 import Duration

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, ResolveToolsRequest, RunToolRequest, UpdateToolRequest
from letta_common.errors import IdempotencyConflict, InvalidArgument, ToolNotFound, ToolSourceInvalid, ValidationFailed
from letta_common.values.ids import new_id

ADD = '''import os
from typing import Optional

def add(a: int, b: int, note: Optional[str], agent_id: str = "") -> dict:
    """Add.

    Args:
        a: one
        b: two
        note: three
    """
    print("adding")
    colour, nonce = os.environ.get("COLOUR"), os.urandom(8).hex()
    return {"sum": a + b, "note": note, "agent": agent_id, "env": colour, "nonce": nonce}
'''


async def created(tools, source, **values):
    return (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=source, **values)), timeout=5)).tool


async def execute(executions, arguments="{}", **values):
    return await executions.Execute(pb.ExecuteRequest(arguments=arguments, **values), timeout=20)


async def test_a_tool_of_the_registry_runs(tools, executions):
    tool = await created(tools, ADD)
    answer = await execute(
        executions,
        '{"a": 1, "b": 2}',
        tool_id=tool.id,
        tool_version=tool.version,
        environment_variables={"COLOUR": "red"},
        agent_id="agent-1",
    )

    assert answer.status == pb.EXECUTION_STATUS_SUCCESS
    result = json.loads(answer.result)
    assert (result["sum"], result["note"], result["agent"], result["env"]) == (3, None, "agent-1", "red")
    assert answer.stdout == "adding\n"
    assert (answer.provider, answer.repeated_call) == (pb.EXECUTION_PROVIDER_LOCAL, False)
    assert answer.isolation in {pb.ISOLATION_LANDLOCK, pb.ISOLATION_NAMESPACE}
    assert answer.usage.wall_time.ToNanoseconds() > 0


async def test_blocks_that_a_tool_changed_come_back_by_label(executions):
    source = """def f(agent_state):
    agent_state.memory.update_block_value("human", agent_state.memory.get_block("human").value + "!")
"""
    blocks = [{"label": "human", "value": "Ann"}, {"label": "persona", "value": "Kind"}]

    answer = await execute(
        executions, source=pb.ToolSource(source_code=source), agent_state=json.dumps({"memory": {"blocks": blocks}})
    )

    assert (answer.status, dict(answer.changed_blocks)) == (pb.EXECUTION_STATUS_SUCCESS, {"human": "Ann!"})


async def test_bare_source_runs(executions):
    source = pb.ToolSource(source_code="def one():\n    return 1\n\ndef two():\n    return 2\n")
    assert (await execute(executions, source=source)).result == "2"
    source.function = "one"
    assert (await execute(executions, source=source)).result == "1"
    source.function = "three"
    assert (await execute(executions, source=source)).status == pb.EXECUTION_STATUS_REFUSED
    source.source_type = tool_pb2.TOOL_SOURCE_TYPE_TYPESCRIPT
    answer = await execute(executions, source=source)
    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_SOURCE_INVALID")


@pytest.mark.parametrize("arguments", ["[1]", "{", '{"a": NaN}', "1", "[" * 100_000])
async def test_arguments_must_be_an_object(executions, arguments):
    source = pb.ToolSource(source_code="def f(**kw):\n    return 1\n")
    answer = await execute(executions, arguments, source=source)
    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "BadRequest")


async def test_what_the_tool_does_wrong_is_a_status(executions):
    source = pb.ToolSource(source_code='def f():\n    raise ValueError("boom")\n')
    answer = await execute(executions, source=source)
    assert (answer.status, answer.error_type, answer.error_message) == (
        pb.EXECUTION_STATUS_TOOL_ERROR,
        "ValueError",
        "boom",
    )
    assert "line 2" in answer.stderr


async def test_time_is_cut_to_the_limit_and_to_the_deadline(executions):
    source = pb.ToolSource(source_code="import time\ndef f():\n    time.sleep(60)\n")
    answer = await execute(executions, source=source, limits=pb.Limits(timeout=Duration(nanos=200_000_000)))
    assert answer.status == pb.EXECUTION_STATUS_TIMEOUT

    answer = await executions.Execute(pb.ExecuteRequest(source=source), timeout=1.5)
    assert answer.status == pb.EXECUTION_STATUS_TIMEOUT


async def test_the_same_key_runs_once(tools, executions):
    tool = await created(tools, ADD)
    call = {"tool_id": tool.id, "idempotency_key": f"{new_id('run')}:1:0"}

    first, second = await asyncio.gather(*(execute(executions, '{"a": 1, "b": 2}', **call) for _ in range(2)))
    third = await execute(executions, '{"b":2,"a":1}', **call)

    assert first.result == second.result == third.result
    assert sorted([first.repeated_call, second.repeated_call, third.repeated_call]) == [False, True, True]
    assert third.stdout == first.stdout
    with pytest.raises(IdempotencyConflict):
        await execute(executions, '{"a": 1, "b": 3}', **call)


async def test_a_failure_is_an_outcome_too(executions):
    source = pb.ToolSource(source_code="import os\ndef f():\n    raise OSError(os.urandom(8).hex())\n")
    key = new_id("run")
    first = await execute(executions, source=source, idempotency_key=key)
    second = await execute(executions, source=source, idempotency_key=key)

    assert first.error_type == "OSError"
    assert second.error_message == first.error_message
    assert second.repeated_call


async def test_a_call_goes_on_when_its_caller_goes_away(executions):
    source = pb.ToolSource(
        source_code="import os, time\ndef f():\n    time.sleep(0.5)\n    return os.urandom(8).hex()\n"
    )
    key = new_id("run")
    task = asyncio.create_task(execute(executions, source=source, idempotency_key=key))
    await asyncio.sleep(0.2)
    task.cancel()

    answer = await execute(executions, source=source, idempotency_key=key)

    assert (answer.status, answer.repeated_call) == (pb.EXECUTION_STATUS_SUCCESS, True)


async def test_a_newer_version_is_noticed(tools, executions):
    source = 'def f():\n    """F."""\n    return 1\n'
    tool = await created(tools, source)
    assert (await execute(executions, tool_id=tool.id, tool_version=tool.version)).result == "1"
    changed = UpdateToolRequest(tool_id=tool.id, tool=tool_pb2.Tool(source_code=source.replace("1", "2")))
    changed.update_mask.paths.append("source_code")
    newer = (await tools.UpdateTool(changed, timeout=5)).tool

    assert (await execute(executions, tool_id=tool.id, tool_version=newer.version)).result == "2"
    assert (await execute(executions, tool_id=tool.id)).result == "2"


async def test_the_answer_names_the_version_that_ran(tools, executions):
    source = 'def f():\n    """F."""\n    return 1\n'
    tool = await created(tools, source)
    key = new_id("run")
    first = await execute(executions, tool_id=tool.id, idempotency_key=key)
    newer = await created(tools, source.replace("1", "2"))

    assert (first.tool_version, newer.version) == (1, 2)
    assert (await execute(executions, tool_id=tool.id, tool_version=2)).tool_version == 2
    again = await execute(executions, tool_id=tool.id, idempotency_key=key)
    assert (again.repeated_call, again.tool_version, again.result) == (True, 1, "1")
    bare = await execute(executions, source=pb.ToolSource(source_code=source))
    assert bare.tool_version == 0


async def test_who_may_execute_what(tools, executions, as_bob):
    tool = await created(tools, ADD)
    builtin = (await tools.ResolveTools(ResolveToolsRequest(names=["memory_insert"]), timeout=5)).tools[0]

    with pytest.raises(ToolNotFound):
        await execute(executions, tool_id=new_id("tool"))
    with as_bob(), pytest.raises(ToolNotFound):
        await execute(executions, tool_id=tool.id)
    with pytest.raises(InvalidArgument, match="agent loop"):
        await execute(executions, tool_id=builtin.id)
    with pytest.raises(ValidationFailed):
        await execute(executions)


async def test_code_runs_as_data(tools, executions):
    tool = (await tools.ResolveTools(ResolveToolsRequest(names=["run_code"]), timeout=5)).tools[0]

    async def run(code, language="python"):
        return await execute(executions, json.dumps({"code": code, "language": language}), tool_id=tool.id)

    assert json.loads((await run("print('hi')\nx = 2\nx ** 10")).result) == {
        "results": [1024],
        "logs": {"stdout": ["hi"], "stderr": []},
    }
    assert json.loads((await run("result = {1, 2}")).result)["results"] == ["{1, 2}"]
    failed = json.loads((await run("1/0")).result)
    assert failed["error"]["name"] == "ZeroDivisionError"
    assert (await run("1", "java")).status == pb.EXECUTION_STATUS_REFUSED


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.parametrize(
    ("language", "code", "answer"),
    [
        ("js", "console.log('hi', {a: 1}); const x = 2; x ** 10", ([1024], ["hi { a: 1 }"], [])),
        ("js", "const result = [1, 'a', null]", ([[1, "a", None]], [], [])),
        ("js", "console.error('no'); new Map([[1, 2]])", (["Map(1) { 1 => 2 }"], [], ["no"])),
        ("js", "const p = await Promise.resolve(3); return p + 1", ([4], [], [])),
        ("js", "require('node:path').join('a', 'b')", (["a/b"], [], [])),
        ("ts", "interface I { x: number }\nconst i: I = { x: 4 };\ni.x as number", ([4], [], [])),
        ("js", "undefined", ([], [], [])),
    ],
)
async def test_code_of_other_languages_runs(tools, executions, language, code, answer):
    tool = (await tools.ResolveTools(ResolveToolsRequest(names=["run_code"]), timeout=5)).tools[0]
    arguments = json.dumps({"code": code, "language": language})
    ran = await execute(executions, arguments, tool_id=tool.id)

    assert ran.status == pb.EXECUTION_STATUS_SUCCESS, ran
    found = json.loads(ran.result)
    assert (found["results"], found["logs"]["stdout"], found["logs"]["stderr"]) == answer, found


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
async def test_code_of_other_languages_fails(tools, executions):
    tool = (await tools.ResolveTools(ResolveToolsRequest(names=["run_code"]), timeout=5)).tools[0]
    for code, name in (("null.x", "TypeError"), ("let = ", "SyntaxError"), ("throw 'no'", "Error")):
        ran = await execute(executions, json.dumps({"code": code, "language": "js"}), tool_id=tool.id)
        assert json.loads(ran.result)["error"]["name"] == name, ran
    ran = await execute(executions, json.dumps({"code": "enum E {}", "language": "ts"}), tool_id=tool.id)
    assert (ran.status, ran.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_SOURCE_INVALID")


async def test_builtin_tools_that_cannot_run_say_why(tools, executions):
    for name, why in (("run_code_with_tools", "one by one"), ("web_search", "web_egress")):
        tool = (await tools.ResolveTools(ResolveToolsRequest(names=[name]), timeout=5)).tools[0]
        ran = await execute(executions, "{}", tool_id=tool.id)
        assert ran.status == pb.EXECUTION_STATUS_REFUSED
        assert why in ran.error_message


async def test_isolation_is_reported(executions, tools):
    report = await executions.GetIsolation(pb.GetIsolationRequest(), timeout=20)
    assert report.provider == pb.EXECUTION_PROVIDER_LOCAL
    assert report.isolation in {pb.ISOLATION_LANDLOCK, pb.ISOLATION_NAMESPACE}
    tool = await created(tools, ADD)
    assert (await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=20)).environment_key == ""


UNTYPED = "def add(a, b=0):\n    return a + b"
SCRIPT = "export function add(a, b = 0) { return a + b; }"
NUMBERS = json.dumps({"properties": {"a": {"$ref": "#/$defs/N"}}, "$defs": {"N": {"type": "integer"}}})
TEXTS = json.dumps({"type": "object", "properties": {"a": {"type": "string"}}})


@pytest.mark.parametrize(("source", "kind"), [(UNTYPED, "PYTHON"), (SCRIPT, "TYPESCRIPT")])
async def test_arguments_of_source_from_outside_are_fitted_to_their_schema(tools, source, kind):
    async def ran(args, **values):
        request = RunToolRequest(source_code=source, source_type=f"TOOL_SOURCE_TYPE_{kind}", args=args, **values)
        return (await tools.RunTool(request, timeout=30)).message.tool_return_message.tool_return

    assert await ran('{"a": "1", "b": 2}', args_json_schema=NUMBERS) == "3"
    assert "must be a whole number" in await ran('{"a": "x"}', args_json_schema=NUMBERS)
    given = tool_pb2.FunctionSchema(parameters_schema=TEXTS)
    assert await ran('{"a": 1, "b": "2"}', args_json_schema=NUMBERS, json_schema=given) == "12"
    with pytest.raises(ToolSourceInvalid, match="JSON object"):
        await ran("{}", args_json_schema="[]")


async def test_arguments_of_bare_source_are_fitted_to_their_schema(executions):
    source = pb.ToolSource(source_code=UNTYPED, parameters_schema=NUMBERS.replace("$defs", "definitions"))
    answer = await executions.Execute(pb.ExecuteRequest(source=source, arguments='{"a": "1", "b": 2}'), timeout=20)

    assert answer.result == "3", answer
    source.parameters_schema = "[]"
    with pytest.raises(InvalidArgument, match="JSON object"):
        await executions.Execute(pb.ExecuteRequest(source=source), timeout=20)


async def test_source_runs_once_from_outside(tools):
    request = RunToolRequest(source_code=ADD, args='{"a": 1, "b": 2}', env_vars={"COLOUR": "blue"}, name="add")
    message = (await tools.RunTool(request, timeout=20)).message

    returned = message.tool_return_message
    assert json.loads(returned.tool_return)["env"] == "blue"
    assert (returned.status, list(returned.stdout)) == (1, ["adding"])
    assert returned.tool_returns[0].text == returned.tool_return
    two = "def one():\n    return 1\n\ndef two():\n    return 2\n"
    request = RunToolRequest(source_code=two, args="{}", json_schema=tool_pb2.FunctionSchema(name="one"))
    message = (await tools.RunTool(request, timeout=20)).message
    assert (message.name, message.tool_return_message.tool_return) == ("one", "1")
    failing = RunToolRequest(source_code='def f():\n    raise ValueError("boom")\n', args="{}")
    returned = (await tools.RunTool(failing, timeout=20)).message.tool_return_message
    assert (returned.status, returned.tool_return) == (2, "Error executing function f: ValueError: boom")
