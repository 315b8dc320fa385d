"""Attacks on files of the host, and on what earlier and later calls keep."""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

from hostile.attacks import Attack

ATTACKS = [
    Attack(
        "read the service's secret",
        'def attack(facts):\n    return {"hit": worked(lambda: open(facts["secret_file"]).read())}\n',
    ),
    Attack(
        "read the service's own source",
        'def attack(facts):\n    return {"hit": worked(lambda: open(facts["source_file"]).read())}\n',
    ),
    Attack(
        "write outside of the scratch directory",
        """
def attack(facts):
    places = [facts["directory"], "/", "/etc", "/usr", "/var/tmp", "/dev", "/dev/shm", os.path.dirname(os.__file__)]
    return {"hit": [p for p in places if worked(lambda: open(p + "/planted", "w").close())] != []}
""",
    ),
    Attack(
        "truncate, rename and remove the secret",
        """
def attack(facts):
    name = facts["secret_file"]
    return {"hit": worked(lambda: os.truncate(name, 0)) or worked(lambda: os.rename(name, name + "x"))
            or worked(lambda: os.unlink(name))}
""",
    ),
    Attack(
        "change mode and time of the secret",
        """
def attack(facts):
    name = facts["secret_file"]
    return {"hit": worked(lambda: os.chmod(name, 0o777)) or worked(lambda: os.utime(name, (1, 1)))
            or worked(lambda: os.setxattr(name, "user.x", b"1"))}
""",
    ),
    Attack(
        "follow a symbolic link out",
        """
def attack(facts):
    def read():
        os.symlink(facts["secret_file"], "/tmp/link")
        open("/tmp/link").read()
    return {"hit": worked(read)}
""",
    ),
    Attack(
        "hard link to the secret",
        'def attack(facts):\n    return {"hit": worked(lambda: os.link(facts["secret_file"], facts["directory"] + "/l"))}\n',
    ),
    Attack(
        "relative paths out of the root",
        """
def attack(facts):
    def read():
        os.chdir("/")
        open("../" * 20 + facts["secret_file"].lstrip("/")).read()
    return {"hit": worked(read)}
""",
    ),
    Attack(
        "every /proc/*/root, cwd, fd and environ",
        """
def attack(facts):
    found = []
    for pid in ["self", "1", *[name for name in (os.listdir("/proc") if worked(lambda: os.listdir("/proc")) else []) if name.isdigit()],
                *map(str, pids(facts))]:
        for way in ("root", "cwd"):
            def read():
                data = open(f"/proc/{pid}/{way}/" + facts["secret_file"].lstrip("/")).read()
                found.append(have_secret(data))
            worked(read)
        worked(lambda: found.append(pid != "self" and have_secret(open(f"/proc/{pid}/environ", "rb").read())))
    return {"hit": any(found)}
""",
    ),
    Attack(
        "the service's environment",
        """
def attack(facts):
    seen = [repr(dict(os.environ))]
    worked(lambda: seen.append(open("/proc/self/environ").read()))
    libc.getenv.restype = ctypes.c_char_p
    seen.append(repr(libc.getenv(b"LETTA_HOSTILE_SECRET")))
    return {"hit": have_secret(" ".join(seen))}
""",
    ),
    Attack(
        "inherited descriptors",
        """
def attack(facts):
    found = []
    for fd in range(3, 1024):
        worked(lambda: found.append(have_secret(os.pread(fd, 200, 0))))
        worked(lambda: found.append(bool(os.listdir(fd))))
    return {"hit": any(found)}
""",
    ),
    Attack(
        "the service's standard input",
        """
import select
def attack(facts):
    ready = select.select([0], [], [], 0.2)[0]
    return {"hit": bool(ready) and have_secret(os.read(0, 200))}
""",
    ),
    Attack(
        "leave a file for the next call",
        """
def attack(facts):
    name = "/tmp/left-behind"
    if os.path.exists(name):
        return {"hit": True}
    worked(lambda: open(name, "w").close())
    return {"hit": False}
""",
        twice=True,
    ),
    Attack(
        "devices",
        """
def attack(facts):
    names = ["/dev/zero", "/dev/full", "/dev/mem", "/dev/kvm", "/dev/fuse", "/dev/vda", "/dev/sda", "/dev/loop0",
             "/dev/net/tun", "/dev/tty", "/dev/ptmx", "/dev/vsock", "/dev/userfaultfd", "/dev/kmsg"]
    return {"hit": [name for name in names if worked(lambda: os.open(name, os.O_RDWR))] != []}
""",
    ),
    Attack(
        "special files",
        'def attack(facts):\n    return {"hit": worked(lambda: os.mkfifo("/tmp/fifo")) or worked(lambda: os.mknod("/tmp/n", 0o60600, 0x700))}\n',
    ),
    Attack(
        "kernel settings",
        """
def attack(facts):
    names = ["/proc/sys/kernel/hostname", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/kernel/core_pattern"]
    return {"hit": [name for name in names if worked(lambda: open(name, "r+").close())] != []}
""",
    ),
]
