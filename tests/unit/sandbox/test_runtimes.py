"""The one program that the process of a call may become: what lets it through, and why there is no second time."""

import errno
import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from letta_sandbox.cage import landlock, runtimes, seccomp, syscalls
from letta_sandbox.cage.plan import DEVICES, RUNTIME_PLACE
from letta_sandbox.local import nodes
from letta_sandbox.local.servers import ServerFailed
from tests.unit.sandbox.test_filters import ALLOW, DENY, execute

AT_EMPTY_PATH = 0x1000


@pytest.fixture(params=["x86_64", "aarch64"])
def filtered(request):
    numbers = syscalls.numbers(request.param)
    programs = {
        runtime: seccomp.build(scratch=True, runtime=runtime, machine=request.param) for runtime in (True, False)
    }

    def filtered(name: str, *args: int, runtime: bool = True) -> int:
        return execute(programs[runtime], request.param, numbers[name], args)

    filtered.machine = request.param
    return filtered


def test_one_descriptor_may_be_executed(filtered):
    assert filtered("execveat", RUNTIME_PLACE, 1, 1, 1, AT_EMPTY_PATH) == ALLOW
    for place in (0, 3, 199, 201, -100 & 0xFFFFFFFF):
        assert filtered("execveat", place, 1, 1, 1, AT_EMPTY_PATH) == DENY, place
    assert filtered("execveat", RUNTIME_PLACE, 1, 1, 1, 0) == DENY
    assert filtered("execve", 1, 1, 1) == DENY
    assert filtered("clone", 0x11) == DENY
    assert filtered("execveat", RUNTIME_PLACE, 1, 1, 1, AT_EMPTY_PATH, runtime=False) == DENY


def test_threads_may_be_set_up_and_nothing_else_of_the_processor(filtered):
    if filtered.machine != "x86_64":
        pytest.skip("there is no such call")
    assert filtered("arch_prctl", 0x1002) == ALLOW
    assert filtered("arch_prctl", 0x1001) == DENY
    assert filtered("arch_prctl", 0x1002, runtime=False) == DENY


ATTEMPT = """
import errno, fcntl, json, os, resource, sys
from letta_sandbox.cage import runtimes
from letta_sandbox.cage.plan import RUNTIME_PLACE
runtimes.hold("/bin/true")
if sys.argv[1] == "limited":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
seen = {"held": not fcntl.fcntl(RUNTIME_PLACE, fcntl.F_GETFD) & ~fcntl.FD_CLOEXEC}
seen["closed by exec"] = bool(fcntl.fcntl(RUNTIME_PLACE, fcntl.F_GETFD) & fcntl.FD_CLOEXEC)
os.close(RUNTIME_PLACE)
file = os.open("/bin/sh", os.O_PATH)
for name, attempt in {
    "dup2": lambda: os.dup2(file, RUNTIME_PLACE),
    "fcntl": lambda: fcntl.fcntl(file, fcntl.F_DUPFD, RUNTIME_PLACE),
}.items():
    try:
        seen[name] = attempt() == RUNTIME_PLACE and (os.close(RUNTIME_PLACE) or True)
    except OSError as error:
        seen[name] = errno.errorcode[error.errno]
print(json.dumps(seen))
"""


@pytest.mark.parametrize(("limited", "again"), [(True, False), (False, True)])
def test_the_place_cannot_be_taken_again_behind_the_limit_of_files(limited, again):
    """Without the limit it can: that is the control."""
    least = max(resource.getrlimit(resource.RLIMIT_NOFILE)[0], RUNTIME_PLACE + 1)
    assert least > RUNTIME_PLACE
    ran = subprocess.run(
        [sys.executable, "-c", ATTEMPT, "limited" if limited else "free"], capture_output=True, check=True, timeout=30
    )
    seen = json.loads(ran.stdout)

    assert (seen["held"], seen["closed by exec"]) == (True, True)
    if again:
        assert (seen["dup2"], seen["fcntl"]) == (True, True)
    else:
        assert (seen["dup2"], seen["fcntl"]) == ("EBADF", "EINVAL")


EXECUTE = """
import json, os, sys
from letta_sandbox.cage import landlock
from letta_sandbox.cage import syscalls
rules = int(sys.argv[1])
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
landlock.restrict(rules)
try:
    os.execv(sys.argv[2], [sys.argv[2], "-c", "print(1)"])
except OSError as error:
    print(error.errno)
"""


def test_landlock_lets_a_listed_program_be_started_and_no_other():
    try:
        landlock.abi()
    except OSError as error:
        pytest.skip(str(error))
    shell, loader = os.path.realpath("/bin/sh"), nodes.loader_of(os.path.realpath("/bin/sh"))
    libraries = [
        path for path in ("/lib/x86_64-linux-gnu", "/lib/aarch64-linux-gnu", "/etc/ld.so.cache") if Path(path).exists()
    ]
    python = str(Path(os.__file__).parent)

    def started(*executable: str) -> str:
        readable = [*libraries, shell, python]
        rules = landlock.ruleset(readable, (), DEVICES, executable=[path for path in executable if path])
        os.set_inheritable(rules, True)
        code = EXECUTE.replace('"-c", "print(1)"', '"-c", "echo 1"')
        try:
            ran = subprocess.run(
                [sys.executable, "-c", code, str(rules), shell],
                capture_output=True,
                check=False,
                pass_fds=(rules,),
                timeout=30,
                text=True,
            )
        finally:
            os.close(rules)
        return ran.stdout.strip() + ran.stderr.strip()[-300:]

    assert started(shell, os.path.realpath(loader)) == "1"
    assert started() == str(errno.EACCES)
    assert started(os.path.realpath(loader)) == str(errno.EACCES)


def test_the_loader_of_a_program_is_read_from_it(tmp_path):
    loader = nodes.loader_of(os.path.realpath("/bin/sh"))
    assert loader.startswith("/lib")
    assert Path(loader).exists()
    (tmp_path / "script").write_text("#!/bin/sh\n")
    assert nodes.loader_of(str(tmp_path / "script")) == ""


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("#!/bin/sh\necho v17.9.1\n", "18 or newer"),
        ("#!/bin/sh\nexit 3\n", "no usable Node"),
        ("#!/bin/sh\necho hi\n", "18 or newer"),
    ],
)
def test_what_is_no_node_is_not_used(tmp_path, program, says):
    fake = tmp_path / "node"
    fake.write_text(program)
    fake.chmod(0o755)
    with pytest.raises(ServerFailed, match=says):
        nodes.find_node(str(fake))


def test_the_memory_of_a_call_is_told_to_its_runtime():
    plan_arguments = [text for text in nodes._OPTIONS if runtimes.MEMORY in text]
    assert plan_arguments == [f"--max-old-space-size={runtimes.MEMORY}"]
