"""Tools written in TypeScript, from the registry to their result, with the real sandbox."""

import json
import shutil

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_pb2 import TOOL_SOURCE_TYPE_TYPESCRIPT as TYPESCRIPT
from letta.tools.v1.tool_service_pb2 import (
    CreateToolRequest,
    GenerateSchemaRequest,
    RunToolRequest,
    UpdateToolRequest,
)
from letta_common.errors import ToolRequirementsUnsatisfied, ToolSourceInvalid

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")

GREET = """
type Tone = "warm" | "cold";

/**
 * Greet somebody.
 * @param name - who is greeted
 * @param tone - how
 * @param times - how often
 */
export async function greet(name: string, tone: Tone | null, times: number = 1, agent_id?: string): Promise<object> {
  console.log("greeting");
  return { text: `Hello ${name}`.repeat(times), tone, agent: agent_id, colour: process.env.COLOUR as string };
}
"""


async def created(tools, source=GREET, **values):
    tool = tool_pb2.Tool(source_code=source, source_type=TYPESCRIPT, **values)
    return (await tools.CreateTool(CreateToolRequest(tool=tool), timeout=10)).tool


async def execute(executions, arguments="{}", **values):
    return await executions.Execute(pb.ExecuteRequest(arguments=arguments, **values), timeout=30)


async def test_a_tool_is_made_of_source(tools):
    tool = await created(tools, tags=["demo"])

    assert (tool.name, tool.source_type, tool.description) == ("greet", TYPESCRIPT, "Greet somebody.")
    assert tool.source_code == GREET
    assert json.loads(tool.json_schema.parameters_schema) == {
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "who is greeted"},
            "tone": {"type": "string", "enum": ["warm", "cold"], "description": "how"},
            "times": {"type": "number", "description": "how often"},
        },
        "required": ["name"],
    }
    answer = await tools.GenerateSchema(GenerateSchemaRequest(code=GREET, source_type=TYPESCRIPT), timeout=10)
    assert answer.json_schema == tool.json_schema


@needs_node
async def test_it_runs(tools, executions):
    tool = await created(tools)
    answer = await execute(
        executions,
        '{"name": "Ann", "times": 2}',
        tool_id=tool.id,
        environment_variables={"COLOUR": "red"},
        agent_id="agent-1",
    )

    assert answer.status == pb.EXECUTION_STATUS_SUCCESS, answer
    assert json.loads(answer.result) == {
        "text": "Hello AnnHello Ann",
        "tone": None,
        "agent": "agent-1",
        "colour": "red",
    }
    assert (answer.stdout, answer.provider) == ("greeting\n", pb.EXECUTION_PROVIDER_LOCAL)
    assert answer.isolation in {pb.ISOLATION_LANDLOCK, pb.ISOLATION_NAMESPACE}
    assert (await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=30)).environment_key == ""


@needs_node
async def test_new_source_runs_after_an_update(tools, executions):
    tool = await created(tools)
    source = GREET.replace("Hello", "Goodbye")
    request = UpdateToolRequest(
        tool_id=tool.id, tool=tool_pb2.Tool(source_code=source), update_mask=FieldMask(paths=["source_code"])
    )
    newer = (await tools.UpdateTool(request, timeout=10)).tool

    answer = await execute(executions, '{"name": "Ann"}', tool_id=tool.id, tool_version=newer.version)
    assert json.loads(answer.result)["text"] == "Goodbye Ann"


@needs_node
async def test_source_runs_once(tools):
    request = RunToolRequest(source_code=GREET, args='{"name": "Bob"}', source_type=TYPESCRIPT, name="greet")
    returned = (await tools.RunTool(request, timeout=30)).message.tool_return_message
    assert (returned.status, json.loads(returned.tool_return)["text"]) == (1, "Hello Bob")
    failing = RunToolRequest(
        source_code="export function f() { throw new TypeError('boom') }", args="{}", source_type=TYPESCRIPT, name="f"
    )
    returned = (await tools.RunTool(failing, timeout=30)).message.tool_return_message
    assert (returned.status, returned.tool_return) == (2, "Error executing function f: TypeError: boom")


@needs_node
@pytest.mark.parametrize(
    ("source", "status"),
    [
        ("export function f(): never { throw new Error('no') }", pb.EXECUTION_STATUS_TOOL_ERROR),
        ("export function f(): void { for (;;); }", pb.EXECUTION_STATUS_TIMEOUT),
        (
            "export function f() { const x: any[] = []; for (;;) x.push(new Uint8Array(1 << 20).fill(1)) }",
            pb.EXECUTION_STATUS_MEMORY,
        ),
        ("export function f() { for (;;) console.log('x'.repeat(1 << 16)) }", pb.EXECUTION_STATUS_OUTPUT_LIMIT),
        ("export const f = (): number => NaN;", pb.EXECUTION_STATUS_BAD_RESULT),
        ("export function f() { (process as any).reallyExit(1) }", pb.EXECUTION_STATUS_CRASHED),
        (
            "import dns from 'node:dns/promises';\nexport const f = () => dns.lookup('example.com' as string);",
            pb.EXECUTION_STATUS_DENIED,
        ),
        ("export enum E { A }\nexport function f() {}", pb.EXECUTION_STATUS_REFUSED),
        ("export const x = 1;", pb.EXECUTION_STATUS_REFUSED),
    ],
)
async def test_each_end_has_its_status(executions, source, status):
    bare = pb.ToolSource(source_code=source, source_type=TYPESCRIPT)
    limits = pb.Limits(timeout=Duration(seconds=2), memory_bytes=96 << 20)
    answer = await execute(executions, source=bare, limits=limits)

    assert answer.status == status, answer
    assert answer.error_message
    good = pb.ToolSource(source_code="export const f = () => 1;", source_type=TYPESCRIPT)
    assert (await execute(executions, source=good)).result == "1"


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("export function f(", "line 1"),
        ("/** F. */\nexport function f(x) {}", "type annotation"),
        ("export function f() {}", "JSDoc"),
        ("/** F. */\nexport function f() {}\nenum E { A }", "enum"),
        ("def f():\n    pass", "TypeScript"),
    ],
)
async def test_unusable_source_is_refused_with_the_reason(tools, source, says):
    with pytest.raises(ToolSourceInvalid, match=says):
        await created(tools, source)


@needs_node
async def test_a_schema_may_be_given(tools, executions):
    source = "export function add(a: number, b: number) { return a + b }"
    parameters = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}}
    schema = tool_pb2.FunctionSchema(name="sum", description="Add.", parameters_schema=json.dumps(parameters))
    with pytest.raises(ToolSourceInvalid, match="no function `sum`"):
        await created(tools, source, json_schema=schema)

    schema.name = "add"
    tool = await created(tools, source, json_schema=schema)

    assert (tool.json_schema.name, tool.json_schema.description) == ("add", "Add.")
    assert json.loads(tool.json_schema.parameters_schema) == parameters
    assert (await execute(executions, '{"b": 2, "a": 1}', tool_id=tool.id)).result == "3"
    lacking = await execute(executions, '{"b": 2}', tool_id=tool.id)
    assert (lacking.status, lacking.error_message) == (pb.EXECUTION_STATUS_TOOL_ERROR, "missing argument: a")


async def test_packages_are_refused_with_the_reason(tools, executions):
    npm = [tool_pb2.NpmRequirement(name="left-pad", version="1.3.0")]
    tool = await created(tools, npm_requirements=npm)

    answer = await execute(executions, '{"name": "Ann"}', tool_id=tool.id)
    assert (answer.status, answer.error_type) == (pb.EXECUTION_STATUS_REFUSED, "TOOL_REQUIREMENTS_UNSATISFIED")
    assert "left-pad==1.3.0" in answer.error_message
    with pytest.raises(ToolRequirementsUnsatisfied, match="left-pad"):
        await executions.Prepare(pb.PrepareRequest(tool_id=tool.id), timeout=10)
    request = RunToolRequest(source_code=GREET, args='{"name": "Bob"}', source_type=TYPESCRIPT, npm_requirements=npm)
    assert "left-pad" in (await tools.RunTool(request, timeout=10)).message.tool_return_message.tool_return
