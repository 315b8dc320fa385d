"""Attacks on the kernel's own ways to more rights."""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

from hostile.attacks import Attack


def _call(name: str, x86: int, arm: int, arguments: str) -> Attack:
    return Attack(name, f'def attack(facts):\n    return {{"hit": syscall({x86}, {arm}, {arguments}) >= 0}}\n')


ATTACKS = [
    Attack("chroot", 'def attack(facts):\n    return {"hit": worked(lambda: os.chroot("/tmp"))}\n'),
    Attack(
        "mount",
        """
def attack(facts):
    return {"hit": libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None) == 0 or libc.mount(b"proc", b"/proc", b"proc", 0, None) == 0}
""",
    ),
    Attack(
        "unmount",
        'def attack(facts):\n    return {"hit": libc.umount2(b"/tmp", 2) == 0 or libc.umount2(b"/proc", 2) == 0}\n',
    ),
    Attack("a user namespace of its own", 'def attack(facts):\n    return {"hit": libc.unshare(0x10000000) == 0}\n'),
    Attack(
        "enter a namespace",
        """
def attack(facts):
    for kind in ("pid", "net", "mnt", "uts", "ipc"):
        for pid in ("self", "1"):
            try:
                fd = os.open(f"/proc/{pid}/ns/{kind}", os.O_RDONLY)
            except OSError:
                continue
            if libc.setns(fd, 0) == 0:
                return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "capabilities",
        """
def attack(facts):
    header = ctypes.create_string_buffer(struct.pack("=Ii", 0x20080522, 0), 8)
    data = ctypes.create_string_buffer(24)
    libc.capget(header, data)
    bounding = [c for c in range(41) if libc.prctl(23, c, 0, 0, 0) == 1]
    return {"hit": any(data.raw) or (bounding != [] and libc.prctl(39, 0, 0, 0, 0) != 1)}
""",
    ),
    Attack(
        "become somebody else",
        """
def attack(facts):
    ways = [lambda: os.setuid(os.getuid() + 1), lambda: os.setgid(os.getgid() + 1), lambda: os.setgroups([5])]
    return {"hit": any([worked(way) for way in reversed(ways)])}
""",
    ),
    _call("kernel keys", 248, 217, 'b"user", b"a", b"x", 1, -4'),
    _call("userfaultfd", 323, 282, "1"),
    _call("memory files without names", 319, 279, 'b"x", 0'),
    _call("POSIX message queues", 240, 180, 'b"q", 0x42, 0o600, 0'),
    _call("System V semaphores", 64, 190, "0, 1, 0o1600"),
    _call("inotify", 294, 26, "0"),
    Attack(
        "lock files that everybody reads",
        """
def attack(facts):
    hits = []
    for path in (os.__file__, sys.executable, os.path.dirname(os.__file__), "/dev/null", "/etc/ld.so.cache"):
        try:
            file = os.open(path, os.O_RDONLY)
        except OSError:
            continue
        hits.append(syscall(73, 32, file, 2 | 4) >= 0)
        hits.append(syscall(73, 32, file, 1 | 4) >= 0)
        os.close(file)
    return {"hit": any(hits)}
""",
    ),
    _call(
        "file handles",
        303,
        264,
        '-100, b"/tmp", ctypes.create_string_buffer(struct.pack("=Ii", 128, 0), 200), ctypes.create_string_buffer(8), 0',
    ),
    _call("personality", 135, 92, "0x0040000"),
    _call("its own seccomp filter", 317, 277, "2, 0, ctypes.create_string_buffer(struct.pack('<I', 0x7fff0000))"),
    _call("process descriptors", 434, 434, "os.getpid(), 0"),
    Attack(
        "vmsplice",
        """
def attack(facts):
    area = ctypes.create_string_buffer(8)
    vector = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(area), 8), 16)
    return {"hit": syscall(278, 75, os.pipe()[1], vector, 1, 0) >= 0}
""",
    ),
    Attack(
        "calls of a 32-bit program",
        """
import mmap
def attack(facts):
    if os.uname().machine != "x86_64":
        return {"hit": os.environ.get("HOME") != "/tmp"}
    code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    code.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
    pid = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
    return {"hit": pid == os.getpid()}
""",
    ),
    Attack(
        "undo no_new_privs and the death signal",
        """
def attack(facts):
    return {"hit": libc.prctl(1, 0, 0, 0, 0) == 0 or libc.prctl(36, 1, 0, 0, 0) == 0 or libc.prctl(4, 1, 0, 0, 0) == 0}
""",
    ),
]
