"""Everything that can be wrong with a tool, through the real RPCs: each has its answer, and the service serves on."""

import json

import pytest
from google.protobuf.duration_pb2 import Duration

from letta.tools.v1 import tool_execution_service_pb2 as pb
from letta.tools.v1 import tool_pb2
from letta.tools.v1.tool_service_pb2 import CreateToolRequest, GenerateSchemaRequest, GetToolRequest
from letta_common.errors import InvalidArgument, ToolNameTaken, ToolNotFound, ToolSourceInvalid, ValidationFailed
from letta_common.values.ids import new_id

GOOD = 'def good(a: int = 1) -> int:\n    """Good.\n\n    Args:\n        a: a number\n    """\n    return a\n'
DEEP = "(" * 3000 + ")" * 3000


def hinted(hint):
    return f'from typing import *\ndef f(x: {hint}):\n    """F.\n\n    Args:\n        x: it\n    """\n    return x\n'


@pytest.fixture(autouse=True)
async def serving_afterwards(tools, executions):
    """Whatever a test sent, a tool can be made and run afterwards."""
    yield
    made = (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=GOOD)), timeout=10)).tool
    answer = await executions.Execute(pb.ExecuteRequest(tool_id=made.id, arguments='{"a": 7}'), timeout=20)
    assert (answer.status, answer.result) == (pb.EXECUTION_STATUS_SUCCESS, "7")


SOURCES = {
    "syntax error": ("def f(:\n    pass", "line 1"),
    "syntax error further down": ('def f():\n    """F."""\n    return (\n', "line 3"),
    "indentation": ("def f():\nreturn 1", "line 2"),
    "tabs and blanks": ("def f():\n\tif 1:\n        pass", "line 3"),
    "an invalid character": ("def f(): return 1 ¿ 2", "line 1"),
    "an unterminated string": ('def f():\n    """F.', "line 2"),
    "null bytes": ("def f(): pass\0", "null|NUL"),
    "brackets without end": (f'def f():\n    """F."""\n    return {DEEP}', "parsed|nested"),
    "no code": ("# nothing", "no function"),
    "a lambda": ("f = lambda x: x", "lambda"),
    "a lambda with a type": ("from typing import Callable\nf: Callable = lambda x: x", "no function"),
    "a class": ('class F:\n    def f(self):\n        """F."""', "no function"),
    "a nested function": ("if True:\n    def f(): pass", "no function"),
    "no annotation": (
        'def f(x):\n    """F.\n\n    Args:\n        x: it\n    """',
        "`x` of `f` needs a type annotation",
    ),
    "no docstring": ("def f(x: int): ...", "docstring"),
    "an empty docstring": ('def f(x: int):\n    """ """', "docstring"),
    "a parameter that is not described": ('def f(x: int):\n    """F."""', "description"),
    "variable arguments": ('def f(*args: int):\n    """F."""', "name every parameter"),
    "keyword arguments": ('def f(**kwargs: int):\n    """F."""', "name every parameter"),
    "positional arguments": ('def f(x: int, /):\n    """F.\n\n    Args:\n        x: it\n    """', "positional-only"),
    "a type nobody knows": (hinted("Nobody"), "`Nobody` has no JSON form"),
    "bytes": (hinted("bytes"), "no JSON form"),
    "a type that is a call": (hinted("__import__('os').system('true')"), "no JSON form"),
    "a type that is text of no type": (hinted("'(('"), "is no type"),
    "a type that contains itself": ("X = list['X']\n" + hinted("X"), "defined by itself|contains itself|nested"),
    "a number without end": (hinted("Literal[1e999]"), "no JSON"),
    "a huge integer": (hinted(f"Literal[0x{'f' * 5000}]"), "no JSON"),
    "half of a character in a type": (hinted("Literal['\\ud800']"), "no JSON"),
    "half of a character in the docstring": ('def f():\n    """F \\ud800."""', "no JSON"),
    "a name that providers refuse": ('def é():\n    """F."""', "letters"),
    "a name that is too long": (f'def {"f" * 49}():\n    """F."""', "48"),
}


@pytest.mark.parametrize("name", list(SOURCES))
async def test_source_that_is_no_tool(tools, executions, name):
    source, says = SOURCES[name]
    with pytest.raises(ToolSourceInvalid, match=says):
        await tools.GenerateSchema(GenerateSchemaRequest(code=source), timeout=20)
    with pytest.raises((ToolSourceInvalid, InvalidArgument), match=says):
        await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=source)), timeout=20)


async def test_of_two_functions_the_last_is_the_tool(tools, executions):
    made = (
        await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=f"def g(): pass\n{GOOD}")), timeout=9)
    ).tool
    assert made.name == "good"
    schema = tool_pb2.FunctionSchema(name="g", description="G.", parameters_schema='{"type": "object"}')
    other = tool_pb2.Tool(source_code="def g():\n    return 'g'\n\ndef h():\n    return 'h'\n", json_schema=schema)
    made = (await tools.CreateTool(CreateToolRequest(tool=other), timeout=9)).tool
    answer = await executions.Execute(pb.ExecuteRequest(tool_id=made.id), timeout=20)
    assert (made.name, answer.result) == ("g", '"g"')


FIELDS = {
    "a name that is taken": ({"source_code": 'def send_message():\n    """Mine."""'}, ToolNameTaken),
    "no source": ({}, ToolSourceInvalid),
    "an unknown language": ({"source_code": GOOD, "source_type": 99}, ValidationFailed),
    "too much source": ({"source_code": "#" * (1 << 20) + "\n" + GOOD}, ValidationFailed),
    "a schema without a name": ({"source_code": GOOD, "json_schema": {}}, ToolSourceInvalid),
    "a schema of another function": ({"source_code": GOOD, "json_schema": {"name": "bad"}}, ToolSourceInvalid),
    "a schema that is no JSON": (
        {"source_code": GOOD, "json_schema": {"name": "good", "parameters_schema": "{"}},
        ToolSourceInvalid,
    ),
    "a schema that is no object": (
        {"source_code": GOOD, "json_schema": {"name": "good", "parameters_schema": "[]"}},
        ToolSourceInvalid,
    ),
    "a schema with NaN": (
        {"source_code": GOOD, "json_schema": {"name": "good", "parameters_schema": '{"x": NaN}'}},
        ToolSourceInvalid,
    ),
    "a model that is no JSON": ({"source_code": GOOD, "args_json_schema": "nothing"}, ToolSourceInvalid),
    "a model without end": (
        {
            "source_code": GOOD,
            "args_json_schema": json.dumps(
                {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"items": {"$ref": "#/$defs/A"}}}}
            ),
        },
        ToolSourceInvalid,
    ),
    "a reference to nothing": (
        {"source_code": GOOD, "args_json_schema": '{"properties": {"a": {"$ref": "#/$defs/B"}}}'},
        ToolSourceInvalid,
    ),
    "metadata that is no JSON": ({"source_code": GOOD, "metadata": "{"}, InvalidArgument),
    "metadata that is no object": ({"source_code": GOOD, "metadata": "[]"}, InvalidArgument),
    "metadata with a number that is none": ({"source_code": GOOD, "metadata": '{"a": NaN}'}, InvalidArgument),
    "metadata with half of a character": ({"source_code": GOOD, "metadata": '{"a": "\\ud800"}'}, InvalidArgument),
    "a limit of nothing": ({"source_code": GOOD, "return_char_limit": -1}, ValidationFailed),
    "a limit that is too high": ({"source_code": GOOD, "return_char_limit": 1_000_001}, ValidationFailed),
    "an empty tag": ({"source_code": GOOD, "tags": [""]}, ValidationFailed),
    "a tag with NUL": ({"source_code": GOOD, "tags": ["a\0"]}, InvalidArgument),
    "a description with NUL": ({"source_code": GOOD, "description": "a\0"}, InvalidArgument),
    "a package that is none": (
        {"source_code": GOOD, "pip_requirements": [tool_pb2.PipRequirement(name="../x")]},
        ValidationFailed,
    ),
    "a package with an option": (
        {"source_code": GOOD, "pip_requirements": [tool_pb2.PipRequirement(name="a", version="1 --pre")]},
        ValidationFailed,
    ),
    "a Node package that is none": (
        {"source_code": GOOD, "npm_requirements": [tool_pb2.NpmRequirement(name="../x")]},
        ValidationFailed,
    ),
}


@pytest.mark.parametrize("name", list(FIELDS))
async def test_fields_that_are_wrong(tools, name):
    fields, error = FIELDS[name]
    with pytest.raises(error) as caught:
        await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(**fields)), timeout=20)
    assert type(caught.value) is error
    assert caught.value.message


async def test_a_docstring_with_nul_loses_it(tools):
    source = 'def f():\n    """F\\0."""\n    return 1\n'
    made = (await tools.CreateTool(CreateToolRequest(tool=tool_pb2.Tool(source_code=source)), timeout=10)).tool
    assert made.description == "F."
    assert (await tools.GetTool(GetToolRequest(tool_id=made.id), timeout=5)).tool == made


REFUSED, TOOL_ERROR = pb.EXECUTION_STATUS_REFUSED, pb.EXECUTION_STATUS_TOOL_ERROR
BAD_RESULT, OUTPUT_LIMIT = pb.EXECUTION_STATUS_BAD_RESULT, pb.EXECUTION_STATUS_OUTPUT_LIMIT
CALLS = {
    "syntax error": ("def f(:", "{}", REFUSED, "TOOL_SOURCE_INVALID"),
    "a lambda": ("f = lambda: 1", "{}", REFUSED, "TOOL_SOURCE_INVALID"),
    "no function": ("x = 1", "{}", REFUSED, "TOOL_SOURCE_INVALID"),
    "null bytes": ("def f(): pass\0", "{}", REFUSED, "TOOL_SOURCE_INVALID"),
    "arguments that are no JSON": ("def f(): pass", "{", REFUSED, "BadRequest"),
    "arguments that are no object": ("def f(a): pass", "[1]", REFUSED, "BadRequest"),
    "arguments with NaN": ("def f(a): pass", '{"a": NaN}', REFUSED, "BadRequest"),
    "arguments with a huge integer": ("def f(a): pass", '{"a": ' + "9" * 5000 + "}", REFUSED, "BadRequest"),
    "arguments without end": ("def f(a): pass", '{"a":' * 100_000, REFUSED, "BadRequest"),
    "a missing argument": ("def f(a): pass", "{}", TOOL_ERROR, "TypeError"),
    "an unknown argument": ("def f(a): pass", '{"a": 1, "b": 2}', TOOL_ERROR, "TypeError"),
    "an exception": ("def f(): raise KeyError('no')", "{}", TOOL_ERROR, "KeyError"),
    "an exception while it is loaded": ("raise ValueError('early')\ndef f(): pass", "{}", TOOL_ERROR, "ValueError"),
    "a missing module": ("import numpy_of_nobody\ndef f(): pass", "{}", TOOL_ERROR, "ModuleNotFoundError"),
    "recursion": ("def f(): return f()", "{}", TOOL_ERROR, "RecursionError"),
    "exit": ("import sys\ndef f(): sys.exit(1)", "{}", TOOL_ERROR, "SystemExit"),
    "an object": ("def f(): return object()", "{}", BAD_RESULT, "TypeError"),
    "bytes": ("def f(): return b'x'", "{}", BAD_RESULT, "TypeError"),
    "a set": ("def f(): return {1, 2}", "{}", BAD_RESULT, "TypeError"),
    "an iterator": ("def f(): return iter([1])", "{}", BAD_RESULT, "TypeError"),
    "not a number": ("def f(): return float('nan')", "{}", BAD_RESULT, "ValueError"),
    "infinity, deep inside": ("def f(): return [{'a': [float('-inf')]}]", "{}", BAD_RESULT, "ValueError"),
    "a huge integer": ("def f(): return 10 ** 40", "{}", BAD_RESULT, "BadResult"),
    "an integer with 5000 digits": ("def f(): return 10 ** 5000", "{}", BAD_RESULT, "ValueError"),
    "a lone surrogate": ("def f(): return '\\ud800'", "{}", BAD_RESULT, "BadResult"),
    "a lone surrogate as a key": ("def f(): return {'\\udfff': 1}", "{}", BAD_RESULT, "BadResult"),
    "a lone surrogate that was given": ("def f(a): return a", '{"a": "\\ud83d"}', BAD_RESULT, "BadResult"),
    "a cycle": ("def f():\n x = []\n x.append(x)\n return x", "{}", BAD_RESULT, "ValueError"),
    "no end of depth": (
        "def f():\n x = []\n for _ in range(10**5): x = [x]\n return x",
        "{}",
        BAD_RESULT,
        "RecursionError",
    ),
    "200 MB of output": (
        "import sys\ndef f():\n for _ in range(200): sys.stdout.write('x' * (1 << 20))",
        "{}",
        OUTPUT_LIMIT,
        "OutputLimit",
    ),
    "200 MB of errors": (
        "import os\ndef f():\n for _ in range(200): os.write(2, b'x' * (1 << 20))",
        "{}",
        OUTPUT_LIMIT,
        "OutputLimit",
    ),
    "a result of 200 MB": ("def f(): return ['x' * (1 << 20)] * 200", "{}", OUTPUT_LIMIT, "ResultTooLarge"),
    "no end": ("def f():\n while True: pass", "{}", pb.EXECUTION_STATUS_TIMEOUT, "Timeout"),
    "sleep": ("import time\ndef f(): time.sleep(60)", "{}", pb.EXECUTION_STATUS_TIMEOUT, "Timeout"),
    "no end while it is loaded": ("while True: pass\ndef f(): pass", "{}", pb.EXECUTION_STATUS_TIMEOUT, "Timeout"),
    "memory": ("def f(): return len(bytearray(1 << 34))", "{}", pb.EXECUTION_STATUS_MEMORY, "MemoryError"),
    "death": ("import os\ndef f(): os._exit(3)", "{}", pb.EXECUTION_STATUS_CRASHED, "Exited"),
    "a signal": ("import ctypes\ndef f(): ctypes.string_at(0)", "{}", pb.EXECUTION_STATUS_CRASHED, "SIGSEGV"),
    "the network": (
        "import socket\ndef f(): socket.create_connection(('127.0.0.1', 1))",
        "{}",
        pb.EXECUTION_STATUS_DENIED,
        "PermissionError",
    ),
    "another program": (
        "import subprocess\ndef f(): subprocess.run(['/bin/true'])",
        "{}",
        pb.EXECUTION_STATUS_DENIED,
        "PermissionError",
    ),
}


@pytest.mark.parametrize("name", list(CALLS))
async def test_calls_that_go_wrong(executions, name):
    source, arguments, status, kind = CALLS[name]
    seconds = 1 if status == pb.EXECUTION_STATUS_TIMEOUT else 20
    request = pb.ExecuteRequest(
        source=pb.ToolSource(source_code=source),
        arguments=arguments,
        limits=pb.Limits(timeout=Duration(seconds=seconds)),
    )
    answer = await executions.Execute(request, timeout=40)

    assert (answer.status, answer.error_type) == (status, kind), answer
    assert answer.error_message
    assert answer.result == ""
    assert len(answer.stdout) + len(answer.stderr) <= 2 << 20


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (pb.ExecuteRequest(), ValidationFailed),
        (pb.ExecuteRequest(source=pb.ToolSource()), ValidationFailed),
        (pb.ExecuteRequest(tool_id="block-1"), ValidationFailed),
        (pb.ExecuteRequest(tool_id=new_id("tool")), ToolNotFound),
        (pb.ExecuteRequest(source=pb.ToolSource(source_code=GOOD), arguments=" " * 8388609), ValidationFailed),
        (pb.ExecuteRequest(source=pb.ToolSource(source_code=GOOD), idempotency_key="k" * 129), ValidationFailed),
        (pb.ExecuteRequest(source=pb.ToolSource(source_code=GOOD), tool_version=-1), ValidationFailed),
    ],
)
async def test_requests_that_are_wrong(executions, request_, error):
    with pytest.raises(error):
        await executions.Execute(request_, timeout=20)


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("environment_variables", {"A=B": "x"}),
        ("environment_variables", {"": "x"}),
        ("environment_variables", {"A": "x\0y"}),
        ("agent_state", "[1]"),
        ("agent_state", "{"),
    ],
)
async def test_surroundings_that_are_wrong(executions, field, values):
    request = pb.ExecuteRequest(source=pb.ToolSource(source_code=GOOD), **{field: values})
    answer = await executions.Execute(request, timeout=20)
    assert (answer.status, answer.error_type) == (REFUSED, "BadRequest"), answer
