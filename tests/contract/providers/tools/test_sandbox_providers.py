"""What every sandbox provider promises: the local one for real, remote ones through fakes that speak their wire."""

import asyncio
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from letta_common.errors import InvalidArgument, IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, EnvSpec, Isolation, Limits, SandboxCall
from letta_sandbox.local.provider import LocalOptions, LocalProvider
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.package_index import add_wheel, serving
from tests.fakes.vendors import VENDORS


@pytest.fixture(scope="module")
def packages(tmp_path_factory):
    """Where packages go to and come from."""
    index = tmp_path_factory.mktemp("index")
    add_wheel(index, "greeter", "1.0", "def greet(name):\n    return 'hello ' + name\n")
    directory = Path(tempfile.mkdtemp(dir="/var/tmp"))
    directory.chmod(0o755)
    with serving(index) as address:
        yield {"package_directory": str(directory), "package_index": address}
    shutil.rmtree(directory)


@pytest.fixture(scope="module", params=["local", *VENDORS])
async def provider(request, packages, tmp_path_factory):
    if request.param == "local":
        provider = LocalProvider(LocalOptions(**packages))
        yield provider
        await provider.close()
        return
    vendor = VENDORS[request.param](tmp_path_factory.mktemp(request.param))
    provider = RemoteProvider(vendor.machines(), RemoteOptions(**packages))
    yield provider
    await provider.close()
    vendor.close()


@pytest.fixture
def run(provider):
    async def run(source, arguments="{}", function="f", env=None, **fields):
        return await provider.run(SandboxCall(source, function, arguments, **fields), env or Env())

    return run


async def test_a_call_returns_json(run):
    result = await run("def f(a, b):\n print('hi')\n return {'sum': a + b, 'ü': None}", '{"a": 1, "b": 2}')

    assert (result.status, json.loads(result.result)) == (CallEnding.SUCCESS, {"sum": 3, "ü": None}), result
    assert result.stdout == "hi\n"
    assert result.usage.wall_seconds > 0


async def test_who_ran_it_and_how_is_said(provider, run):
    report = await provider.probe()
    result = await run("def f(): return 1")

    assert report.isolation >= Isolation.LANDLOCK
    assert (result.provider, result.isolation) == (report.provider, report.isolation)


async def test_arguments_and_variables_are_data(run):
    source = "import os\ndef f(a): return [a, os.environ['COLOUR']]"
    text = '\'; import os #\n""" ${HOME} $(id)'
    result = await run(source, json.dumps({"a": text}), environment_variables={"COLOUR": text})

    assert json.loads(result.result) == [text, text]


async def test_errors_of_the_tool_are_statuses(run):
    assert (await run("def f(): raise ValueError('boom')")).failure.message == "boom"
    assert (await run("def f(: pass")).status is CallEnding.TOOL_ERROR
    assert (await run("def f(): return {1}")).status is CallEnding.BAD_RESULT
    assert (await run("def f(): return float('nan')")).status is CallEnding.BAD_RESULT
    assert (await run("import os\ndef f(): os._exit(3)")).status is CallEnding.CRASHED
    assert (await run("def f(): pass", "[]")).status is CallEnding.REFUSED
    assert (await run("def f(): return 'x' * 5000", limits=Limits(result_bytes=1000))).status is CallEnding.OUTPUT_LIMIT


async def test_limits_are_kept(run):
    slow = await run("import time\ndef f(): time.sleep(60)", limits=Limits(timeout_seconds=0.5))
    loud = await run("def f():\n while True: print('x' * 1000)", limits=Limits(output_bytes=10_000))
    large = await run("def f(): return len(bytearray(900 << 20))", limits=Limits(memory_bytes=200 << 20))

    assert slow.status is CallEnding.TIMEOUT
    assert (loud.status, loud.truncated) == (CallEnding.OUTPUT_LIMIT, True)
    assert len(loud.stdout) <= 10_000
    assert large.status is CallEnding.MEMORY


async def test_what_isolation_forbids_is_denied(run):
    refused = await run("import errno\ndef f(): raise OSError(errno.EPERM, 'no')")

    assert refused.status is CallEnding.DENIED


async def test_a_result_is_never_larger_than_asked_for(run):
    fits = await run("def f(): return 'x' * 990", limits=Limits(result_bytes=1000))
    more = await run("def f(): return 'x' * 1000", limits=Limits(result_bytes=1000))
    much = await run("def f(): return 'x' * (50 << 20)", limits=Limits(result_bytes=1000))

    assert (fits.status, len(fits.result)) == (CallEnding.SUCCESS, 992)
    assert (more.status, more.result) == (CallEnding.OUTPUT_LIMIT, "")
    assert (much.status, much.result) == (CallEnding.OUTPUT_LIMIT, "")


async def test_changes_of_the_state_come_back(run):
    state = json.dumps({"memory": {"blocks": [{"label": "human", "value": "old"}]}})
    result = await run("def f(agent_state): agent_state.memory.update_block_value('human', 'new')", agent_state=state)

    assert result.changed_blocks == {"human": "new"}


async def test_nothing_is_left_for_the_next_call(run):
    leave = "import builtins\ndef f():\n builtins.seen = 1\n return 1"
    look = "import builtins\ndef f(): return hasattr(builtins, 'seen')"
    assert (await run(leave)).status is CallEnding.SUCCESS
    assert (await run(look)).result == "false"


async def test_packages_are_there_and_only_for_their_calls(provider, run):
    env = await provider.prepare(EnvSpec(("greeter",), "org-1"))
    source = "def f():\n import greeter\n return greeter.greet('Ann')"
    result = await run(source, env=env)

    assert (result.status, result.result) == (CallEnding.SUCCESS, '"hello Ann"'), result
    assert (await run(source)).failure.kind == "ModuleNotFoundError"
    with pytest.raises(InvalidArgument, match="greeter"):
        await provider.prepare(EnvSpec(("greeter==9",), "org-1"))


async def test_calls_run_side_by_side(run):
    results = await asyncio.gather(*(run("def f(n): return n", json.dumps({"n": n})) for n in range(8)))
    assert [result.result for result in results] == [str(n) for n in range(8)]


async def test_isolation_that_is_not_there_is_refused(provider, run):
    if (await provider.probe()).isolation is Isolation.VM:
        pytest.skip("nothing is stronger")
    with pytest.raises(IsolationUnavailable):
        await run("def f(): return 1", min_isolation=Isolation.VM)
