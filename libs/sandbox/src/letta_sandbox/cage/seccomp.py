"""The system calls that a call may make, as a BPF program put together here."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from letta_sandbox.cage import syscalls
from letta_sandbox.cage.plan import LOOPBACK, RUNTIME_PLACE

_ARCHES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_LOAD, _JUMP, _JUMP_EQ, _JUMP_GE, _JUMP_SET, _AND, _RETURN = 0x20, 0x05, 0x15, 0x35, 0x45, 0x54, 0x06
# Where struct seccomp_data has them; the instruction pointer lies between the machine and the arguments.
_AT_NUMBER, _AT_ARCH, _AT_ARGS = 0, 4, 16

# SECCOMP_RET_*. An error number of zero lets a call succeed without making it.
_ALLOW = 0x7FFF0000
_KILL = 0x80000000
_DENY = 0x00050000 | errno.EPERM
_MISSING = 0x00050000 | errno.ENOSYS
_NOTHING = 0x00050000
_NOTIFY = 0x7FC00000
_NEW_LISTENER = 8

# Stands in steps for the process id, which is known only when the filter is put on.
_OWN_PID = -1

_PLAIN = [
    "access",
    "alarm",
    "brk",
    "capget",
    "chdir",
    "clock_getres",
    "clock_gettime",
    "clock_nanosleep",
    "close",
    "close_range",
    "copy_file_range",
    "dup",
    "dup2",
    "dup3",
    "epoll_create1",
    "epoll_ctl",
    "epoll_pwait",
    "epoll_pwait2",
    "epoll_wait",
    "eventfd2",
    "exit",
    "exit_group",
    "faccessat",
    "faccessat2",
    "fchdir",
    "fdatasync",
    "fstat",
    "fstatfs",
    "fsync",
    "futex",
    "getcpu",
    "getcwd",
    "getdents",
    "getdents64",
    "getegid",
    "geteuid",
    "getgid",
    "getgroups",
    "getitimer",
    "getpgid",
    "getpgrp",
    "getpid",
    "getppid",
    "getpriority",
    "getrandom",
    "getresgid",
    "getresuid",
    "getrlimit",
    "getrusage",
    "getsid",
    "gettid",
    "gettimeofday",
    "getuid",
    "lseek",
    "lstat",
    "madvise",
    "mprotect",
    "mremap",
    "msync",
    "munmap",
    "nanosleep",
    "newfstatat",
    "open",
    "openat",
    "pause",
    "pipe",
    "pipe2",
    "poll",
    "ppoll",
    "pread64",
    "preadv",
    "preadv2",
    "pselect6",
    "pwrite64",
    "pwritev",
    "pwritev2",
    "read",
    "readlink",
    "readlinkat",
    "readv",
    "recvfrom",
    "recvmsg",
    "restart_syscall",
    "rseq",
    "rt_sigaction",
    "rt_sigpending",
    "rt_sigprocmask",
    "rt_sigreturn",
    "rt_sigsuspend",
    "rt_sigtimedwait",
    "sched_get_priority_max",
    "sched_get_priority_min",
    "sched_getaffinity",
    "sched_getparam",
    "sched_getscheduler",
    "sched_yield",
    "select",
    "sendfile",
    "set_robust_list",
    "set_tid_address",
    "setitimer",
    "shutdown",
    "sigaltstack",
    "stat",
    "statfs",
    "statx",
    "sysinfo",
    "time",
    "times",
    "umask",
    "uname",
    "wait4",
    "write",
    "writev",
]

# What changes files. Landlock does not look at modes and times, so these go with a scratch directory alone.
_SCRATCH = [
    "chmod",
    "creat",
    "fallocate",
    "fchmod",
    "fchmodat",
    "ftruncate",
    "link",
    "linkat",
    "mkdir",
    "mkdirat",
    "rename",
    "renameat",
    "renameat2",
    "rmdir",
    "symlink",
    "symlinkat",
    "truncate",
    "unlink",
    "unlinkat",
    "utime",
    "utimensat",
    "utimes",
]

# What programs that start others need besides: other programs, processes, signals to them, their own timers.
_PROGRAMS = [
    "arch_prctl",
    "clone",
    "execve",
    "execveat",
    "fork",
    "getpeername",
    "getsockname",
    "getsockopt",
    "kill",
    "membarrier",
    "mincore",
    "setpgid",
    "setsid",
    "setsockopt",
    "signalfd4",
    "tgkill",
    "timerfd_create",
    "timerfd_gettime",
    "timerfd_settime",
    "tkill",
    "vfork",
    "waitid",
]

# PR_GET_DUMPABLE, SET_NAME, GET_NAME, GET_SECCOMP, CAPBSET_READ, GET_NO_NEW_PRIVS, and SET_VMA, which names memory.
_PRCTL = (3, 15, 16, 21, 23, 39, 0x53564D41)
_PRCTL_OF_STAGES = (
    syscalls.PR_SET_PDEATHSIG,
    syscalls.PR_SET_DUMPABLE,
    syscalls.PR_SET_SECCOMP,
    syscalls.PR_SET_NO_NEW_PRIVS,
)
# TCGETS, TIOCGWINSZ, FIONREAD, FIONBIO, FIONCLEX, FIOCLEX.
_IOCTL = (0x5401, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)
# F_DUPFD, GETFD, SETFD, GETFL, SETFL, DUPFD_CLOEXEC, GETPIPE_SZ. Larger pipes would be memory that no limit counts.
_FCNTL = (0, 1, 2, 3, 4, 1030, 1032)
# F_GETLK, SETLK, SETLKW, and the three of open file descriptions.
_RECORD_LOCKS = (5, 6, 7, 36, 37, 38)
_POSIX_FADV_DONTNEED = 4
# CLONE_THREAD, CLONE_VM, CLONE_SIGHAND.
_THREAD = 0x00010000 | 0x00000100 | 0x00000800
# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET, NEWTIME.
_NAMESPACES = 0x7E020080
_SHARED_ANONYMOUS = 0x21
_GROWSDOWN_HUGE_LOCKED = 0x100 | 0x40000 | 0x2000
_AF_UNIX, _AF_INET, _SOCK_STREAM, _TCP = 1, 2, 1, 6
_SOL_SOCKET = 1
# By number, among them SO_ERROR and buffer sizes to read, SO_KEEPALIVE, timeouts and TCP_NODELAY to set.
_READ_OPTIONS = {_SOL_SOCKET: (2, 3, 4, 7, 8, 9, 13, 20, 21, 38, 39), _TCP: (1, 2, 4, 5, 6, 18)}
_SET_OPTIONS = {_SOL_SOCKET: (2, 9, 13, 20, 21), _TCP: (1, 4, 5, 6, 18)}
_AT_EMPTY_PATH = 0x1000
_ARCH_SET_FS = 0x1002

_Step = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class FilterProgram:
    """A filter with the places where the process writes its own id."""

    code: bytes
    pid_places: tuple[int, ...]

    def load(self) -> None:
        """Put the filter on the calling process, for good. Needs no_new_privs."""
        holder, code = self._holder()
        syscalls.prctl(syscalls.PR_SET_SECCOMP, 2, ctypes.addressof(holder))
        del code

    def listen(self) -> int:
        """Put the filter on the calling process; return a descriptor that says what it asks about."""
        holder, code = self._holder()
        listener = syscalls.call("seccomp", 1, _NEW_LISTENER, holder)
        del code
        return listener

    def _holder(self) -> tuple[ctypes.Array[ctypes.c_char], ctypes.Array[ctypes.c_char]]:
        """Return what points to the program, and the program, which must live as long."""
        code = bytearray(self.code)
        pid = struct.pack("=I", os.getpid())
        for place in self.pid_places:
            code[place : place + 4] = pid
        buffer = ctypes.create_string_buffer(bytes(code), len(code))
        program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
        return ctypes.create_string_buffer(program, len(program)), buffer


def _argument(index: int, *, high: bool = False) -> _Step:
    # Filters load 32 bits; both known machines are little-endian, so the upper half lies four bytes further.
    return (_LOAD, 0, 0, _AT_ARGS + 8 * index + (4 if high else 0))


def _one_of(index: int, values: tuple[int, ...]) -> list[_Step]:
    """Allow when the argument is one of the values."""
    # These arguments are 32 bits wide in the kernel, so the upper half of the register says nothing.
    steps = [_argument(index)]
    for value in values:
        steps += [(_JUMP_EQ, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    return [*steps, (_RETURN, 0, 0, _DENY)]


def _all_zero(*indices: int) -> list[_Step]:
    """Deny unless the arguments are null pointers."""
    steps: list[_Step] = []
    for index in indices:
        for high in (False, True):
            steps += [_argument(index, high=high), (_JUMP_EQ, 1, 0, 0), (_RETURN, 0, 0, _DENY)]
    return steps


def _clone() -> list[_Step]:
    """Allow new threads, never processes or namespaces."""
    return [
        _argument(0),
        (_JUMP_SET, 0, 1, _NAMESPACES & ~_THREAD & 0xFFFFFFFF),
        (_RETURN, 0, 0, _DENY),
        (_AND, 0, 0, _THREAD),
        (_JUMP_EQ, 1, 0, _THREAD),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _mmap() -> list[_Step]:
    """Deny memory that the data limit does not count: shared anonymous, growing stacks, huge pages."""
    return [
        _argument(3),
        (_JUMP_SET, 0, 1, _GROWSDOWN_HUGE_LOCKED),
        (_RETURN, 0, 0, _DENY),
        (_AND, 0, 0, _SHARED_ANONYMOUS),
        (_JUMP_EQ, 0, 1, _SHARED_ANONYMOUS),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _socketpair() -> list[_Step]:
    """Allow connected stream pairs, which an event loop wakes itself with."""
    return [
        _argument(0),
        (_JUMP_EQ, 1, 0, _AF_UNIX),
        (_RETURN, 0, 0, _DENY),
        _argument(1),
        (_AND, 0, 0, 0xF),
        (_JUMP_EQ, 1, 0, _SOCK_STREAM),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _socket() -> list[_Step]:
    """Allow TCP over IPv4, which leads no further than the network namespace does."""
    return [
        _argument(0),
        (_JUMP_EQ, 1, 0, _AF_INET),
        (_RETURN, 0, 0, _DENY),
        _argument(1),
        (_AND, 0, 0, 0xF),
        (_JUMP_EQ, 1, 0, _SOCK_STREAM),
        (_RETURN, 0, 0, _DENY),
        *_one_of(2, (0, _TCP)),
    ]


def _options(known: Mapping[int, tuple[int, ...]]) -> list[_Step]:
    """Allow some options of sockets; never those that name a process, move memory or reach another layer."""
    steps: list[_Step] = []
    for level, names in known.items():
        body = _one_of(2, names)
        steps += [_argument(1), (_JUMP_EQ, 0, len(body), level), *body]
    return [*steps, (_RETURN, 0, 0, _DENY)]


def _network(kind: str) -> dict[str, list[_Step]]:
    """Return what HTTP clients need: streams that are given to them, and with a loopback interface their own."""
    allow: list[_Step] = [(_RETURN, 0, 0, _ALLOW)]
    named = {"getpeername": allow, "getsockname": allow}
    options = {"getsockopt": _options(_READ_OPTIONS), "setsockopt": _options(_SET_OPTIONS)}
    own = {"socket": _socket(), "connect": allow} if kind == LOOPBACK else {}
    return {**named, **options, **own} if kind else {}


def _processes() -> list[_Step]:
    """Allow new threads and processes, never namespaces."""
    return [
        _argument(0),
        (_JUMP_SET, 0, 1, _NAMESPACES & ~_THREAD & 0xFFFFFFFF),
        (_RETURN, 0, 0, _DENY),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _runtime() -> dict[str, list[_Step]]:
    """Return what a process needs to become its runtime: to execute one descriptor, which is gone once it has."""
    place: list[_Step] = [_argument(0), (_JUMP_EQ, 1, 0, RUNTIME_PLACE), (_RETURN, 0, 0, _DENY)]
    return {"execveat": [*place, *_one_of(4, (_AT_EMPTY_PATH,))], "arch_prctl": _one_of(0, (_ARCH_SET_FS,))}


def _fadvise() -> list[_Step]:
    """Take no advice to forget pages of a file: those of the runtime are everybody's."""
    return [
        _argument(3),
        (_JUMP_EQ, 0, 1, _POSIX_FADV_DONTNEED),
        (_RETURN, 0, 0, _NOTHING),
        (_RETURN, 0, 0, _ALLOW),
    ]


def _checked(*, programs: bool, scratch: bool) -> dict[str, list[_Step]]:
    """Return the calls that are allowed with some arguments alone.

    A whole file can be locked by whoever reads it, also one that everybody reads, so `flock` is missing, as on file
    systems without it. To lock records for oneself takes a file that may be written, which are those of the scratch
    directory.
    """
    allow: list[_Step] = [(_RETURN, 0, 0, _ALLOW)]
    checked = {
        "clone": _clone(),
        # Its flags lie in memory, where no filter can read them. Without it, libc falls back on `clone`.
        "clone3": [(_RETURN, 0, 0, _MISSING)],
        "fadvise64": _fadvise(),
        "fcntl": _one_of(1, (*_FCNTL, *(_RECORD_LOCKS if scratch else ()))),
        "flock": [(_RETURN, 0, 0, _MISSING)],
        "ioctl": _one_of(1, _IOCTL),
        "kill": _one_of(0, (_OWN_PID,)),
        "mmap": _mmap(),
        "prctl": _one_of(0, _PRCTL),
        # Without new limits it only reads them; without an address `sendto` stays on its connection.
        "prlimit64": [*_all_zero(2), *_one_of(0, (0, _OWN_PID))],
        "sendto": [*_all_zero(4), *allow],
        "socketpair": _socketpair(),
        "tgkill": _one_of(0, (_OWN_PID,)),
    }
    if not programs:
        return checked
    # Children have ids of their own, so limits are set by no id; namespaces, ids or Landlock bound signals.
    mine = {"clone": _processes(), "prlimit64": [*_all_zero(2), *_one_of(0, (0,))]}
    return {name: body for name, body in {**checked, **mine}.items() if name not in _PROGRAMS or name in mine}


def build(
    *,
    scratch: bool,
    programs: bool = False,
    runtime: bool = False,
    network: str = "",
    machine: str = syscalls.MACHINE,
) -> FilterProgram:
    """Put the filter together.

    With the calls that change files only where there is a scratch directory, with those that start programs and end
    them only for programs that do, which something else must keep from other processes. A runtime may be begun once.
    With a `network` sockets may be used as far as that goes.
    """
    named = [*_PLAIN, *(_SCRATCH if scratch else ()), *(_PROGRAMS if programs else ())]
    bodies = _checked(programs=programs, scratch=scratch) | (_runtime() if runtime else {}) | _network(network)
    return _assemble(named, bodies, machine)


def build_stage(*, network: str, fork_flags: int, channel: int, machine: str = syscalls.MACHINE) -> FilterProgram:
    """Put together the filter of a stage, above that of calls: who listens decides on forks, mounts and signals.

    What else it may do concerns itself alone: give up rights, as the processes of calls will.
    """
    allow: list[_Step] = [(_RETURN, 0, 0, _ALLOW)]
    ask: list[_Step] = [(_RETURN, 0, 0, _NOTIFY)]
    more = {
        "clone": [_argument(0), (_JUMP_EQ, 0, 1, fork_flags), (_RETURN, 0, 0, _NOTIFY), *_clone()],
        "mount": ask,
        "capset": allow,
        "kill": ask,
        "tgkill": ask,
        "prctl": _one_of(0, (*_PRCTL, *_PRCTL_OF_STAGES)),
        "sendmsg": _one_of(0, (channel,)),
    }
    return _assemble([*_PLAIN, *_SCRATCH], _checked(programs=False, scratch=True) | _network(network) | more, machine)


def _assemble(named: Iterable[str], bodies: Mapping[str, list[_Step]], machine: str) -> FilterProgram:
    numbers = syscalls.numbers(machine)
    plain = {numbers[name] for name in named if name in numbers}
    checked = {numbers[name]: body for name, body in bodies.items() if name in numbers}
    steps: list[_Step] = [
        (_LOAD, 0, 0, _AT_ARCH),
        # On another architecture, such as 32-bit calls on x86_64, the same numbers mean other calls.
        (_JUMP_EQ, 1, 0, _ARCHES[machine]),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _AT_NUMBER),
        *_search(_leaves(plain, checked)),
    ]
    code = b"".join(struct.pack("=HBBI", kind, yes, no, 0 if k == _OWN_PID else k) for kind, yes, no, k in steps)
    places = tuple(index * 8 + 4 for index, step in enumerate(steps) if step[3] == _OWN_PID)
    return FilterProgram(code=code, pid_places=places)


def _leaves(plain: set[int], checked: dict[int, list[_Step]]) -> list[tuple[int, list[_Step]]]:
    """Return what to do from each number on: the first numbers of intervals, in order."""
    allow: list[_Step] = [(_RETURN, 0, 0, _ALLOW)]
    deny: list[_Step] = [(_RETURN, 0, 0, _DENY)]
    leaves: list[tuple[int, list[_Step]]] = []
    # The last interval begins after the last known number and denies, also the calls of x32 with their high bit.
    for number in range(max(*plain, *checked) + 2):
        body = checked.get(number) or (allow if number in plain else deny)
        if not leaves or leaves[-1][1] is not body:
            leaves.append((number, body))
    return leaves


def _search(leaves: list[tuple[int, list[_Step]]]) -> list[_Step]:
    """Search the intervals by halves: the kernel tries every number when a filter is loaded, so a short way pays."""
    if len(leaves) == 1:
        return leaves[0][1]
    middle = len(leaves) // 2
    below, above = _search(leaves[:middle]), _search(leaves[middle:])
    # A conditional jump reaches 255 steps and `_JUMP` any distance, hence two of them.
    return [(_JUMP_GE, 0, 1, leaves[middle][0]), (_JUMP, 0, 0, len(below)), *below, *above]
