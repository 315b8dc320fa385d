"""Sandboxes of Modal: what is asked for."""

import sys

import pytest

from letta_sandbox.calls import CallEnding, Env, Isolation, Limits, SandboxCall
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.vendors import ModalVendor

pytest.importorskip("modal", reason="the extra modal is not installed")
from modal_proto import api_pb2

from letta_sandbox.remote.modal_cloud import ModalMachines, ModalOptions

ONE = SandboxCall("def f(): return 1", "f")


@pytest.fixture
def vendor(tmp_path):
    vendor = ModalVendor(tmp_path)
    yield vendor
    vendor.close()


async def run(vendor, call=ONE, **options):
    vendor.machines()  # points the SDK here
    provider = RemoteProvider(ModalMachines(ModalOptions(*vendor.secrets, **options)), RemoteOptions())
    try:
        return await provider.run(call, Env())
    finally:
        await provider.close()


async def test_a_sandbox_has_no_network_and_ends_by_itself(vendor):
    result = await run(vendor)
    (asked,) = vendor.fake.created
    made = asked.definition

    assert (result.status, result.provider, result.isolation) == (CallEnding.SUCCESS, "modal", Isolation.NAMESPACE)
    assert made.network_access.network_access_type == api_pb2.NetworkAccess.NetworkAccessType.BLOCKED
    assert 0 < made.timeout_secs <= 300
    assert made.resources.memory_mb == made.resources.memory_mb_max > Limits().memory_bytes >> 20
    assert made.resources.milli_cpu_max == 1000
    assert not made.open_ports.ports
    assert not list(made.secret_ids)
    assert not list(asked.secret_sources)


async def test_variables_never_reach_the_configuration_of_the_sandbox(vendor):
    source = "import os\ndef f(): return os.environ['TOKEN'][::-1]"
    result = await run(vendor, SandboxCall(source, "f", environment_variables={"TOKEN": "hidden"}))

    assert result.result == '"neddih"'
    assert "hidden" not in str(vendor.fake.created)


async def test_the_image_has_the_python_of_the_service(vendor):
    await run(vendor)
    commands = " ".join(command for asked in vendor.fake.images for command in asked.image.dockerfile_commands)
    assert f"python:{sys.version_info.major}.{sys.version_info.minor}" in commands


async def test_an_image_of_one_s_own_is_used(vendor):
    await run(vendor, image="registry.example.com/tools:1")
    commands = " ".join(command for asked in vendor.fake.images for command in asked.image.dockerfile_commands)
    assert "registry.example.com/tools:1" in commands


async def test_sandboxes_belong_to_the_app_that_is_named(vendor):
    await run(vendor, app="tools-of-ann")
    assert vendor.fake.created[0].app_id == "ap-tools-of-ann"


async def test_a_large_job_is_handed_over_in_pieces(vendor):
    source = "def f(text): return len(text)"
    result = await run(vendor, SandboxCall(source, "f", f'{{"text": "{"x" * (6 << 20)}"}}'))
    assert (result.status, result.result) == (CallEnding.SUCCESS, str(6 << 20)), result.failure
