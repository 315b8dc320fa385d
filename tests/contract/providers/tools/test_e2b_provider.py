"""Sandboxes of E2B: what is asked for."""

import json

import pytest

from letta_sandbox.calls import Env, Isolation, SandboxCall
from letta_sandbox.remote.e2b_cloud import E2BMachines, E2BOptions
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.e2b_cloud import FakeCloud

pytest.importorskip("e2b", reason="the extra e2b is not installed")
KEY = f"e2b_{'0' * 40}"


@pytest.fixture
def cloud():
    cloud = FakeCloud(KEY)
    yield cloud
    cloud.close()


def provider_of(cloud):
    options = E2BOptions(KEY, "letta", api_url=cloud.address, sandbox_url=cloud.address)
    return RemoteProvider(E2BMachines(options), RemoteOptions(min_isolation=Isolation.VM))


async def test_a_sandbox_has_no_internet_and_ends_by_itself(cloud):
    call = SandboxCall("import os\ndef f(): return os.environ['TOKEN']", "f", environment_variables={"TOKEN": "secret"})
    provider = provider_of(cloud)
    result = await provider.run(call, Env())
    await provider.close()
    (asked,) = cloud.created

    assert (result.provider, result.isolation, result.result) == ("e2b", Isolation.VM, '"secret"')
    assert (asked["templateID"], asked["allow_internet_access"]) == ("letta", False)
    assert 0 < asked["timeout"] <= 300
    assert "secret" not in str(asked)


async def test_the_job_s_file_is_gone_before_the_tool_begins(cloud):
    """It holds the secrets of the call."""
    call = SandboxCall(
        "import os\ndef f(): return [os.listdir(os.environ['TMPDIR']), os.readlink('/proc/self/fd/0')]", "f"
    )
    provider = provider_of(cloud)
    names, given = json.loads((await provider.run(call, Env())).result)
    await provider.close()

    assert not any("job" in name for name in names)
    assert given == "/dev/null"
