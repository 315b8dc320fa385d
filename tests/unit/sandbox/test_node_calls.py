"""Calls that become Node: what they give, the status of each way to go wrong, and attacks with a control each."""

# ruff: noqa: E501 - sources of tools are text

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from letta_sandbox.calls import CallEnding, Env, Isolation, Language, Limits, SandboxCall, Signature
from letta_sandbox.local import nodes
from letta_sandbox.local.provider import LocalOptions, LocalProvider
from tests.unit.sandbox.conftest import options

pytestmark = pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
MIB = 1 << 20


async def call(provider, source, names=(), arguments=None, required=(), as_object=False, **fields):
    signature = Signature(tuple(names), tuple(required), as_object)
    text = json.dumps(arguments or {})
    made = SandboxCall(source, "f", text, language=Language.JAVASCRIPT, signature=signature, **fields)
    return await provider.run(made, Env())


@pytest.fixture
def run(provider):
    async def run(source, *args, **fields):
        return await call(provider, source, *args, **fields)

    return run


@pytest.fixture(scope="session")
async def open_provider():
    """A provider that isolates nothing: what gets through here is what isolation holds back."""
    provider = LocalProvider(LocalOptions(tiers=(), min_isolation=Isolation.NONE, allow_unsandboxed=True))
    yield provider
    await provider.close()


async def test_arguments_go_in_by_name_and_the_result_comes_out_as_json(run, provider):
    source = "export function f(a, b = 2, c) { return { sum: a + b, c: c === undefined, list: [a, [b]] } }"
    result = await run(source, ("a", "b", "c"), {"a": 40}, ("a",))

    assert (result.status, json.loads(result.result)) == (
        CallEnding.SUCCESS,
        {"sum": 42, "c": True, "list": [40, [2]]},
    ), result
    assert (result.provider, result.isolation) == ("local", (await provider.probe()).isolation)
    assert result.usage.cpu_seconds > 0
    assert result.usage.peak_memory_bytes > MIB


async def test_arguments_may_come_as_one_object(run):
    source = "export const f = ({ a, b = 2 }) => a + b"
    assert (await run(source, ("a", "b"), {"a": 1}, ("a",), as_object=True)).result == "3"


async def test_promises_are_awaited_and_output_is_captured(run):
    source = """
export async function f() {
  console.log('out');
  console.error('err');
  await new Promise((tell) => setTimeout(tell, 5));
  return undefined;
}"""
    result = await run(source)
    assert (result.result, result.stdout, result.stderr) == ("null", "out\n", "err\n")


async def test_built_in_modules_may_be_imported(run):
    source = "import { createHash } from 'node:crypto'; import path from 'path';\n"
    source += "export const f = () => [createHash('sha256').update('a').digest('hex').slice(0, 8), path.join('a', 'b')]"
    assert json.loads((await run(source)).result) == ["ca978112", "a/b"]


async def test_environment_variables_reach_the_call_alone(run):
    source = "export const f = () => ({ ...process.env })"
    seen = json.loads((await run(source, environment_variables={"TOKEN": "s3cret"})).result)

    assert seen.pop("TOKEN") == "s3cret"
    assert set(seen) == {"PATH", "HOME", "LANG", "OPENSSL_CONF", "UV_USE_IO_URING"}
    assert "TOKEN" not in json.loads((await run(source)).result)


async def test_agent_state_goes_in_and_its_changed_blocks_come_back(run):
    source = """
export function f(agent_state, text) {
  agent_state.memory.blocks[0].value += text;
  agent_state.blocks.push({ label: 'new', value: 'x' });
  return agent_state.id;
}"""
    state = json.dumps({"id": "agent-1", "memory": {"blocks": [{"label": "human", "value": "Ann"}]}})
    result = await run(source, ("agent_state", "text"), {"text": " B."}, agent_state=state)

    assert result.result == '"agent-1"', result
    assert result.changed_blocks == {"human": "Ann B."}
    assert (await run("export const f = () => 1", agent_state=state)).changed_blocks == {}


async def test_frames_of_the_tool_alone_are_shown(run):
    result = await run("function inner() { throw new RangeError('no') }\nexport function f() {\n  inner() }")

    assert result.failure.traceback.splitlines() == [
        "    at inner (<tool>:1:26)",
        "    at f (<tool>:3:3)",
    ]


FAILURES = {
    "exception": ("export function f() { throw new TypeError('no such thing') }", CallEnding.TOOL_ERROR, "TypeError"),
    "rejection": ("export async function f() { throw new Error('no') }", CallEnding.TOOL_ERROR, "Error"),
    "a thrown string": ("export function f() { throw 'no' }", CallEnding.TOOL_ERROR, "Error"),
    "thrown later": (
        "export const f = () => new Promise(() => setTimeout(() => { throw new TypeError('late') }, 1))",
        CallEnding.TOOL_ERROR,
        "TypeError",
    ),
    "an unhandled rejection": (
        "export const f = () => new Promise(() => { Promise.reject(new TypeError('lost')) })",
        CallEnding.TOOL_ERROR,
        "TypeError",
    ),
    "syntax": ("export functio f() {}", CallEnding.TOOL_ERROR, "SyntaxError"),
    "types": ("export function f(a: number) {}", CallEnding.TOOL_ERROR, "SyntaxError"),
    "no such function": ("export function g() {}", CallEnding.TOOL_ERROR, "ReferenceError"),
    "a package": ("import x from 'left-pad'; export const f = () => x", CallEnding.TOOL_ERROR, "TypeError"),
    "exit": ("export function f() { process.exit(3) }", CallEnding.TOOL_ERROR, "Exit"),
    "recursion": ("export function f() { return f() }", CallEnding.TOOL_ERROR, "RangeError"),
    "never": ("export const f = () => new Promise(() => {})", CallEnding.TOOL_ERROR, "Error"),
    "error without text": (
        "class E extends Error { get message() { throw 1 } get stack() { throw 2 } }\nexport function f() { throw new E() }",
        CallEnding.TOOL_ERROR,
        "Error",
    ),
    "spin": ("export function f() { for (;;); }", CallEnding.TIMEOUT, "Timeout"),
    "wait": ("export const f = () => new Promise((t) => setTimeout(t, 60000))", CallEnding.TIMEOUT, "Timeout"),
    "output": (
        "export function f() { for (;;) console.log('x'.repeat(65536)) }",
        CallEnding.OUTPUT_LIMIT,
        "OutputLimit",
    ),
    "large result": ("export const f = () => 'x'.repeat(50 << 20)", CallEnding.OUTPUT_LIMIT, "ResultTooLarge"),
    "nan": ("export const f = () => [NaN]", CallEnding.BAD_RESULT, "BadResult"),
    "infinity": ("export const f = () => ({ a: -Infinity })", CallEnding.BAD_RESULT, "BadResult"),
    "a big integer": ("export const f = () => 10n", CallEnding.BAD_RESULT, "BadResult"),
    "an integer beyond 64 bits": ("export const f = () => 2 ** 69", CallEnding.BAD_RESULT, "BadResult"),
    "a function": ("export const f = () => ({ f })", CallEnding.BAD_RESULT, "BadResult"),
    "a map": ("export const f = () => new Map([[1, 2]])", CallEnding.BAD_RESULT, "BadResult"),
    "a cycle": ("export function f() { const x = []; x.push(x); return x }", CallEnding.BAD_RESULT, "TypeError"),
    "deep": (
        "export function f() { let x = []; for (let i = 0; i < 1e5; i++) x = [x]; return x }",
        CallEnding.BAD_RESULT,
        "RangeError",
    ),
    "a lone surrogate": ("export const f = () => '\\ud800'", CallEnding.BAD_RESULT, "BadResult"),
    "no result": ("export function f() { process.reallyExit(0) }", CallEnding.CRASHED, "Exited"),
    "network": (
        "import net from 'node:net';\nexport const f = () => new Promise((_, no) => net.connect(9, '127.0.0.1').on('error', no))",
        CallEnding.DENIED,
        "Error",
    ),
    "fetch": (
        "export const f = async () => (await fetch('http://127.0.0.1:8089/')).status",
        CallEnding.DENIED,
        "TypeError",
    ),
    "name lookup": (
        "import dns from 'node:dns/promises';\nexport const f = () => dns.lookup('example.com')",
        CallEnding.DENIED,
        "Error",
    ),
}


@pytest.mark.parametrize("name", list(FAILURES))
async def test_each_failure_has_its_status(run, name):
    source, status, kind = FAILURES[name]
    result = await run(source, limits=Limits(timeout_seconds=2.0 if status is CallEnding.TIMEOUT else 10.0))

    assert (status, kind) == (result.status, result.failure.kind), result
    assert ("", result.failure.message != "") == (result.result, True)


MEMORY = {
    "objects": "export function f() { const x = []; for (;;) x.push(new Array(1000).fill(x.length)) }",
    "buffers": "export function f() { const x = []; for (;;) x.push(new Uint8Array(1 << 20).fill(1)) }",
    "one buffer": "export function f() { return new Uint8Array(2 ** 31).fill(1).length }",
    "strings": "export function f() { let x = 'ab'; const y = []; for (;;) { y.push(Buffer.from(x.repeat(1 << 18)).toString()) } }",
}


@pytest.mark.parametrize("name", list(MEMORY))
async def test_memory_is_bounded(run, name):
    result = await run(MEMORY[name], limits=Limits(timeout_seconds=20.0, memory_bytes=96 * MIB))

    assert result.status is CallEnding.MEMORY, result
    assert result.usage.peak_memory_bytes < 320 * MIB


async def test_what_is_called_wrongly_is_an_error_of_the_tool(run):
    source = "export const f = (a, b) => a"
    missing = await run(source, ("a", "b"), {"b": 1}, ("a",))
    unknown = await run(source, ("a", "b"), {"a": 1, "c": 1}, ("a",))
    inherited = await run(source, ("a", "toString"), {"a": 1, "valueOf": 1}, ("a", "toString"))

    assert [(answer.status, answer.failure.message) for answer in (missing, unknown, inherited)] == [
        (CallEnding.TOOL_ERROR, "missing argument: a"),
        (CallEnding.TOOL_ERROR, "unknown argument: c"),
        (CallEnding.TOOL_ERROR, "unknown argument: valueOf"),
    ]


async def test_arguments_are_data_whatever_they_say(run):
    nasty = ["${process.exit(1)}", "'); process.exit(1); ('", "\u2028`", "</script>", "\\", {"__proto__": {"x": 1}}]
    result = await run("export const f = (a) => [a, ({}).x === undefined]", ("a",), {"a": nasty})

    assert json.loads(result.result) == [nasty, True], result


async def test_source_is_data_whatever_it_says(run):
    source = "export const f = () => `%27#?;,\"é\\u2028\u2028${'😀'}`"
    assert json.loads((await run(source)).result) == '%27#?;,"é\u2028\u2028😀'


async def test_many_calls_at_once_each_get_their_own_answer(run):
    calls = [run("export const f = (n) => n", ("n",), {"n": number}) for number in range(12)]
    assert [answer.result for answer in await asyncio.gather(*calls)] == [str(number) for number in range(12)]


# Each gives {hit: true} when it gets through.
SECRET = "marker-of-the-host"
ATTACKS = {
    "read a file of the host": """
import fs from 'node:fs';
export function f(facts) {
  let found = false;
  for (const path of [facts.secret, '/proc/1/root' + facts.secret, '../../../../..' + facts.secret]) {
    try { found ||= fs.readFileSync(path, 'utf8').includes(facts.marker) } catch {}
  }
  return { hit: found };
}""",
    "write a file of the host": """
import fs from 'node:fs';
export function f(facts) {
  try { fs.writeFileSync(facts.secret + '.written', 'x') } catch { return { hit: false } }
  return { hit: fs.existsSync(facts.secret + '.written') };
}""",
    "start a program": """
import { spawnSync } from 'node:child_process';
export const f = (facts) => ({ hit: spawnSync(facts.python, ['-c', 'print(1)']).stdout?.toString() === '1\\n' });""",
    "start itself": """
import { spawnSync } from 'node:child_process';
export const f = () => ({ hit: spawnSync(process.execPath, ['--version']).stdout?.toString().startsWith('v') === true });""",
    "fork": """
import { fork } from 'node:child_process';
export const f = () => new Promise((tell) => {
  const child = fork('/dev/null');
  child.on('error', () => tell({ hit: false }));
  child.on('spawn', () => tell({ hit: true }));
});""",
    "a cluster": """
import cluster from 'node:cluster';
export const f = () => new Promise((tell) => {
  cluster.setupPrimary({ exec: '/dev/null' });
  const worker = cluster.fork();
  worker.on('error', () => tell({ hit: false }));
  worker.process.on('spawn', () => tell({ hit: true }));
});""",
    "connect to a service": """
import net from 'node:net';
export const f = (facts) => new Promise((tell) => {
  net.connect(facts.port, '127.0.0.1', () => tell({ hit: true })).on('error', () => tell({ hit: false }));
});""",
    "listen": """
import net from 'node:net';
export const f = () => new Promise((tell) => {
  net.createServer().on('error', () => tell({ hit: false })).listen(0, '127.0.0.1', () => tell({ hit: true }));
});""",
    "datagrams": """
import dgram from 'node:dgram';
export const f = (facts) => new Promise((tell) => {
  try { dgram.createSocket('udp4').on('error', () => tell({ hit: false })).send('x', facts.port, '127.0.0.1', (e) => tell({ hit: !e })) }
  catch { tell({ hit: false }) }
});""",
    "a Unix socket": """
import net from 'node:net';
export const f = (facts) => new Promise((tell) => {
  net.connect(facts.socket, () => tell({ hit: true })).on('error', () => tell({ hit: false }));
});""",
    "signal another process": """
export function f(facts) {
  try { process.kill(facts.victim, 0) } catch { return { hit: false } }
  return { hit: true };
}""",
    "see how another process was started": """
import fs from 'node:fs';
export function f(facts) {
  let all = JSON.stringify(process.env);
  for (const pid of ['self', '1', facts.victim, process.ppid]) {
    try { all += fs.readFileSync(`/proc/${pid}/cmdline`, 'utf8') } catch {}
  }
  return { hit: all.includes(facts.marker) };
}""",
    "open the inspector": """
import inspector from 'node:inspector';
import net from 'node:net';
export const f = () => new Promise((tell) => {
  try { inspector.open(0, '127.0.0.1') } catch { tell({ hit: false }) }
  const url = inspector.url();
  if (!url) { tell({ hit: false }); return }
  net.connect(Number(new URL(url).port), '127.0.0.1', () => tell({ hit: true })).on('error', () => tell({ hit: false }));
});""",
}


@pytest.fixture(scope="module")
def facts(tmp_path_factory):
    directory = tmp_path_factory.mktemp("host")
    directory.chmod(0o755)
    secret = directory / "secret"
    secret.write_text(SECRET)
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        local = stack.enter_context(socket.socket(socket.AF_UNIX))
        path = Path(f"/tmp/letta-test-{os.getpid()}.sock")
        local.bind(str(path))
        stack.callback(path.unlink)
        local.listen()
        victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)", SECRET])
        stack.callback(victim.wait)
        stack.callback(victim.kill)
        yield {
            "secret": str(secret),
            "marker": SECRET,
            "python": sys.executable,
            "port": listener.getsockname()[1],
            "socket": str(path),
            "victim": victim.pid,
        }


@pytest.mark.parametrize("name", list(ATTACKS))
async def test_attacks_are_contained(run, facts, name):
    result = await run(ATTACKS[name], ("facts",), {"facts": facts}, limits=Limits(timeout_seconds=10.0))

    contained = result.status in {CallEnding.DENIED, CallEnding.TOOL_ERROR, CallEnding.CRASHED, CallEnding.TIMEOUT}
    assert contained or json.loads(result.result) == {"hit": False}, result


@pytest.mark.parametrize("name", list(ATTACKS))
async def test_attacks_hit_where_nothing_contains_them(open_provider, facts, name):
    result = await call(open_provider, ATTACKS[name], ("facts",), {"facts": facts}, limits=Limits(timeout_seconds=10.0))

    assert (result.isolation, result.result) == (Isolation.NONE, '{"hit":true}'), result


POLLUTION = """
import fs from 'node:fs';
const { stringify } = JSON;
Object.prototype.toJSON = function () { return 'forged' };
for (const key of ['status', 'value', 'kind', 'message', 'changes', 'get', 'set']) {
  const trap = { __proto__: null, get: () => 'SUCCESS', set() {}, configurable: true };
  Object.defineProperty(Object.prototype, key, trap);
}
JSON.stringify = () => '"forged"';
JSON.parse = () => ({});
String.prototype.split = String.prototype.slice = String.prototype.replace = () => 'forged';
Array.prototype.join = () => '{"status":"SUCCESS","value":"forged"}';
Array.prototype[Symbol.iterator] = function* () { yield 'forged' };
Buffer.from = Buffer.alloc = () => new Uint8Array(0);
Buffer.prototype.subarray = Uint8Array.prototype.subarray = () => new Uint8Array(0);
Function.prototype.call = Function.prototype.apply = Function.prototype.bind = () => 'forged';
Reflect.apply = Reflect.getPrototypeOf = () => 'forged';
Object.keys = Object.hasOwn = () => [];
Number.isFinite = () => true;
fs.writeSync = fs.readSync = () => 0;
globalThis.String = globalThis.encodeURIComponent = () => 'forged';
Promise.prototype.then = function () { return 'forged' };
process.resourceUsage = process.reallyExit = () => ({});
"""


async def test_changed_prototypes_forge_nothing(run):
    failed = await run(POLLUTION + "export function f() { throw new RangeError('real') }")
    assert (failed.status, failed.failure.kind, failed.failure.message) == (CallEnding.TOOL_ERROR, "RangeError", "real")
    bad = await run(POLLUTION + "delete Object.prototype.toJSON;\nexport const f = () => [NaN]")
    assert bad.status is CallEnding.BAD_RESULT, bad
    good = await run(
        POLLUTION + "delete Object.prototype.toJSON;\nexport const f = (a) => [a, 'real']", ("a",), {"a": 7}
    )
    assert (good.status, good.result) == (CallEnding.SUCCESS, '[7,"real"]'), good


async def test_changed_prototypes_are_changed_for_the_tool(run):
    """The control: what the runner does not fall for did happen to everything else in the process."""
    source = POLLUTION + "const seen = [JSON.stringify({}), [1].join(), stringify({})];\n"
    source += "delete Object.prototype.toJSON;\nexport const f = () => seen.length + seen[0] + seen[1] + seen[2]"
    assert json.loads((await run(source)).result) == '3"forged"{"status":"SUCCESS","value":"forged"}"forged"'


FORGERIES = {
    "without the token": '\'{"status":"SUCCESS","value":"forged"}\'',
    "with a token of its own": '\'0\'.repeat(32) + \'{"status":"SUCCESS","value":"forged"}\'',
    "with a status of the host": "'0'.repeat(32) + '{\"status\":\"TIMEOUT\"}'",
}


@pytest.mark.parametrize("name", list(FORGERIES))
async def test_frames_without_the_token_of_the_call_are_none(run, name):
    source = f"import fs from 'node:fs';\nexport function f() {{ fs.writeSync(4, {FORGERIES[name]}); process.reallyExit(0) }}"
    result = await run(source)

    assert (result.status, result.result) == (CallEnding.CRASHED, ""), result


async def test_a_runtime_is_begun_once(run):
    """Node is given the way to execute one descriptor; it must be gone. The control is that Node runs at all."""
    source = """
import fs from 'node:fs';
export function f() {
  const open = [];
  for (const place of [100, 199, 200, 201]) {
    try { fs.fstatSync(place); open.push(place) } catch {}
  }
  return [open, typeof process.execve === 'function'];
}"""
    assert json.loads((await run(source)).result)[0] == []


async def test_native_addons_are_not_loaded(run):
    source = "export function f() { const m = { exports: {} }; process.dlopen(m, '/lib/x86_64-linux-gnu/libm.so.6') }"
    result = await run(source)
    assert (result.status, "addon" in result.failure.message) == (CallEnding.TOOL_ERROR, True), result


async def test_threads_are_counted(run):
    source = """
import { Worker } from 'node:worker_threads';
export const f = () => new Promise((tell) => {
  let begun = 0;
  for (let i = 0; i < 200; i++) {
    const worker = new Worker('setInterval(() => {}, 1000)', { eval: true });
    worker.on('online', () => { begun += 1 });
    worker.on('error', () => tell({ begun }));
  }
});"""
    result = await run(source, limits=Limits(timeout_seconds=20.0, processes=24))
    assert result.status is not CallEnding.SUCCESS or json.loads(result.result)["begun"] < 24, result


async def test_nothing_is_left_for_the_next_call(run):
    first = "globalThis.left = 1; import fs from 'node:fs'; try { fs.writeFileSync('/tmp/left', 'x') } catch {}\n"
    source = "export const f = () => [typeof left, fs.existsSync('/tmp/left')]"
    await run(first + source)
    assert json.loads((await run("import fs from 'node:fs';\n" + source)).result) == ["undefined", False]


async def test_cancelling_ends_the_call(provider, run):
    task = asyncio.create_task(run("export function f() { for (;;); }", limits=Limits(timeout_seconds=60.0)))
    await asyncio.sleep(0.3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await run("export const f = () => 1")).result == "1"


async def test_without_node_calls_are_refused(provider, request, tmp_path):
    tier = (await provider.probe()).isolation
    fake = tmp_path / "node"
    fake.write_text("#!/bin/sh\necho v16.0.0\n")
    fake.chmod(0o755)
    for node, says in (("/nonexistent/node", "not installed"), (str(fake), "v16.0.0; 18 or newer")):
        lonely = LocalProvider(options(tier, node=node))
        try:
            result = await call(lonely, "export const f = () => 1")
            assert (result.status, result.failure.kind) == (CallEnding.REFUSED, "NodeUnavailable")
            assert says in result.failure.message
            assert (await lonely.run(SandboxCall("def f(): return 1", "f"), Env())).result == "1"
        finally:
            await lonely.close()


def test_node_is_found_with_what_starts_it():
    node = nodes.find_node()
    assert Path(node.path).is_absolute()
    assert node.version.startswith("v")
    assert [Path(path).exists() for path in node.executable] == [True] * len(node.executable)
