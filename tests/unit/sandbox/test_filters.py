"""The filter of system calls, its tables, and what goes into a frame."""

import re
import struct
from pathlib import Path

import pytest

from letta_sandbox.cage import seccomp, syscalls
from letta_sandbox.calls import CallEnding, Limits
from letta_sandbox.local import frames, verdicts
from letta_sandbox.local.servers import Ending

HEADERS = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}
ALLOW, DENY, KILL, MISSING, NOTHING = 0x7FFF0000, 0x00050001, 0x80000000, 0x00050026, 0x00050000
ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


@pytest.mark.parametrize("machine", list(HEADERS))
def test_numbers_are_those_of_the_kernel_headers(machine):
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"no {header}")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    kernel = {("newfstatat" if name == "fstatat" else name): int(number) for name, number in found}

    assert {name: kernel.get(name) for name in syscalls.numbers(machine)} == syscalls.numbers(machine)


def test_unknown_machines_are_refused():
    with pytest.raises(NotImplementedError, match="riscv64"):
        syscalls.numbers("riscv64")


def execute(program: seccomp.FilterProgram, machine: str, number: int, args: tuple[int, ...] = (), pid: int = 7) -> int:
    """Interpret a filter for one system call, as the kernel does."""
    code = bytearray(program.code)
    for place in program.pid_places:
        code[place : place + 4] = struct.pack("=I", pid)
    data = struct.pack("=IIQ6Q", number, ARCH[machine], 0, *(args + (0,) * 6)[:6])
    at = accumulator = 0
    while True:
        kind, yes, no, k = struct.unpack_from("=HBBI", code, at * 8)
        at += 1
        if kind == 0x06:
            return k
        if kind == 0x20:
            accumulator = struct.unpack_from("=I", data, k)[0]
        elif kind == 0x54:
            accumulator &= k
        elif kind == 0x05:
            at += k
        else:
            taken = {0x15: accumulator == k, 0x35: accumulator >= k, 0x45: bool(accumulator & k)}[kind]
            at += yes if taken else no


@pytest.fixture(params=list(HEADERS))
def filtered(request):
    """Return a function that says what the filter does with a call by name."""
    numbers = syscalls.numbers(request.param)
    programs = {scratch: seccomp.build(scratch=scratch, machine=request.param) for scratch in (True, False)}

    def filtered(name: str, *args: int, scratch: bool = True) -> int:
        return execute(programs[scratch], request.param, numbers[name], args)

    filtered.programs, filtered.machine = programs, request.param
    return filtered


def test_plain_work_is_allowed(filtered):
    for name in ("read", "write", "openat", "close", "futex", "getrandom", "exit_group", "epoll_pwait", "recvmsg"):
        assert filtered(name) == ALLOW, name


def test_what_makes_processes_or_changes_the_system_is_denied(filtered):
    names = ("execve", "unshare", "setns", "pivot_root", "open_tree", "move_mount", "mount_setattr", "capset")
    for name in (*names, "landlock_restrict_self", "landlock_create_ruleset"):
        assert filtered(name) == DENY, name


def test_numbers_nobody_knows_are_denied(filtered):
    for number in (600, 1000, 0x3FFFFFFF, 0x40000000, 0x40000001, 0xFFFFFFFF):
        assert execute(filtered.programs[True], filtered.machine, number) == DENY


def test_another_machine_is_killed(filtered):
    other = {"x86_64": "aarch64", "aarch64": "x86_64"}[filtered.machine]
    assert execute(filtered.programs[True], other, 0) == KILL


def test_threads_may_be_made_and_processes_not(filtered):
    thread = 0x00010000 | 0x00000100 | 0x00000800
    assert (filtered("clone", thread | 0x003C0200), filtered("clone", 17), filtered("clone", thread | 0x10000000)) == (
        ALLOW,
        DENY,
        DENY,
    )
    assert filtered("clone3") == MISSING


def test_signals_go_to_oneself_alone(filtered):
    assert (filtered("kill", 7, 9), filtered("kill", 8, 9), filtered("kill", 0xFFFFFFFF, 9)) == (ALLOW, DENY, DENY)
    assert (filtered("tgkill", 7, 9, 6), filtered("tgkill", 8, 8, 6)) == (ALLOW, DENY)


def test_memory_that_no_limit_counts_is_denied(filtered):
    private, shared = 0x22, 0x21
    assert [filtered("mmap", 0, 4096, 3, flags) for flags in (private, shared, 0x122, 0x40022, 0x2, 0x1)] == [
        ALLOW,
        DENY,
        DENY,
        DENY,
        ALLOW,
        ALLOW,
    ]


def test_limits_may_be_read_and_not_set(filtered):
    assert filtered("prlimit64", 0, 7, 0, 4096) == ALLOW
    assert filtered("prlimit64", 0, 7, 4096, 0) == DENY
    assert filtered("prlimit64", 0, 7, 0x100000000, 0) == DENY
    assert filtered("prlimit64", 9, 7, 0, 4096) == DENY


def test_pairs_of_streams_alone_are_sockets(filtered):
    assert [filtered("socketpair", *pair) for pair in ((1, 1), (1, 1 | 0o2004000), (1, 2), (2, 1))] == [
        ALLOW,
        ALLOW,
        DENY,
        DENY,
    ]
    assert (filtered("sendto", 3, 1, 1, 0, 0), filtered("sendto", 3, 1, 1, 0, 4096)) == (ALLOW, DENY)


def test_pipes_have_no_owner_to_signal(filtered):
    assert (filtered("fcntl", 3, 4), filtered("fcntl", 3, 8), filtered("fcntl", 3, 1031)) == (ALLOW, DENY, DENY)


def test_files_that_everybody_reads_cannot_be_locked_or_forgotten(filtered):
    for operation in (1, 2, 1 | 4, 2 | 4, 8):
        assert (filtered("flock", 3, operation), filtered("flock", 3, operation, scratch=False)) == (MISSING, MISSING)
    for record_lock in (5, 6, 7, 36, 37, 38):
        assert (filtered("fcntl", 3, record_lock), filtered("fcntl", 3, record_lock, scratch=False)) == (ALLOW, DENY)
    for lease_or_watch in (1024, 1025, 1026):
        assert filtered("fcntl", 3, lease_or_watch) == DENY
    assert [filtered("fadvise64", 3, 0, 0, advice) for advice in (0, 2, 3, 4)] == [ALLOW, ALLOW, ALLOW, NOTHING]


def test_programs_and_stages_lock_no_files_either():
    for machine in HEADERS:
        flock = syscalls.numbers(machine)["flock"]
        programs = seccomp.build(scratch=True, programs=True, machine=machine)
        stage = seccomp.build_stage(network="", fork_flags=0, channel=3, machine=machine)
        assert {execute(each, machine, flock, (3, 6)) for each in (programs, stage)} == {MISSING}


def test_files_are_changed_only_where_there_is_a_scratch_directory(filtered):
    for name in ("unlinkat", "renameat2", "fchmodat", "utimensat", "ftruncate"):
        assert (filtered(name), filtered(name, scratch=False)) == (ALLOW, DENY), name


ASK = 0x7FC00000
FORK = 0x00008000 | 0x10000000 | 0x00020000 | 0x20000000 | 17


@pytest.fixture(params=["", "loopback"], ids=["closed", "open"])
def staged(request, filtered):
    """Return a function that says what the filter of a stage does with a call by name."""
    program = seccomp.build_stage(network=request.param, fork_flags=FORK, channel=3, machine=filtered.machine)

    def staged(name: str, *args: int) -> int:
        return execute(program, filtered.machine, syscalls.numbers(filtered.machine)[name], args)

    return staged


def test_a_stage_asks_before_it_forks_and_makes_no_other_processes(staged):
    thread = 0x00010000 | 0x00000100 | 0x00000800
    assert (staged("clone", FORK), staged("clone", 17), staged("clone", FORK | 0x40000000)) == (ASK, DENY, DENY)
    assert (staged("clone", thread), staged("clone3")) == (ALLOW, MISSING)


def test_a_stage_asks_before_it_mounts_and_signals(staged):
    assert {staged(name, target) for name in ("mount", "kill", "tgkill") for target in (0, 1, 7, 0xFFFFFFFF)} == {ASK}


def test_a_stage_sends_descriptors_to_the_fork_server_alone(staged):
    assert (staged("sendmsg", 3), staged("sendmsg", 4)) == (ALLOW, DENY)


def test_a_stage_may_not_do_more_than_calls_but_give_up_rights(staged, filtered):
    for name in syscalls.numbers(filtered.machine):
        if staged(name) == ALLOW and filtered(name) != ALLOW:
            assert name in {"capset", "connect", "getpeername", "getsockname"}, name
    assert (staged("prctl", 22), staged("prctl", 38), staged("prctl", 8)) == (ALLOW, ALLOW, DENY)
    assert staged("prlimit64", 0, 7, 4096, 0) == DENY


def test_sockets_go_no_further_than_the_network_namespace(filtered):
    opened = seccomp.build(scratch=True, network="loopback", machine=filtered.machine)
    given = seccomp.build(scratch=False, network="exchange", machine=filtered.machine)
    numbers = syscalls.numbers(filtered.machine)

    def ask(program, name, *args):
        return execute(program, filtered.machine, numbers[name], args)

    kinds = [
        (2, 1, 0),
        (2, 1 | 0o2004000, 6),
        (2, 2, 0),
        (2, 3, 1),
        (10, 1, 0),
        (1, 1, 0),
        (16, 3, 0),
        (40, 1, 0),
        (2, 1, 262),
    ]
    assert [ask(opened, "socket", *kind) for kind in kinds] == [ALLOW, ALLOW, *[DENY] * 7]
    assert {ask(given, "socket", *kind) for kind in kinds} == {DENY}
    assert (ask(opened, "connect", 3), ask(given, "connect", 3), filtered("connect", 3)) == (ALLOW, DENY, DENY)
    peer_of_a_process, peer_as_descriptor, zero_copy = (1, 17), (1, 77), (6, 35)
    for program in (opened, given):
        assert (ask(program, "getsockopt", 3, 1, 3), ask(program, "setsockopt", 3, 6, 1)) == (ALLOW, ALLOW)
        for level, name in (peer_of_a_process, peer_as_descriptor, zero_copy, (0, 1), (41, 1)):
            assert {ask(program, call, 3, level, name) for call in ("getsockopt", "setsockopt")} == {DENY}
    assert filtered("getsockopt", 3, 1, 3) == DENY


TOKEN = "a" * 32
GOOD = '{"status":"SUCCESS","value":{"a":[1,"é"]},"changes":{"blocks":{"human":"x"}},"usage":[0.5,10]}'


def read(body: str | bytes, token: str = TOKEN):
    return frames.read_frame(token.encode() + (body if isinstance(body, bytes) else body.encode()), TOKEN)


def test_a_frame_is_read():
    outcome = read(GOOD)

    assert (outcome.status, outcome.result) == (CallEnding.SUCCESS, '{"a":[1,"é"]}')
    assert (outcome.changed_blocks, outcome.cpu_seconds, outcome.peak_memory_bytes) == ({"human": "x"}, 0.5, 10)


def test_a_frame_without_the_token_is_none():
    assert (read(GOOD, "b" * 32), frames.read_frame(b"", TOKEN)) == (None, None)


BAD = {
    "not whole": GOOD[:40],
    "two": GOOD + GOOD,
    "not JSON": "hello",
    "a list": "[1]",
    "no value": '{"status":"SUCCESS"}',
    "unknown status": '{"status":"WONDERFUL","value":1}',
    "status of the host": '{"status":"TIMEOUT","kind":"x","message":"y"}',
    "refused by the tool": '{"status":"REFUSED"}',
    "status is a list": '{"status":[],"value":1}',
    "NaN": '{"status":"SUCCESS","value":NaN}',
    "Infinity": '{"status":"SUCCESS","value":-Infinity}',
    "surrogate": '{"status":"SUCCESS","value":"\\ud800"}',
    "surrogate in a key": '{"status":"SUCCESS","value":{"\\udfff":1}}',
    "raw surrogate": b'{"status":"SUCCESS","value":"\xed\xa0\x80"}',
    "bytes": b'{"status":"SUCCESS","value":"\xff\xfe"}',
    "huge integer": '{"status":"SUCCESS","value":' + "9" * 20 + "}",
    "huge negative integer": '{"status":"SUCCESS","value":-' + "9" * 20 + "}",
    "very huge integer": '{"status":"SUCCESS","value":' + "9" * 100_000 + "}",
    "deep": '{"status":"SUCCESS","value":' + "[" * 100_000 + "]" * 100_000 + "}",
    "large float": '{"status":"SUCCESS","value":1e999}',
    "changes are a list": '{"status":"SUCCESS","value":1,"changes":[1]}',
    "changes of something else": '{"status":"SUCCESS","value":1,"changes":{"system":"x"}}',
    "changes of no blocks": '{"status":"SUCCESS","value":1,"changes":{"blocks":[1]}}',
    "surrogate in a change": '{"status":"SUCCESS","value":1,"changes":{"blocks":{"human":"\\ud800"}}}',
    "changes are no texts": '{"status":"SUCCESS","value":1,"changes":{"blocks":{"human":1}}}',
}


@pytest.mark.parametrize("name", list(BAD))
def test_bad_frames_are_bad_results(name):
    assert read(BAD[name]).status is CallEnding.BAD_RESULT


def test_integers_of_64_bits_pass():
    assert read('{"status":"SUCCESS","value":[18446744073709551615,-9223372036854775808]}').status is CallEnding.SUCCESS


def test_failures_are_text_whatever_they_hold():
    outcome = read('{"status":"TOOL_ERROR","kind":["x"],"message":"\\ud800","usage":"much"}')

    assert (outcome.failure.kind, outcome.failure.message, outcome.failure.traceback) == ("", "?", "")


def test_a_failure_with_half_a_surrogate_pair_keeps_its_status_and_the_rest_of_its_message():
    body = '{"status":"TOOL_ERROR","kind":"FileNotFoundError","message":"no file \udcff.txt","traceback":""}'
    outcome = read(body.encode(errors="surrogatepass"))

    assert (outcome.status, outcome.failure.kind) == (CallEnding.TOOL_ERROR, "FileNotFoundError")
    assert re.fullmatch(r"no file \?+\.txt", outcome.failure.message)


def test_a_result_is_held_to_its_limit_in_bytes():
    frame = TOKEN.encode() + '{"status":"SUCCESS","value":"ééé"}'.encode()
    ending = Ending(0, 0.0, 0, frame, b"", b"", output_exceeded=False, frame_exceeded=False, timed_out=False)

    endings = [verdicts.judge(ending, Limits(result_bytes=size), TOKEN).status for size in (7, 8)]
    assert endings == [CallEnding.OUTPUT_LIMIT, CallEnding.SUCCESS]
