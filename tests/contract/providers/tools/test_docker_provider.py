"""Containers of calls: what the engine is asked for, and what happens when it fails."""

import pytest

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.remote.docker_engine import DockerMachines, DockerOptions
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.docker_engine import start_engine

pytest.importorskip("docker", reason="the extra docker is not installed")
ONE = SandboxCall("def f(): return 1", "f")


@pytest.fixture
def engine(tmp_path):
    engine = start_engine(tmp_path)
    yield engine
    engine.close()


@pytest.fixture
def make(engine):
    def make(**options):
        machines = DockerMachines(DockerOptions(**{"address": f"unix://{engine.server_address}", **options}))
        return RemoteProvider(machines, RemoteOptions())

    return make


@pytest.fixture
async def provider(make):
    provider = make(image="python:3.11-slim")
    yield provider
    await provider.close()


async def test_a_container_has_no_way_out(engine, provider):
    result = await provider.run(ONE, Env())
    (asked,) = engine.created
    host = asked["HostConfig"]

    assert (result.provider, result.isolation) == ("docker", Isolation.NAMESPACE)
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"]) == ("none", True, ["ALL"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["Memory"] == host["MemorySwap"]
    assert host["PidsLimit"] == Limits().processes + 8
    assert not host.get("Binds")
    assert asked["User"] == "65534:65534"


async def test_variables_never_reach_the_configuration_of_the_container(engine, provider):
    call = SandboxCall(
        "import os\ndef f(): return os.environ['TOKEN'][::-1]", "f", environment_variables={"TOKEN": "secret"}
    )
    result = await provider.run(call, Env())

    assert result.result == '"terces"'
    assert "secret" not in str(engine.created)


async def test_a_missing_image_is_named(engine, provider):
    engine.missing_images.add("python:3.11-slim")
    report = await provider.probe()

    assert report.isolation is None
    assert "python:3.11-slim" in report.missing[0]
    with pytest.raises(IsolationUnavailable, match="pull it"):
        await provider.run(ONE, Env())


async def test_memory_that_ran_out_is_said(engine, provider):
    engine.oom = True
    assert (await provider.run(ONE, Env())).status is CallEnding.MEMORY


@pytest.mark.parametrize("garbage", [b"hello", b"{}", b'{"frame": 1}', b"[" * 100_000, b'{"status": "x"}'])
async def test_an_answer_that_cannot_be_read_is_no_result(engine, provider, garbage):
    engine.garbage = garbage
    result = await provider.run(ONE, Env())
    assert (result.status, result.failure.kind) == (CallEnding.CRASHED, "NoAnswer")


async def test_a_runtime_with_its_own_kernel_counts_as_a_machine(make):
    provider = make(runtime="kata")
    assert (await provider.run(SandboxCall("def f(): return 1", "f", min_isolation=Isolation.VM), Env())).result == "1"
    await provider.close()
