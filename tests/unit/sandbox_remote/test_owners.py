"""Whose machines are whose: the sign of life of a process, and what may be ended without it."""

import subprocess
import sys
import time

import pytest

from letta_sandbox.remote.machines import OWNER, ROLE, TOOL_CALL, UNTIL
from letta_sandbox.remote.owners import MachineOwner

LIVE = """
import sys
from pathlib import Path
from letta_sandbox.remote.owners import MachineOwner
owner = MachineOwner(Path(sys.argv[1]))
owner.begin()
print(owner.name, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def owner(tmp_path):
    owner = MachineOwner(tmp_path / "owners")
    owner.begin()
    yield owner
    owner.end()


@pytest.fixture
def other(tmp_path, owner):
    command = [sys.executable, "-c", LIVE, str(tmp_path / "owners")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process, process.stdout.readline().decode().strip()
        process.kill()


LATER = 4102444800


def labels(owner="", until=LATER, role=TOOL_CALL):
    return {ROLE: role, OWNER: owner, UNTIL: str(int(until))}


def test_machines_of_a_living_process_are_its_own(owner, other):
    assert not owner.is_orphan(labels(other[1]))


def test_machines_of_a_killed_process_are_orphans(owner, other):
    process, name = other
    process.kill()
    process.wait()

    assert owner.is_orphan(labels(name))


def test_a_process_that_ended_well_left_nothing_that_could_be_mistaken(tmp_path, owner):
    second = MachineOwner(tmp_path / "owners")
    second.begin()
    second.end()

    assert [file.name for file in (tmp_path / "owners").iterdir()] == [owner.name]
    assert not owner.is_orphan(labels(second.name))


def test_files_of_dead_processes_are_removed(tmp_path, owner, other):
    process, name = other
    owner.forget_dead()
    assert (tmp_path / "owners" / name).exists()
    process.kill()
    process.wait()
    owner.forget_dead()

    assert [file.name for file in (tmp_path / "owners").iterdir()] == [owner.name]


@pytest.mark.parametrize("name", ["", "unknown", "../owners", "a/b", "."])
def test_a_stranger_is_judged_by_its_time_alone(owner, name):
    assert not owner.is_orphan(labels(name))
    assert owner.is_orphan(labels(name, until=time.time() - 2))


def test_one_s_own_machines_are_never_orphans(owner):
    assert not owner.is_orphan(labels(owner.name, until=0))


@pytest.mark.parametrize("until", ["", "soon", "-1", "1e3"])
def test_a_time_that_cannot_be_read_is_no_reason(owner, until):
    assert not owner.is_orphan({ROLE: TOOL_CALL, OWNER: "x", UNTIL: until})


def test_other_machines_are_left_alone(owner):
    assert not owner.is_orphan(labels(until=0, role="web"))
    assert not owner.is_orphan({})


def test_without_a_directory_time_alone_counts():
    owner = MachineOwner(None)
    owner.begin()
    assert owner.is_orphan(labels("gone", until=0))
    assert not owner.is_orphan(labels("gone"))
    owner.forget_dead()
    owner.end()


def test_a_directory_that_cannot_be_written_is_no_obstacle(tmp_path):
    (tmp_path / "file").write_text("")
    owner = MachineOwner(tmp_path / "file" / "owners")
    owner.begin()
    owner.forget_dead()
    owner.end()


def test_labels_can_be_labels_anywhere(owner):
    made = owner.labels(90)
    assert made.keys() == {ROLE, OWNER, UNTIL}
    assert all(value.replace("-", "").isalnum() and len(value) < 64 for value in made.values())
    assert 89 < int(made[UNTIL]) - time.time() <= 92
