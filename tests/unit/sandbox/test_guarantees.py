"""Guarantees of the page on isolation that no attack of the hostile suite is about."""

import asyncio
import errno
import fcntl
import os
import socket
from pathlib import Path

import pytest

from letta_sandbox.calls import Env, Isolation, Limits, SandboxCall
from tests.unit.sandbox.test_lifecycles import descendants


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
    spin = SandboxCall("def f():\n while True: pass", "f", limits=Limits(timeout_seconds=20))
    task = asyncio.create_task(provider.run(spin, Env()))
    for _ in range(500):
        if found := least():
            break
        await asyncio.sleep(0.02)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert found == [19]


LOCK = """
import fcntl, os, select, sys
def f(wait):
    file = os.open(os.__file__, os.O_RDONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said = "locked"
    except OSError as error:
        said = type(error).__name__ + " " + str(error.errno)
    print(said, flush=True)
    if wait:
        import time
        time.sleep(wait)
    return said
"""


async def test_a_lock_of_one_call_holds_up_no_other(run):
    first = asyncio.create_task(run(LOCK, '{"wait": 1}'))
    with open(os.__file__, "rb") as file:  # noqa: ASYNC230, PTH123 - no blocking to speak of
        others = [await run(LOCK, '{"wait": 0}') for _ in range(3)]
        while not first.done():
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # would raise
            fcntl.flock(file, fcntl.LOCK_UN)
            await asyncio.sleep(0.02)

    assert {result.result for result in (await first, *others)} == {f'"OSError {errno.ENOSYS}"'}


@pytest.mark.usefixtures("only_namespaces")
async def test_locks_of_ones_own_files_work(run):
    source = """
import fcntl, mmap, os, sqlite3, tempfile
def f():
    with sqlite3.connect(os.path.join(tempfile.mkdtemp(), "a.db")) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t (x)")
        db.execute("insert into t values (7)")
        found = db.execute("select x from t").fetchone()[0]
    with tempfile.NamedTemporaryFile() as file:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.write(b"x")
        fcntl.lockf(file, fcntl.LOCK_UN)
    return found
"""
    result = await run(source)

    assert result.result == "7", result
