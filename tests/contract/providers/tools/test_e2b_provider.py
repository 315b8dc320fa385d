"""Sandboxes of E2B: what is asked for, and what happens when it fails."""

import asyncio

import pytest

from letta_common.errors import IsolationUnavailable
from letta_tools.domain.execution import Call, Env, Isolation
from letta_tools.providers.remote.e2b_cloud import E2BMachines, E2BOptions
from letta_tools.providers.remote.machines import RemoteOptions, RemoteProvider
from tests.fakes.e2b_cloud import FakeCloud

pytest.importorskip("e2b", reason="the extra e2b is not installed")
KEY = f"e2b_{'0' * 40}"
ONE = Call("def f(): return 1", "f")


@pytest.fixture
def cloud():
    cloud = FakeCloud(KEY)
    yield cloud
    cloud.shutdown()
    cloud.server_close()


def provider_of(cloud, key=KEY):
    options = E2BOptions(key, "letta", api_url=cloud.address, sandbox_url=cloud.address)
    return RemoteProvider(E2BMachines(options), RemoteOptions(min_isolation=Isolation.VM))


async def test_a_sandbox_has_no_internet_and_ends_by_itself(cloud):
    call = Call("import os\ndef f(): return os.environ['TOKEN']", "f", environment_variables={"TOKEN": "secret"})
    result = await provider_of(cloud).run(call, Env())
    (asked,) = cloud.created

    assert (result.provider, result.isolation, result.result) == ("e2b", Isolation.VM, '"secret"')
    assert (asked["templateID"], asked["allow_internet_access"]) == ("letta", False)
    assert 0 < asked["timeout"] <= 300
    assert "secret" not in str(asked)


async def test_sandboxes_are_gone_after_their_calls(cloud):
    await provider_of(cloud).run(ONE, Env())
    assert cloud.sandboxes == {}


async def test_a_cancelled_call_loses_its_sandbox(cloud):
    call = Call("import time\ndef f(): time.sleep(60)", "f")
    task = asyncio.create_task(provider_of(cloud).run(call, Env()))
    await asyncio.to_thread(cloud.running.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert cloud.sandboxes == {}


async def test_a_wrong_key_is_said_and_nothing_runs_elsewhere(cloud):
    provider = provider_of(cloud, f"e2b_{'1' * 40}")
    report = await provider.probe()

    assert report.isolation is None
    assert report.missing[0].count("e2b")
    with pytest.raises(IsolationUnavailable, match="e2b"):
        await provider.run(ONE, Env())
    assert cloud.created == []
