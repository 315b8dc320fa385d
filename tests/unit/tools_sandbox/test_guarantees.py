"""Guarantees of the page on isolation that no attack of the hostile suite is about."""

import asyncio
import os
import socket
from pathlib import Path

import pytest

from letta_tools.domain.execution import Call, Env, Isolation, Limits
from tests.unit.tools_sandbox.test_lifecycles import descendants


@pytest.fixture
async def only_namespaces(provider):
    if (await provider.probe()).isolation is not Isolation.NAMESPACE:
        pytest.skip("not promised on tier L")


@pytest.mark.usefixtures("only_namespaces")
async def test_other_files_of_the_host_cannot_even_be_seen(run):
    source = "import os\ndef f(paths): return [path for path in paths if os.path.lexists(path)]"
    hidden = [__file__, str(Path.home()), "/etc/shadow", "/var", "/home", "/root", "/boot", "/sys"]
    result = await run(source, f'{{"paths": {hidden!r}}}'.replace("'", '"'))

    assert result.result == "[]"


@pytest.mark.usefixtures("only_namespaces")
async def test_the_name_of_the_host_stays_hidden(run):
    result = await run("import os, socket\ndef f(): return [os.uname().nodename, socket.gethostname()]")

    assert result.result == '["sandbox","sandbox"]'
    assert socket.gethostname() != "sandbox"


async def test_a_call_that_runs_for_long_yields_to_others(provider):
    def least() -> list[int]:
        found = []
        for pid in descendants(os.getpid()):
            try:
                found.append(os.getpriority(os.PRIO_PROCESS, pid))
            except ProcessLookupError:
                continue
        return [priority for priority in found if priority == 19]

    assert least() == []
    spin = Call("def f():\n while True: pass", "f", limits=Limits(timeout_seconds=20))
    task = asyncio.create_task(provider.run(spin, Env()))
    for _ in range(500):
        if found := least():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert found == [19]
