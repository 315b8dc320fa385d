"""Tier N: namespaces of the fork server, a root with little in it, and what each call gets of its own."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from letta_sandbox.cage import syscalls
from letta_sandbox.cage.plan import DEVICES, LOOPBACK, Plan
from letta_sandbox.cage.tunnels import PROXY_ADDRESS

_OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 1, os.O_CLOEXEC
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_MOVE_MOUNT_F_EMPTY_PATH = 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_PROC_FLAGS = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC
# SIOCSIFFLAGS, and IFF_UP with IFF_RUNNING.
_SET_INTERFACE_FLAGS, _UP_RUNNING = 0x8914, 0x41

_SERVER_NAMESPACES = (
    syscalls.CLONE_NEWUSER
    | syscalls.CLONE_NEWNS
    | syscalls.CLONE_NEWPID
    | syscalls.CLONE_NEWNET
    | syscalls.CLONE_NEWIPC
    | syscalls.CLONE_NEWUTS
    | syscalls.CLONE_NEWCGROUP
)
_ETC = {
    "passwd": "root:x:0:0::/:/bin/false\ntool:x:1000:1000::/tmp:/bin/false\n",
    "group": "root:x:0:\ntool:x:1000:\n",
    "hosts": "127.0.0.1 localhost\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n",
}
_BASE = "/tmp"  # noqa: S108 - covered by a file system of our own, in a mount namespace of our own


def enter(plan: Plan) -> None:
    """Become the first process of new namespaces; the caller's process stays behind to wait for it."""
    uid, gid = os.getuid(), os.getgid()
    # Made before `unshare`: afterwards nothing here has a privilege in the namespace above, where ids are mapped.
    helper = _Mapper(plan) if plan.pool_base else None
    syscalls.unshare(_SERVER_NAMESPACES)
    if helper is None:
        _write_maps("self", f"0 {uid} 1", f"0 {gid} 1", setgroups=False)
    else:
        helper.map()
    # A new process namespace takes in children alone, so the first of them becomes its process 1.
    child = os.fork()
    if child:
        _stay_behind(child)
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    _build_root(plan)
    socket.sethostname("sandbox")


def tell_ready(control: socket.socket, plan: Plan) -> None:
    """Say that all is ready; give the host the only listener that can be reached from here, if one may be."""
    if plan.network != LOOPBACK:
        control.send(b'{"ready":true}')
        return
    with listen_on_loopback(PROXY_ADDRESS) as listener:
        socket.send_fds(control, [b'{"ready":true}'], [listener.fileno()])


def listen_on_loopback(address: tuple[str, int]) -> socket.socket:
    """Bring up the loopback interface of this network namespace, which has no other, and listen there.

    Buffers are small, as no limit of a call counts them.
    """
    for name in ("tcp_rmem", "tcp_wmem"):
        with open(f"/proc/sys/net/ipv4/{name}", "w") as setting:  # noqa: PTH123 - pathlib is not loaded here
            setting.write("4096 131072 262144")
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    fcntl.ioctl(listener, _SET_INTERFACE_FLAGS, struct.pack("16sH14x", b"lo", _UP_RUNNING))
    listener.bind(address)
    listener.listen(128)
    return listener


def _stay_behind(child: int) -> None:
    """Hold nothing but the wait for the fork server, and end as it ends."""
    syscalls.close_range(3)
    _, status = os.waitpid(child, 0)
    os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _write_maps(process: str, users: str, groups: str, *, setgroups: bool) -> None:
    lines = [("uid_map", users), ("gid_map", groups)]
    # Without privileges above, the kernel takes a map of groups only from who can no longer drop groups.
    if not setgroups:
        lines.insert(0, ("setgroups", "deny"))
    for name, text in lines:
        file = os.open(f"/proc/{process}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, text.encode())
        finally:
            os.close(file)


class _Mapper:
    """A short-lived process that stays outside, where it may map a range of ids, and maps them."""

    def __init__(self, plan: Plan) -> None:
        self._asked, ask = os.pipe()
        answered, self._answer = os.pipe()
        target = os.getpid()
        self._child = os.fork()
        if self._child == 0:
            os.close(ask)
            self._serve(target, f"0 {plan.pool_base} {plan.pool_size}")
        os.close(self._asked)
        os.close(self._answer)
        self._ask, self._answered = ask, answered

    def _serve(self, target: int, line: str) -> None:
        try:
            if os.read(self._asked, 1):
                _write_maps(str(target), line, line, setgroups=True)
                os.write(self._answer, b"+")
        except OSError as error:
            os.write(self._answer, f"-{error}".encode())
        os._exit(0)

    def map(self) -> None:
        """Have the ids mapped. Raises OSError when the helper may not."""
        os.write(self._ask, b"+")
        answer = os.read(self._answered, 400).decode()
        os.waitpid(self._child, 0)
        os.close(self._ask)
        os.close(self._answered)
        if answer != "+":
            raise OSError(1, f"user ids cannot be mapped: {answer[1:]}")


@dataclass(frozen=True, slots=True)
class _Source:
    """Something of the host that calls may read, opened while its owner still may."""

    path: str
    real: str
    directory: bool
    tree: int


def _open(path: str) -> _Source:
    real = os.path.realpath(path)
    return _Source(path=path, real=real, directory=os.path.isdir(real), tree=_tree(real))  # noqa: PTH112


def _build_root(plan: Plan) -> None:
    """Replace the root by an empty one with what the plan lets calls read."""
    sources = [_open(path) for path in (*plan.readable, *DEVICES) if os.path.lexists(path)]
    hidden = [os.path.realpath(path) for path in plan.hidden]
    links = {name: os.readlink(name) for name in ("/lib", "/lib64") if os.path.islink(name)}  # noqa: PTH114, PTH115
    links |= {source.path: source.real for source in sources if source.path != source.real}
    if plan.pool_base:
        os.setgroups([])
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    # Mounts of ours must not appear on the host, and pivot_root refuses a root that is shared.
    syscalls.mount("", "/", "", syscalls.MS_REC | syscalls.MS_PRIVATE)
    # One megabyte holds some directories and the four files of `_ETC`; all else is mounted upon it.
    syscalls.mount("tmpfs", _BASE, "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, "size=1m,mode=755")
    for name in ("proc", "tmp", "etc", "dev"):
        os.mkdir(f"{_BASE}/{name}", 0o755)  # noqa: PTH102
    for name, text in _ETC.items():
        _write(f"{_BASE}/etc/{name}", text)
    for source in sources:
        _attach(source)
        _hide([path for path in hidden if path.startswith(source.real + "/")])
    for path, target in links.items():
        _link(path, target)
    syscalls.mount("proc", f"{_BASE}/proc", "proc", syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC)
    for path in (_BASE, *(_BASE + path for path in hidden if os.path.isdir(_BASE + path))):  # noqa: PTH112
        _set_attributes(_AT_FDCWD, path, _ATTR_RDONLY, 0)
    _pivot()


def _pivot() -> None:
    os.chdir(_BASE)
    # With the same directory twice the old root comes to lie upon the new one, where `umount` finds it.
    here = b".\0"
    syscalls.call("pivot_root", here, here)
    syscalls.umount(".", syscalls.MNT_DETACH)
    os.chdir("/")


def _tree(path: str) -> int:
    """Return a detached read-only copy of the mount at a path. The path is opened while its owner still may."""
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_RECURSIVE
    tree = syscalls.call("open_tree", _AT_FDCWD, path.encode() + b"\0", flags)
    # Only `DEVICES` are shown below /dev, and a device on a `nodev` mount cannot be opened.
    nodev = 0 if path.startswith("/dev/") else _ATTR_NODEV
    _set_attributes(tree, "", _ATTR_RDONLY | _ATTR_NOSUID | nodev, _AT_EMPTY_PATH | _AT_RECURSIVE)
    return tree


def _set_attributes(place: int, path: str, attributes: int, flags: int) -> None:
    # struct mount_attr: what to set, what to clear, propagation, and a user namespace that is not used here.
    holder = ctypes.create_string_buffer(struct.pack("=QQQQ", attributes, 0, 0, 0), 32)
    syscalls.call("mount_setattr", place, path.encode() + b"\0", flags, holder, 32)


def _attach(source: _Source, base: str = _BASE) -> None:
    target = base + source.real
    if not os.path.lexists(target):
        os.makedirs(target if source.directory else os.path.dirname(target), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        if not source.directory:
            _write(target, "")
    syscalls.call("move_mount", source.tree, b"\0", _AT_FDCWD, target.encode() + b"\0", _MOVE_MOUNT_F_EMPTY_PATH)
    os.close(source.tree)


def _hide(paths: list[str]) -> None:
    """Cover directories that lie inside of what may be read with empty ones."""
    for path in paths:
        if os.path.isdir(_BASE + path):  # noqa: PTH112
            flags = syscalls.MS_NOSUID | syscalls.MS_NODEV
            syscalls.mount("tmpfs", _BASE + path, "tmpfs", flags, "size=64k,mode=755")


def _link(path: str, target: str) -> None:
    if not os.path.lexists(_BASE + path):
        os.makedirs(os.path.dirname(_BASE + path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        os.symlink(target, _BASE + path)  # noqa: PTH211


def _write(path: str, text: str) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    os.write(file, text.encode())
    os.close(file)


def enter_call() -> None:
    """Give the calling process mounts of its own and a /proc that shows nothing but itself."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    syscalls.mount("proc", "/proc", "proc", _PROC_FLAGS, "subset=pid")


def enter_stage() -> None:
    """Give the calling process mounts of its own and a /proc that shows nothing but itself and what comes of it."""
    syscalls.unshare(syscalls.CLONE_NEWNS)
    # `hidepid=4` leaves out every process that the reader may not trace.
    syscalls.mount("proc", "/proc", "proc", _PROC_FLAGS, "subset=pid,hidepid=4")


class Visitor:
    """Goes into the namespaces of processes, which may not mount, mounts what they need, and comes back."""

    def __init__(self) -> None:
        self._mounts = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        self._processes = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def furnish(self, process: int, size: int, owner: int) -> None:
        """Give a process that is the first of its namespaces a /proc and a /tmp. Raises OSError."""
        mounts = os.open(f"/proc/{process}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        processes = os.open(f"/proc/{process}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
        try:
            syscalls.call("setns", mounts, syscalls.CLONE_NEWNS)
            syscalls.call("setns", processes, syscalls.CLONE_NEWPID)
            mount_scratch(size, owner)
            _mount_processes_from_inside()
        finally:
            syscalls.call("setns", self._mounts, syscalls.CLONE_NEWNS)
            syscalls.call("setns", self._processes, syscalls.CLONE_NEWPID)
            os.chdir("/")
            os.close(mounts)
            os.close(processes)

    def close(self) -> None:
        """Let go of the way back."""
        os.close(self._mounts)
        os.close(self._processes)


def _mount_processes_from_inside() -> None:
    """Mount /proc by a child, since it shows the process namespace of whoever mounts it. Raises OSError."""
    child = os.fork()
    if child == 0:
        try:
            syscalls.mount("proc", "/proc", "proc", _PROC_FLAGS, "subset=pid")
            os._exit(0)
        finally:
            os._exit(1)
    if os.waitpid(child, 0)[1]:
        raise OSError(1, "mount proc on /proc")


def mount_scratch(size: int, owner: int, shown: Iterable[str] = ()) -> None:
    """Mount the call's own /tmp, bounded in bytes and files. What is `shown` of the one below stays where it was."""
    kept = [_open(path) for path in map(os.path.realpath, shown) if path.startswith("/tmp/") and os.path.isdir(path)]  # noqa: S108, PTH112
    # Inodes are memory of the kernel that `size` does not count: one for each page of 4 KiB, within bounds.
    files = max(64, min(size >> 12, 65536))
    options = f"size={size},nr_inodes={files},mode=700,uid={owner},gid={owner}"
    syscalls.mount("tmpfs", "/tmp", "tmpfs", syscalls.MS_NOSUID | syscalls.MS_NODEV, options)  # noqa: S108
    for source in kept:
        _attach(source, base="")
    os.chdir("/tmp")  # noqa: S108


def leave_user_namespace() -> None:
    """Enter a user namespace of the call's own, so that its tasks are counted apart from those of other calls."""
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    map_self(0)


def map_self(outer: int) -> None:
    """Give the calling process, which is in a new user namespace, an id: its own of the one above."""
    _write_maps("self", f"1000 {outer} 1", f"1000 {outer} 1", setgroups=False)
