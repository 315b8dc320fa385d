"""Start, refusal, death and end of the provider and its fork servers."""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.local.provider import LocalOptions, LocalProvider

SLEEP = "import time\ndef f(): time.sleep(60)"


def descendants(root: int) -> set[int]:
    """Return the processes below one, at any depth, that are not dead."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if state != "Z":
                parents[int(entry.name)] = int(parent)
    found = {root}
    while grown := {pid for pid, parent in parents.items() if parent in found} - found:
        found |= grown
    return found - {root}


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def until(holds, patience: float = 20.0) -> bool:
    deadline = time.monotonic() + patience
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True


async def test_without_a_tier_every_call_is_refused():
    provider = LocalProvider(LocalOptions(tiers=()))
    report = await provider.probe()

    assert report.isolation is None
    with pytest.raises(IsolationUnavailable):
        await provider.run(SandboxCall("def f(): pass", "f"), Env())


async def test_a_tier_that_fails_its_test_is_not_used(tmp_path):
    provider = LocalProvider(LocalOptions(interpreter=str(tmp_path / "python")))
    report = await provider.probe()

    assert report.isolation is None
    assert [sentence.partition(":")[0] for sentence in report.missing] == ["NAMESPACE", "LANDLOCK"]
    with pytest.raises(IsolationUnavailable, match=r"NAMESPACE.*LANDLOCK"):
        await provider.run(SandboxCall("def f(): pass", "f"), Env())


async def test_weaker_tiers_than_the_least_are_not_tried():
    provider = LocalProvider(LocalOptions(min_isolation=Isolation.NAMESPACE, tiers=(Isolation.LANDLOCK,)))

    assert (await provider.probe()).isolation is None


async def test_unsandboxed_calls_need_the_setting_and_say_so():
    provider = LocalProvider(LocalOptions(tiers=(), allow_unsandboxed=True))
    result = await provider.run(SandboxCall("import os\ndef f(): return os.path.exists('/proc/1')", "f"), Env())
    refused = SandboxCall("def f(): pass", "f", min_isolation=Isolation.LANDLOCK)

    assert (result.isolation, result.status, result.result) == (Isolation.NONE, CallEnding.SUCCESS, "true")
    with pytest.raises(IsolationUnavailable):
        await provider.run(refused, Env())
    await provider.close()


async def test_unsandboxed_calls_leave_nothing_behind():
    provider = LocalProvider(LocalOptions(tiers=(), allow_unsandboxed=True, prefork=0))
    source = "import os, time\ndef f():\n if os.fork() == 0: time.sleep(60)\n return 1"
    await provider.probe()
    server = provider._standing.server._process.pid
    assert (await provider.run(SandboxCall(source, "f"), Env())).result == "1"

    assert await until(lambda: not descendants(server))
    await provider.close()


async def test_cancelling_ends_the_call(provider):
    before = descendants(os.getpid())
    task = asyncio.create_task(provider.run(SandboxCall(SLEEP, "f"), Env()))
    await until(lambda: False, 0.2)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert await until(lambda: len(descendants(os.getpid())) <= len(before) + 2)
    assert (await provider.run(SandboxCall("def f(): return 1", "f"), Env())).result == "1"


async def test_a_fork_server_that_dies_is_started_again(provider):
    pending = asyncio.create_task(provider.run(SandboxCall(SLEEP, "f", limits=Limits(timeout_seconds=50)), Env()))
    await until(lambda: False, 0.2)
    launcher = provider._standing.server._process.pid
    for pid in [launcher, *descendants(launcher)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    assert (await pending).status is CallEnding.CRASHED
    assert (await provider.run(SandboxCall("def f(): return 1", "f"), Env())).result == "1"


SERVICE = """
import asyncio, json, sys
from letta_sandbox.calls import Env, Isolation, SandboxCall
from letta_sandbox.local.provider import LocalOptions, LocalProvider

async def main():
    provider = LocalProvider(LocalOptions(tiers=(Isolation[sys.argv[1]],), interpreter=sys.argv[2]))
    await provider.probe()
    for _ in range(5):
        asyncio.create_task(provider.run(SandboxCall("import time\\ndef f(): time.sleep(600)", "f"), Env()))
    await asyncio.sleep(1)
    print("running", flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_nothing_outlives_a_service_that_is_killed(provider):
    report = await provider.probe()
    command = [sys.executable, "-c", SERVICE, report.isolation.name, provider._options.interpreter]
    service = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: ASYNC220 - killed, not awaited
    try:
        assert await asyncio.to_thread(service.stdout.readline) == b"running\n"
        below = descendants(service.pid)
        assert len(below) >= 6
    finally:
        service.kill()
        service.wait()
        service.stdout.close()

    assert await until(lambda: not any(_alive(pid) for pid in below))


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_closed_provider_runs_nothing():
    provider = LocalProvider(LocalOptions(tiers=(Isolation.NAMESPACE,)))
    await provider.probe()
    await provider.close()

    with pytest.raises(IsolationUnavailable, match="closed"):
        await provider.run(SandboxCall("def f(): pass", "f"), Env())


async def test_limits_that_differ_are_each_honoured(provider):
    source = "def f():\n x = bytearray(100 << 20)\n return len(x)"
    for memory, status in ((64, CallEnding.MEMORY), (200, CallEnding.SUCCESS)) * 3:
        result = await provider.run(SandboxCall(source, "f", limits=Limits(memory_bytes=memory << 20)), Env())
        assert status is result.status


async def test_a_call_leaves_no_descriptor_open(provider):
    await provider.run(SandboxCall("def f(): return 1", "f"), Env())
    before = open_descriptors()
    for _ in range(20):
        await provider.run(SandboxCall("def f(): return 1", "f"), Env())
    results = [provider.run(SandboxCall("def f(): return 1 / 0", "f"), Env()) for _ in range(20)]
    assert {result.status for result in await asyncio.gather(*results)} == {CallEnding.TOOL_ERROR}

    assert open_descriptors() <= before


async def test_arguments_are_data_whatever_they_say(run):
    texts = [
        "'; import os; os._exit(9) #",
        '"""',
        "\\",
        "\n",
        "{0}",
        "${x}",
        "\u2028",
        "__import__('os')",
        "😀",
    ]
    arguments = {"items": texts, "table": {text: [text, {text: text}] for text in texts}}
    result = await run("def f(items, table): return {'items': items, 'table': table}", json.dumps(arguments))

    assert arguments == json.loads(result.result)
