"""What every vendor of machines must hold: when it fails, when calls are cancelled, and when the service dies."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from letta_common.errors import IsolationUnavailable
from letta_sandbox.calls import CallEnding, Env, Isolation, Language, Limits, SandboxCall
from letta_sandbox.remote.machines import OWNER, ROLE, TOOL_CALL, UNTIL, MachineFailed, Shape
from letta_sandbox.remote.pool import PoolOptions
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider
from tests.fakes.vendors import asked_for, settled

ONE = SandboxCall("def f(): return 1", "f")
WHO = SandboxCall("import os\ndef f(): return os.getppid()", "f")
SLOW = SandboxCall("import time\ndef f(): time.sleep(60)", "f")
ANN, BOB = Env(organization_id="org-ann"), Env(organization_id="org-bob")


@pytest.fixture
async def make(tmp_path):
    made = []

    def make(machines, **options):
        pool = PoolOptions(busy_waits=(0.01, 0.01, 0.01))
        options = {"owner_directory": str(tmp_path / "owners"), "pool": pool, **options}
        made.append(RemoteProvider(machines, RemoteOptions(**options)))
        return made[-1]

    yield make
    for provider in made:
        await provider.close()


@pytest.fixture
async def provider(vendor, make):
    provider = make(vendor.machines())
    await provider.probe()
    await settled(lambda: len(vendor.left()), 0)
    vendor.running.clear()
    return provider


def keeping(vendor, make, **options):
    return make(vendor.machines(), pool=PoolOptions(**{"idle_seconds": 60.0, **options}))


async def test_a_machine_is_gone_after_its_call(vendor, provider):
    assert (await provider.run(ONE, Env())).status is CallEnding.SUCCESS
    await settled(lambda: len(vendor.left()), 0)


async def test_a_cancelled_call_loses_its_machine(vendor, provider):
    task = asyncio.create_task(provider.run(SLOW, ANN))
    assert await asyncio.to_thread(vendor.running.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    await settled(lambda: len(vendor.left()), 0)


async def test_a_machine_that_comes_too_late_is_ended(vendor, make):
    provider = make(vendor.machines())
    task = asyncio.create_task(provider.run(ONE, ANN))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await provider.close()

    assert vendor.left() == {}


async def test_a_machine_lost_during_a_call_leaves_its_outcome_open(vendor, provider):
    task = asyncio.create_task(provider.run(SLOW, ANN))
    assert await asyncio.to_thread(vendor.running.wait, 20)
    await asyncio.to_thread(vendor.lose)
    result = await task

    assert (result.status, result.failure.kind) == (CallEnding.CRASHED, "MachineLost")
    assert "may have had effects" in result.failure.message


async def test_a_busy_vendor_is_asked_again(vendor, provider):
    vendor.fake.faults += [vendor.busy, vendor.busy]
    assert (await provider.run(ONE, ANN)).status is CallEnding.SUCCESS
    assert vendor.fake.faults == []


async def test_a_vendor_that_stays_busy_is_named(vendor, provider):
    vendor.fake.faults += [vendor.busy] * 40
    with pytest.raises(IsolationUnavailable, match=vendor.name):
        await provider.run(ONE, ANN)
    assert vendor.left() == {}


async def test_a_vendor_with_a_fault_runs_nothing(vendor, provider):
    vendor.fake.faults += [vendor.broken] * 4
    with pytest.raises(IsolationUnavailable, match=vendor.name):
        await provider.run(ONE, ANN)
    vendor.fake.faults.clear()
    assert vendor.left() == {}
    assert (await provider.run(ONE, ANN)).status is CallEnding.SUCCESS


async def test_a_vendor_out_of_reach_is_said_and_nothing_runs_elsewhere(vendor, make):
    provider = make(vendor.unreachable())
    with pytest.raises(IsolationUnavailable) as raised:
        await provider.run(ONE, ANN)
    report = await provider.probe()

    assert vendor.name in raised.value.metadata["missing"]
    assert report.isolation is None
    assert vendor.fake.created == []


async def test_wrong_credentials_are_said_and_nothing_runs_elsewhere(vendor, make):
    provider = make(vendor.rejected())
    report = await provider.probe()

    assert (report.isolation, report.missing[0].count(vendor.name) > 0) == (None, True)
    with pytest.raises(IsolationUnavailable):
        await provider.run(ONE, ANN)
    assert vendor.fake.created == []


@pytest.mark.parametrize("garbage", [b"hello", b"{}", b'{"frame": 1}', b"[" * 100_000, b'{"status": "x"}'])
async def test_an_answer_that_cannot_be_read_is_no_result(vendor, provider, garbage):
    if not hasattr(vendor.fake, "garbage"):
        pytest.skip("its fake runs what it is given")
    vendor.fake.garbage = garbage
    result = await provider.run(ONE, ANN)

    assert (result.status, result.failure.kind) == (CallEnding.CRASHED, "NoAnswer")


async def test_an_answer_without_end_is_cut(vendor, provider):
    if not hasattr(vendor.fake, "garbage"):
        pytest.skip("its fake runs what it is given")
    vendor.fake.garbage = b"x" * (20 << 20)
    result = await provider.run(ONE, ANN)

    assert (result.status, result.failure.kind) == (CallEnding.OUTPUT_LIMIT, "OutputLimit")
    await settled(lambda: len(vendor.left()), 0)


async def test_a_death_by_a_filter_is_denied(provider):
    result = await provider.run(
        SandboxCall("import os, signal\ndef f(): os.kill(os.getpid(), signal.SIGSYS)", "f"), ANN
    )
    assert result.status is CallEnding.DENIED


async def test_a_tool_that_ends_its_watcher_forges_nothing(provider):
    result = await provider.run(SandboxCall("import os\ndef f(): os.kill(os.getppid(), 9)", "f"), ANN)
    assert (result.status, result.failure.kind) == (CallEnding.CRASHED, "MachineLost")


async def test_secrets_travel_in_the_pipe_alone(vendor, provider):
    """The configuration of a machine is stored and shown by its vendor; the pipe is not."""
    source = "import os\ndef f(): return [os.environ['TOKEN'][::-1], open('/proc/self/cmdline').read()]"
    result = await provider.run(SandboxCall(source, "f", environment_variables={"TOKEN": "hidden"}), ANN)
    value, command = json.loads(result.result)

    assert value == "neddih"
    assert "hidden" not in command
    assert "hidden" not in asked_for(vendor)
    assert "LETTA" not in asked_for(vendor).upper().replace("LETTA-", "")


SEARCH = """
import os
def f(place):
    found = [open(path, errors='replace').read() for path in ('/proc/self/environ', f'/proc/{os.getppid()}/environ')]
    for folder, _, names in os.walk(place or os.environ['TMPDIR']):
        found += [open(os.path.join(folder, name), errors='replace').read() for name in names]
    return '\\n'.join(found)
"""


async def test_credentials_of_the_vendor_are_not_in_its_machines(vendor, provider):
    result = await provider.run(SandboxCall(SEARCH, "f", '{"place": ""}'), ANN)

    assert result.status is CallEnding.SUCCESS, result
    assert "PATH=" in json.loads(result.result)
    assert not any(secret in result.result for secret in vendor.secrets)


async def test_a_search_finds_credentials_where_they_are(vendor, provider, tmp_path):
    """The control of the test above."""
    (tmp_path / "leaked").mkdir()
    (tmp_path / "leaked" / "key").write_text("|".join(vendor.secrets) or "none")
    result = await provider.run(SandboxCall(SEARCH, "f", json.dumps({"place": str(tmp_path / "leaked")})), ANN)

    assert all(secret in result.result for secret in vendor.secrets)


async def test_typescript_is_refused_before_there_is_a_machine(vendor, make):
    provider = make(vendor.machines())
    result = await provider.run(SandboxCall("export const f = () => 1", "f", language=Language.JAVASCRIPT), ANN)

    assert (result.status, result.failure.kind) == (CallEnding.REFUSED, "NodeUnavailable")
    assert vendor.fake.created == []


async def test_each_call_has_a_machine_of_its_own_unless_told_otherwise(vendor, provider):
    before = len(vendor.fake.created)
    await provider.run(ONE, ANN)
    await provider.run(ONE, ANN)

    assert len(vendor.fake.created) == before + 2


async def test_a_machine_is_used_again_by_the_same_organization_alone(vendor, make):
    provider = keeping(vendor, make)
    await provider.probe()
    before = len(vendor.fake.created)
    for env in (ANN, ANN, BOB, ANN):
        assert (await provider.run(ONE, env)).status is CallEnding.SUCCESS

    assert len(vendor.fake.created) == before + 2


async def test_a_machine_is_used_again_with_the_same_packages_and_limits_alone(vendor, make, tmp_path):
    provider = keeping(vendor, make)
    await provider.probe()
    before = len(vendor.fake.created)
    packages = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "which.py").write_text(f"NAME = {name!r}")
        packages.append(Env(key=name, path=str(tmp_path / name), organization_id="org-ann"))
    call = SandboxCall("def f():\n import which\n return which.NAME", "f")
    answers = [(await provider.run(call, env)).result for env in (*packages, *packages)]
    await provider.run(SandboxCall("def f(): return 1", "f", limits=Limits(memory_bytes=300 << 20)), packages[0])

    assert answers == ['"one"', '"two"', '"one"', '"two"']
    assert len(vendor.fake.created) == before + 3


async def test_nobody_s_calls_share_no_machine(vendor, make):
    provider = keeping(vendor, make)
    await provider.probe()
    before = len(vendor.fake.created)
    await provider.run(ONE, Env())
    await provider.run(ONE, Env())

    assert len(vendor.fake.created) == before + 2


LEAVE = """
import os, time
def f():
    heard, said = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.write(said, str(os.getpid()).encode())
            os.closerange(0, 64)
            time.sleep(60)
        os._exit(0)
    open('left', 'w').write('x')
    return [os.getcwd(), os.read(heard, 100).decode()]
"""
LOOK = """
import os
def f(place, pid):
    return [os.path.exists(place), os.path.exists(f'/proc/{pid}')]
"""


async def test_nothing_of_a_call_is_left_on_a_machine_that_is_used_again(vendor, make):
    provider = keeping(vendor, make)
    before = len(vendor.fake.created)
    left = await provider.run(SandboxCall(LEAVE, "f"), ANN)
    place, pid = json.loads(left.result)
    seen = await provider.run(SandboxCall(LOOK, "f", json.dumps({"place": place, "pid": pid})), ANN)

    assert json.loads(seen.result) == [False, False]
    assert len(vendor.fake.created) <= before + 2  # a probe, where there is one, and one machine


@pytest.mark.parametrize(
    "source",
    [
        "import os\ndef f(): os._exit(3)",
        "import time\ndef f(): time.sleep(60)",
        "def f(): return 'x' * (2 << 20)",
    ],
)
async def test_a_machine_that_a_call_ended_badly_on_is_not_used_again(vendor, make, source):
    provider = keeping(vendor, make)
    await provider.run(SandboxCall(source, "f", limits=Limits(timeout_seconds=0.5)), ANN)

    await settled(lambda: len(vendor.left()), 0)


async def test_an_idle_machine_ends(vendor, make):
    provider = keeping(vendor, make, idle_seconds=0.3)
    await provider.run(ONE, ANN)

    await settled(lambda: len(vendor.left()), 0)


async def test_closing_ends_idle_machines(vendor, make):
    provider = keeping(vendor, make)
    await provider.run(ONE, ANN)
    assert len(vendor.left()) > 0
    await provider.close()

    assert vendor.left() == {}


async def test_a_machine_that_ended_while_idle_costs_no_call(vendor, make):
    provider = keeping(vendor, make)
    await provider.run(ONE, ANN)
    await asyncio.to_thread(vendor.lose)

    assert (await provider.run(ONE, ANN)).status is CallEnding.SUCCESS


async def test_an_old_machine_is_not_used_again(vendor, make):
    """It would end by itself during the call."""
    provider = keeping(vendor, make, lifetime_seconds=1.0)
    await provider.probe()
    before = len(vendor.fake.created)
    call = SandboxCall("def f(): return 1", "f", limits=Limits(timeout_seconds=150))
    await provider.run(ONE, ANN)
    await provider.run(call, ANN)

    assert len(vendor.fake.created) == before + 2


ORPHAN = """
import asyncio, sys
from pathlib import Path
from letta_sandbox.calls import Env, SandboxCall
from letta_sandbox.remote.provider import RemoteOptions, RemoteProvider

async def main():
    provider = RemoteProvider(MACHINES, RemoteOptions(owner_directory=sys.argv[1]))
    print("calling", flush=True)
    await provider.run(SandboxCall("import time\\ndef f(): time.sleep(60)", "f"), Env())

asyncio.run(main())
"""


def service(vendor, directory):
    """Return the program of a process that has a call under way with this vendor."""
    machines = {
        "docker": "from letta_sandbox.remote.docker_engine import *\n"
        "MACHINES = DockerMachines(DockerOptions(address={address!r}))\n",
        "e2b": "from letta_sandbox.remote.e2b_cloud import *\n"
        "MACHINES = E2BMachines(E2BOptions({key!r}, api_url={address!r}, sandbox_url={address!r}))\n",
        "kubernetes": "from letta_sandbox.remote.kubernetes_cluster import *\n"
        "MACHINES = KubernetesMachines(KubernetesOptions(namespace='letta', config_file={config!r}))\n",
        "modal": "from letta_sandbox.remote.modal_cloud import *\nMACHINES = ModalMachines(ModalOptions(*{keys!r}))\n",
    }[vendor.name]
    fake = vendor.fake
    address = f"unix://{fake.server_address}" if vendor.name == "docker" else getattr(fake, "address", "")
    config = fake.config_file(directory) if vendor.name == "kubernetes" else ""
    key = vendor.secrets[0] if vendor.secrets else ""
    return machines.format(address=address, key=key, keys=tuple(vendor.secrets), config=config) + ORPHAN


async def test_machines_of_a_killed_service_are_ended_by_the_next_one(vendor, make, tmp_path):
    owners = tmp_path / "owners"
    command = [sys.executable, "-c", service(vendor, tmp_path), str(owners)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=dict(os.environ)) as process:  # noqa: ASYNC220
        assert await asyncio.to_thread(process.stdout.readline) == b"calling\n"
        assert await asyncio.to_thread(vendor.running.wait, 20)
        await settled(lambda: bool(vendor.left()), True)
        process.send_signal(signal.SIGKILL)
    assert len(vendor.left()) > 0

    provider = make(vendor.machines())
    await provider.start()

    await settled(lambda: len(vendor.left()), 0)
    await settled(lambda: len(list(owners.iterdir())), 1)  # the living one
    await provider.close()
    assert list(owners.iterdir()) == []


async def test_machines_of_a_living_service_are_left_alone(vendor, make):
    """The control of the test above."""
    other = keeping(vendor, make)
    await other.run(ONE, ANN)
    provider = make(vendor.machines())
    assert await provider._pool.sweep() == 0

    assert (await other.run(ONE, ANN)).status is CallEnding.SUCCESS
    assert len(vendor.left()) > 0


@pytest.mark.parametrize(
    ("labels", "swept"), [({UNTIL: 1}, 1), ({UNTIL: 4102444800}, 0), ({ROLE: "other", UNTIL: 1}, 0)]
)
async def test_what_has_outlived_its_time_is_ended_whoever_made_it(vendor, make, labels, swept):
    stranger = vendor.machines()
    names = {ROLE: TOOL_CALL, OWNER: "abc123", **{name: str(value) for name, value in labels.items()}}
    machine = await stranger.start(Shape(Limits(), 0, 60, names))
    provider = make(vendor.machines())
    assert await provider._pool.sweep() == swept

    assert (len(vendor.left()) > 0) is not bool(swept)
    await machine.end()
    await machine.end()  # twice is no failure
    await stranger.close()


async def test_sweeping_waits_for_a_vendor_that_fails(vendor, make):
    provider = make(vendor.unreachable())
    assert await provider._pool.sweep() == 0
    machines = vendor.unreachable()
    with pytest.raises(MachineFailed):
        await machines.standing()
    await machines.close()


async def test_labels_say_whose_a_machine_is_and_until_when(vendor, make):
    provider = keeping(vendor, make)
    await provider.run(ONE, ANN)
    (labels, *_) = [values for values in vendor.left().values() if values]

    assert labels[ROLE] == TOOL_CALL
    assert len(labels[OWNER]) == 16
    assert 1700 < int(labels[UNTIL]) - time.time() < 1802


async def test_weaker_machines_than_asked_for_are_refused(vendor, provider):
    if provider._machines.isolation is Isolation.VM:
        pytest.skip("nothing is stronger")
    before = len(vendor.fake.created)
    with pytest.raises(IsolationUnavailable):
        await provider.run(SandboxCall("def f(): return 1", "f", min_isolation=Isolation.VM), ANN)
    assert len(vendor.fake.created) == before
