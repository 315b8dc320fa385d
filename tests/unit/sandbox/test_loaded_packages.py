"""Packages of a tenant are loaded once, in a process without privileges, and each call still has all that is its own."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.local.provider import LocalProvider
from tests.unit.sandbox.conftest import options

# ruff: noqa: E501 - sources of tools are text

MIB = 1 << 20
PACKAGE = "import os, uuid\nTOKEN = uuid.uuid4().hex\nPID = os.getpid()\nSTATE = []\n"
WHERE = "import {0}, os\ndef f(): return [{0}.TOKEN, {0}.PID == os.getpid()]"


@pytest.fixture(scope="module")
async def provider():
    provider = LocalProvider(options(Isolation.NAMESPACE))
    report = await provider.probe()
    if report.isolation is None:
        pytest.skip("; ".join(report.missing))
    yield provider
    await provider.close()


@pytest.fixture(scope="module")
def package():
    """Return a function that writes a package and returns its environment."""
    made = []

    def package(name, text=PACKAGE, organization="org-1"):
        directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
        made.append(directory)
        directory.chmod(0o755)
        (directory / f"{name}.py").write_text(text)
        (directory / f"{name}.py").chmod(0o644)
        return Env(key=name, path=str(directory), organization_id=organization, modules=(name,))

    yield package
    for directory in made:
        shutil.rmtree(directory)


async def loaded(provider, env):
    """Call until a call comes from the process that has the package loaded; return the package's token."""
    for _ in range(300):
        result = await provider.run(SandboxCall(WHERE.format(env.key), "f"), env)
        token, imported_here = json.loads(result.result)
        if not imported_here:
            return token
        await asyncio.sleep(0.02)
    raise AssertionError("it was never loaded for all calls")


@pytest.fixture(scope="module")
async def run(provider, package):
    """Run source in an environment whose package is loaded."""
    env = package("shared")
    await loaded(provider, env)

    async def run(source, arguments="{}", **fields):
        return await provider.run(SandboxCall(source, "f", arguments, **fields), env)

    return run


async def test_a_package_is_imported_once_for_all_calls(provider, package):
    env = package("once")
    token = await loaded(provider, env)
    calls = [provider.run(SandboxCall(WHERE.format("once"), "f"), env) for _ in range(20)]

    assert {result.result for result in await asyncio.gather(*calls)} == {
        json.dumps([token, False], separators=(",", ":"))
    }


async def test_organizations_share_no_loaded_package(provider, package):
    env = package("apart")
    other = Env(key=env.key, path=env.path, organization_id="org-2", modules=env.modules)

    assert await loaded(provider, env) != await loaded(provider, other)


async def test_what_a_call_changes_is_gone_with_it(run):
    change = "import shared, os\ndef f():\n shared.STATE.append(1)\n open('/tmp/left', 'w').write('x')\n os.environ['LEFT'] = '1'\n return len(shared.STATE)"
    look = "import shared, os\ndef f(): return [shared.STATE, os.listdir('/tmp'), 'LEFT' in os.environ]"

    assert [(await run(change)).result for _ in range(3)] == ["1", "1", "1"]
    assert [(await run(look)).result for _ in range(3)] == ["[[],[],false]"] * 3


async def test_a_call_sees_no_process_but_its_own(run):
    source = "import os, time\ndef f():\n time.sleep(0.2)\n return [os.getpid(), sorted(n for n in os.listdir('/proc') if n.isdigit())]"

    results = await asyncio.gather(*(run(source) for _ in range(4)))
    assert {result.result for result in results} == {'[1,["1"]]'}


async def test_a_call_has_no_capability_and_nobodys_id(run):
    source = "import os\ndef f(): return [os.getuid(), [l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapPrm', 'CapEff', 'NoNewPrivs'))]]"

    assert (await run(source)).result == '[1000,["0000000000000000","0000000000000000","1"]]'


ENDINGS = {
    "memory": ("def f(): return len(bytearray(200 << 20))", CallEnding.MEMORY),
    "time": ("import time\ndef f(): time.sleep(60)", CallEnding.TIMEOUT),
    "spin": ("def f():\n while True: pass", CallEnding.TIMEOUT),
    "fork": ("import os\ndef f(): os.fork()", CallEnding.DENIED),
    "network": ("import socket\ndef f(): socket.socket()", CallEnding.DENIED),
    "host files": ("def f(): open('/etc/shadow').read()", CallEnding.TOOL_ERROR),
    "scratch": ("def f():\n with open('/tmp/x', 'wb') as file: file.write(b'x' * (40 << 20))", CallEnding.TOOL_ERROR),
    "exit": ("import os\ndef f(): os._exit(3)", CallEnding.CRASHED),
    "segmentation fault": ("import ctypes\ndef f(): ctypes.string_at(0)", CallEnding.CRASHED),
    "error": ("def f(): return 1 / 0", CallEnding.TOOL_ERROR),
    "output": ("def f():\n while True: print('x' * 65536)", CallEnding.OUTPUT_LIMIT),
}


@pytest.mark.parametrize("name", list(ENDINGS))
async def test_limits_and_statuses_are_those_of_every_call(run, name):
    source, status = ENDINGS[name]
    result = await run(source, limits=Limits(timeout_seconds=1.0, memory_bytes=128 * MIB, scratch_bytes=16 * MIB))

    assert result.status is status, result


async def test_a_call_may_signal_itself_and_nobody_else(run):
    source = "import os, signal\ndef f():\n got = []\n signal.signal(signal.SIGUSR1, lambda *a: got.append(1))\n os.kill(os.getpid(), signal.SIGUSR1)\n try:\n  os.kill(-1, 0)\n except PermissionError:\n  got.append(2)\n return got"

    assert (await run(source)).result == "[1,2]"


async def test_cancelling_a_call_that_waits_leaves_the_others_alone(provider, package):
    env = package("queued")
    await loaded(provider, env)
    tasks = [asyncio.create_task(provider.run(SandboxCall(WHERE.format("queued"), "f"), env)) for _ in range(30)]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(isinstance(result, asyncio.CancelledError) for result in results[::2])
    assert {result.status for result in results[1::2]} == {CallEnding.SUCCESS}


UNFIT = {
    "threads": "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    + PACKAGE,
    "leaves": "import os\nif not os.listdir('/tmp') and os.getpid() != 1: os._exit(0)\n" + PACKAGE,
    "crashes": "import ctypes, os\nif os.getpid() != 1: ctypes.string_at(0)\n" + PACKAGE,
    "raises": "import os\nif os.getpid() != 1: raise SystemExit\n" + PACKAGE,
}


@pytest.mark.parametrize("name", list(UNFIT))
async def test_packages_that_cannot_be_loaded_for_all_are_imported_by_each_call(provider, package, name):
    env = package(name, UNFIT[name])
    for _ in range(6):
        result = await provider.run(SandboxCall(WHERE.format(name), "f"), env)
        assert (result.status, json.loads(result.result)[1]) == (CallEnding.SUCCESS, True), result


async def test_a_package_that_fails_to_import_fails_the_calls_that_use_it_alone(provider, package):
    env = package("broken", "raise ValueError('no good')\n")
    for _ in range(4):
        assert (await provider.run(SandboxCall("import broken\ndef f(): pass", "f"), env)).failure.message == "no good"
        assert (await provider.run(SandboxCall("def f(): return 1", "f"), env)).result == "1"
