"""Attacks on other processes, and processes that outlive their call."""

# ruff: noqa: E501 - sources of tools are text

from __future__ import annotations

from hostile.attacks import Attack

from letta_sandbox.calls import CallEnding

ATTACKS = [
    Attack(
        "ptrace",
        """
def attack(facts):
    for pid in pids(facts):
        if syscall(101, 117, 16, pid, 0, 0) == 0:
            os.waitpid(pid, 0x40000000) if False else time.sleep(0.05)
            syscall(101, 117, 17, pid, 0, 0)
            return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "read another process's memory",
        """
def attack(facts):
    here = ctypes.create_string_buffer(8)
    ours = ctypes.create_string_buffer(struct.pack("PN", ctypes.addressof(here), 8), 16)
    for pid in pids(facts):
        place = facts["address"]
        theirs = ctypes.create_string_buffer(struct.pack("PN", place, 8), 16)
        if syscall(310, 270, pid, ours, 1, theirs, 1, 0) == 8:
            return {"hit": True}
        if worked(lambda: os.pread(os.open(f"/proc/{pid}/mem", os.O_RDONLY), 8, place)):
            return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "kill the parent and the service",
        """
import signal
def attack(facts):
    return {"hit": [pid for pid in {os.getppid(), facts["victim_pid"]} - {0, 1} if worked(lambda: os.kill(pid, signal.SIGTERM))] != []}
""",
    ),
    Attack(
        "kill everybody",
        """
import signal
def attack(facts):
    return {"hit": worked(lambda: os.kill(-1, signal.SIGUSR1)) or worked(lambda: os.killpg(facts["victim_group"], signal.SIGUSR1))}
""",
    ),
    Attack(
        "signals by other calls",
        """
import signal
def attack(facts):
    for pid in pids(facts):
        if syscall(200, 130, pid, 10) == 0 or syscall(234, 131, pid, pid, 10) == 0:
            return {"hit": True}
        if worked(lambda: signal.pidfd_send_signal(os.pidfd_open(pid), 10)):
            return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "signals by a pipe that is owned by somebody else",
        """
import fcntl
def attack(facts):
    reader, writer = os.pipe()
    def own():
        fcntl.fcntl(reader, 8, facts["victim_pid"])
        fcntl.fcntl(reader, 4, 0o20000)
        os.write(writer, b"x")
    return {"hit": worked(own)}
""",
    ),
    Attack(
        "limits, priority and processors of another process",
        """
def attack(facts):
    import resource
    for pid in pids(facts):
        if worked(lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (16, 16))):
            return {"hit": True}
        if worked(lambda: os.setpriority(os.PRIO_PROCESS, pid, 19)):
            return {"hit": True}
        if worked(lambda: os.sched_setaffinity(pid, {0})):
            return {"hit": True}
    return {"hit": False}
""",
    ),
    Attack(
        "see other processes",
        """
def attack(facts):
    seen = []
    worked(lambda: seen.extend(name for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()))
    seen += [pid for pid in pids(facts) if worked(lambda: os.kill(pid, 0))]
    return {"hit": seen != []}
""",
    ),
    Attack(
        "a detached grandchild",
        """
def attack(facts):
    def detach():
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for fd in range(3):
                    os.close(fd)
                os.closerange(3, 256)
                time.sleep(facts["linger"])
            os._exit(0)
    worked(detach)
    return {"hit": False}
""",
    ),
    Attack(
        "threads and exit handlers that go on after the result",
        """
import atexit, threading
def attack(facts):
    def late():
        time.sleep(0.3)
        os.write(1, b"late")
    threading.Thread(target=late).start()
    atexit.register(os.write, 1, b"late")
    return {"hit": False}
""",
        accepted=lambda result: "late" in result.stdout,
    ),
    Attack(
        "a shell",
        """
import subprocess
def attack(facts):
    return {"hit": worked(lambda: subprocess.run(["/bin/sh", "-c", "id"], check=True, capture_output=True))}
""",
    ),
    Attack(
        "commands as the retired server ran them (CVE-2025-51482)",
        """
def attack(facts):
    os.system("echo hit > " + facts["directory"] + "/planted")
    worked(lambda: os.popen("echo hit > " + facts["directory"] + "/planted").read())
    return {"hit": os.path.exists(facts["directory"] + "/planted")}
""",
    ),
    Attack(
        "posix_spawn and exec",
        """
def attack(facts):
    def spawn():
        pid = os.posix_spawn(sys.executable, [sys.executable, "-c", "pass"], {})
        os.waitpid(pid, 0)
    return {"hit": worked(spawn)}
""",
    ),
    Attack(
        "secrets of another tenant's call (CVE-2024-39025)",
        """
def attack(facts):
    found = []
    for pid in (name for name in (os.listdir("/proc") if worked(lambda: os.listdir("/proc")) else []) if name.isdigit()):
        if int(pid) != os.getpid():
            worked(lambda: found.append(len(open(f"/proc/{pid}/environ", "rb").read()) > 0))
            worked(lambda: found.append(len(os.listdir(f"/proc/{pid}/fd")) > 0))
    return {"hit": any(found)}
""",
        neighbour=True,
    ),
    Attack(
        "stop itself",
        "import signal\ndef attack(facts):\n    os.kill(os.getpid(), signal.SIGSTOP)\n    time.sleep(60)\n",
        plain="inside",
        status=(CallEnding.TIMEOUT,),
    ),
    Attack("leave by os._exit", "def attack(facts):\n    os._exit(0)\n", plain="inside", status=(CallEnding.CRASHED,)),
    Attack(
        "leave by sys.exit", "def attack(facts):\n    sys.exit(0)\n", plain="inside", status=(CallEnding.TOOL_ERROR,)
    ),
    Attack(
        "a segmentation fault",
        "def attack(facts):\n    ctypes.string_at(0)\n",
        plain="inside",
        status=(CallEnding.CRASHED,),
    ),
    Attack("abort", "def attack(facts):\n    os.abort()\n", plain="inside", status=(CallEnding.CRASHED,)),
    Attack(
        "endless recursion without a limit",
        """
def attack(facts):
    sys.setrecursionlimit(10**9)
    class Deep:
        def __repr__(self): return repr(self)
    repr(Deep())
""",
        plain="inside",
        status=(CallEnding.CRASHED, CallEnding.MEMORY, CallEnding.TOOL_ERROR, CallEnding.TIMEOUT),
    ),
]
