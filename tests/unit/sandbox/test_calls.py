"""What a call gives and gets when nothing is wrong with it, and the status of each way to go wrong."""

import asyncio
import json

import pytest

from letta_sandbox.calls import CallEnding, Isolation, Limits

KIB = 1 << 10
MIB = 1 << 20


async def test_arguments_go_in_and_the_result_comes_out_as_json(run):
    result = await run("def f(a, b=2): return {'sum': a + b, 'list': [a, (b,)]}", '{"a": 40}')

    assert (result.status, json.loads(result.result)) == (CallEnding.SUCCESS, {"sum": 42, "list": [40, [2]]})
    assert result.provider == "local"


async def test_the_result_names_its_isolation(run, provider):
    assert (await run("def f(): pass")).isolation is (await provider.probe()).isolation


async def test_output_is_captured(run):
    result = await run(
        "import os, sys\ndef f():\n print('out')\n print('err', file=sys.stderr)\n os.write(1, b'raw')\n return 1"
    )

    assert result.stderr == "err\n"
    assert {"out", "raw"} <= {result.stdout[:3], result.stdout[3:6], result.stdout[-4:-1]}


async def test_several_functions_and_the_named_one_is_called(run):
    source = "def helper(x): return x * 2\ndef f(x): return helper(x)\ndef g(x): return 'no'"

    assert (await run(source, '{"x": 2}')).result == "4"
    assert (await run(source, '{"x": 2}', function="")).result == '"no"'


async def test_an_async_function_is_awaited(run):
    assert (await run("import asyncio\nasync def f():\n await asyncio.sleep(0)\n return [1]")).result == "[1]"


async def test_models_are_made_of_arguments_and_results(run):
    source = """
from typing import Optional
from pydantic import BaseModel

class Item(BaseModel):
    name: str
    count: int = 1

def f(item: Item, items: list[Item], maybe: Optional[Item] = None, plain: dict = None):
    return [item, items[0].count, maybe.name, plain]
"""
    arguments = {"item": {"name": "a"}, "items": [{"name": "b", "count": 7}], "maybe": {"name": "c"}, "plain": {"x": 1}}
    result = await run(source, json.dumps(arguments))

    assert json.loads(result.result) == [{"name": "a", "count": 1}, 7, "c", {"x": 1}]


async def test_dataclasses_and_enums_are_results(run):
    source = """
import dataclasses, enum
class Kind(enum.Enum): A = "a"
@dataclasses.dataclass
class Point: x: int; kind: Kind
def f(): return Point(1, Kind.A)
"""
    assert json.loads((await run(source)).result) == {"x": 1, "kind": "a"}


async def test_environment_variables_reach_the_call_alone(run):
    source = "import os\ndef f(): return dict(os.environ)"
    seen = json.loads((await run(source, environment_variables={"TOKEN": "s3cret"})).result)

    assert seen["TOKEN"] == "s3cret"
    assert "TOKEN" not in json.loads((await run(source)).result)


async def test_agent_state_goes_in_and_its_changed_blocks_come_back(run):
    source = """
def f(agent_state, text):
    block = agent_state.memory.get_block("human")
    agent_state.memory.update_block_value(label="human", value=block.value + text)
    return [agent_state.id, agent_state.memory.list_block_labels()]
"""
    blocks = [{"label": "human", "value": "Ann"}, {"label": "persona", "value": "me"}]
    state = json.dumps({"id": "agent-1", "memory": {"blocks": blocks}})
    result = await run(source, '{"text": " B."}', agent_state=state)

    assert json.loads(result.result) == ["agent-1", ["human", "persona"]]
    assert result.changed_blocks == {"human": "Ann B."}


async def test_untouched_agent_state_gives_no_changes(run):
    result = await run("def f(agent_state): return 1", agent_state='{"memory": {"blocks": []}}')

    assert (result.result, result.changed_blocks) == ("1", {})


async def test_usage_is_measured(run):
    usage = (await run("def f():\n x = b'1' * (64 << 20)\n return sum(range(10**6))")).usage

    assert usage.cpu_seconds > 0.001
    assert usage.wall_seconds > 0.001
    assert usage.peak_memory_bytes > 64 * MIB


FAILURES = {
    "exception": ("def f(): raise ValueError('no such thing')", CallEnding.TOOL_ERROR, "ValueError"),
    "syntax": ("def f(:", CallEnding.TOOL_ERROR, "SyntaxError"),
    "no such function": ("def g(): pass", CallEnding.TOOL_ERROR, "NameError"),
    "missing argument": ("def f(a): pass", CallEnding.TOOL_ERROR, "TypeError"),
    "exit": ("import sys\ndef f(): sys.exit(3)", CallEnding.TOOL_ERROR, "SystemExit"),
    "recursion": ("def f(): return f()", CallEnding.TOOL_ERROR, "RecursionError"),
    "error without text": (
        "class E(Exception):\n def __str__(self): raise E\ndef f(): raise E",
        CallEnding.TOOL_ERROR,
        "E",
    ),
    "memory": ("def f(): return len(bytearray(1 << 30))", CallEnding.MEMORY, "MemoryError"),
    "growing memory": (
        "def f():\n x = []\n while True: x.append(bytearray(1 << 20))",
        CallEnding.MEMORY,
        "MemoryError",
    ),
    "many small objects": ("def f():\n x = []\n while True: x.append([len(x)])", CallEnding.MEMORY, "MemoryError"),
    "spin": ("def f():\n while True: pass", CallEnding.TIMEOUT, "Timeout"),
    "sleep": ("import time\ndef f(): time.sleep(60)", CallEnding.TIMEOUT, "Timeout"),
    "output": ("def f():\n while True: print('x' * 65536)", CallEnding.OUTPUT_LIMIT, "OutputLimit"),
    "large result": ("def f(): return 'x' * (50 << 20)", CallEnding.OUTPUT_LIMIT, "ResultTooLarge"),
    "nan": ("def f(): return float('nan')", CallEnding.BAD_RESULT, "ValueError"),
    "object": ("def f(): return object()", CallEnding.BAD_RESULT, "TypeError"),
    "bytes": ("def f(): return b'x'", CallEnding.BAD_RESULT, "TypeError"),
    "cycle": ("def f():\n x = []\n x.append(x)\n return x", CallEnding.BAD_RESULT, "ValueError"),
    "surrogate": ("def f(): return '\\ud800'", CallEnding.BAD_RESULT, "BadResult"),
    "huge integer": ("def f(): return 10 ** 40", CallEnding.BAD_RESULT, "BadResult"),
    "deep": ("def f():\n x = []\n for _ in range(100000): x = [x]\n return x", CallEnding.BAD_RESULT, "RecursionError"),
    "no result": ("import os\ndef f(): os._exit(0)", CallEnding.CRASHED, "Exited"),
    "segmentation fault": ("import ctypes\ndef f(): ctypes.string_at(0)", CallEnding.CRASHED, "SIGSEGV"),
    "network": (
        "import socket\ndef f(): socket.create_connection(('127.0.0.1', 1))",
        CallEnding.DENIED,
        "PermissionError",
    ),
    "name lookup": ("import socket\ndef f(): socket.getaddrinfo('example.com', 80)", CallEnding.DENIED, "gaierror"),
    "process": ("import subprocess\ndef f(): subprocess.run(['/bin/true'])", CallEnding.DENIED, "PermissionError"),
}


@pytest.mark.parametrize("name", list(FAILURES))
async def test_each_failure_has_its_status(run, name):
    source, status, kind = FAILURES[name]
    seconds = 2.0 if status is CallEnding.TIMEOUT else 60.0  # a busy machine reaches other limits late
    result = await run(source, limits=Limits(timeout_seconds=seconds, memory_bytes=128 * MIB))

    assert (status, kind) == (result.status, result.failure.kind), result
    assert ("", result.failure.message != "") == (result.result, True)


async def test_a_failure_shows_the_frames_of_the_tool_alone(run):
    failure = (await run("def f():\n    return 1 / 0")).failure

    assert (
        failure.message,
        "return 1 / 0" if "return 1 / 0" in failure.traceback else "",
    ) == ("division by zero", "return 1 / 0")
    assert "harness" not in failure.traceback


REFUSALS = {
    "arguments are no object": {"arguments": "[1]"},
    "arguments are no JSON": {"arguments": "{'a': 1}"},
    "arguments have NaN": {"arguments": '{"a": NaN}'},
    "no name": {"function": "os.system('x')"},
    "state is no object": {"agent_state": "1"},
    "variable has NUL": {"environment_variables": {"A": "\0"}},
    "variable has equals": {"environment_variables": {"A=B": "1"}},
}


@pytest.mark.parametrize("name", list(REFUSALS))
async def test_a_call_that_cannot_begin_is_refused(run, name):
    assert CallEnding.REFUSED is (await run("def f(): pass", **REFUSALS[name])).status


async def test_output_before_a_failure_is_kept(run):
    result = await run("def f():\n print('before', flush=True)\n raise ValueError")

    assert result.stdout == "before\n"


async def test_output_is_cut_at_the_limit(run):
    result = await run("def f():\n while True: print('x' * 999)", limits=Limits(output_bytes=10 * KIB))

    assert (len(result.stdout) + len(result.stderr), result.truncated) == (10 * KIB, True)


async def test_limits_are_cut_to_those_of_the_provider():
    most = Limits(timeout_seconds=2, memory_bytes=10)

    assert (
        Limits(timeout_seconds=0).cut_to(most).timeout_seconds,
        Limits(memory_bytes=100).cut_to(most).memory_bytes,
        Limits(processes=5).cut_to(most).processes,
    ) == (2, 10, 5)


async def test_many_calls_at_once_each_get_their_own_answer(run):
    source = "import time\ndef f(i):\n time.sleep(0.1)\n return i"
    results = await asyncio.gather(*(run(source, json.dumps({"i": i})) for i in range(60)))

    assert [str(i) for i in range(60)] == [result.result for result in results]


async def test_large_arguments_and_results_pass(run):
    text = "é" * (1 << 18)
    result = await run("def f(text): return text", json.dumps({"text": text}))

    assert text == json.loads(result.result)


async def test_a_call_may_ask_for_stronger_isolation_than_there_is(run, provider):
    from letta_common.errors import IsolationUnavailable

    with pytest.raises(IsolationUnavailable, match="strongly enough"):
        await run("def f(): pass", min_isolation=Isolation.VM)
