"""What an attack is after: a secret, listeners, a process. Afterwards one can see whether they were touched."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import socket
import tempfile
import uuid
from pathlib import Path
from typing import Any

SECRET = "marker-4f1c"
VARIABLE = "LETTA_HOSTILE_SECRET"
_EXITING = 0x4


class Victims:
    """Everything an attack may want to reach, owned by the user that runs the service."""

    def __init__(self, base: str) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="letta-hostile-", dir=base))
        self._secret = self._directory / "secret"
        self._secret.write_text(SECRET)
        self._secret.chmod(0o600)
        self._memory = ctypes.create_string_buffer(SECRET.encode())
        self._held = os.open(self._secret, os.O_RDONLY)
        os.set_inheritable(self._held, True)
        self._names = {"stream": f"letta-{uuid.uuid4().hex}", "datagram": f"letta-{uuid.uuid4().hex}"}
        self._listeners = self._listen()
        self._datagrams = [self._open_udp(), self._open_datagram()]
        self._process = self._start()
        self._before = self._look()

    def _listen(self) -> list[socket.socket]:
        tcp, path, abstract = socket.socket(), socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        tcp.bind(("127.0.0.1", 0))
        path.bind(str(self._directory / "socket"))
        abstract.bind("\0" + self._names["stream"])
        for listener in (tcp, path, abstract):
            listener.listen()
            listener.setblocking(False)
        return [tcp, path, abstract]

    def _open_udp(self) -> socket.socket:
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        opened.bind(("127.0.0.1", 0))
        opened.setblocking(False)
        return opened

    def _open_datagram(self) -> socket.socket:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        opened.bind("\0" + self._names["datagram"])
        opened.setblocking(False)
        return opened

    def _start(self) -> int:
        process = os.fork()
        if process == 0:
            os.setsid()
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGIO):
                signal.signal(number, signal.SIG_DFL)
            while True:
                signal.pause()
        return process

    def facts(self) -> dict[str, Any]:
        """Return what the attack is told."""
        planted = f"{self._directory}/planted"
        return {
            "secret_file": str(self._secret),
            "source_file": __file__,
            "directory": str(self._directory),
            "tcp_port": self._listeners[0].getsockname()[1],
            "udp_port": self._datagrams[0].getsockname()[1],
            "unix_path": str(self._directory / "socket"),
            "abstract": self._names["stream"],
            "abstract_datagram": self._names["datagram"],
            "victim_pid": self._process,
            "victim_group": self._process,
            "service_pid": os.getpid(),
            "address": ctypes.addressof(self._memory),
            "linger": 30,
            "pickle": f"cos\nsystem\n(S'echo hit > {planted}'\ntR.",
            "code": f"'] ; __import__('os').system('echo hit > {planted}') ; x = ['",
        }

    def _look(self) -> dict[str, Any]:
        stat = self._secret.stat()
        return {
            "secret": (self._secret.read_text(), stat.st_mode, stat.st_mtime, stat.st_nlink),
            "files": sorted(path.name for path in self._directory.iterdir()),
            "victim's limits": resource.prlimit(self._process, resource.RLIMIT_NOFILE),
            "victim's priority": os.getpriority(os.PRIO_PROCESS, self._process),
            "victim's processors": os.sched_getaffinity(self._process),
        }

    def damage(self) -> list[str]:
        """Say what was touched."""
        if os.waitpid(self._process, os.WNOHANG | os.WUNTRACED) != (0, 0):
            return ["the victim was ended or stopped"]
        found = [name for name, value in _safely(self._look).items() if value != self._before[name]]
        for listener in self._listeners:
            with contextlib.suppress(BlockingIOError):
                listener.accept()
                found.append("a listener was reached")
        for opened in self._datagrams:
            with contextlib.suppress(BlockingIOError):
                opened.recv(1)
                found.append("a datagram arrived")
        return found

    @property
    def process(self) -> int:
        """The process id of the victim."""
        return self._process

    def close(self) -> None:
        """Clear away."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self._process, 0)
        os.close(self._held)
        for opened in (*self._listeners, *self._datagrams):
            opened.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _safely(look: Any) -> dict[str, Any]:
    try:
        return look()
    except OSError as error:
        return {"secret": repr(error)}


def others(*known: int) -> list[int]:
    """Return the processes in sight that are neither known nor dead."""
    found = []
    for name in (path.name for path in Path("/proc").iterdir()):
        if name.isdigit() and int(name) not in known:
            with contextlib.suppress(OSError):
                if Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                    found.append(int(name))
    return found


def is_ending(process: int) -> bool:
    """Whether a process was killed or has begun to end; nothing that it does can change that."""
    with contextlib.suppress(OSError, ValueError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in {"X", "Z"} or int(fields[6]) & _EXITING:
            return True
        status = Path(f"/proc/{process}/status").read_text()
        pending = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(("SigPnd", "ShdPnd"))]
        return any(mask & 1 << (signal.SIGKILL - 1) for mask in pending)
    return not Path(f"/proc/{process}").exists()


def fill(value: Any, facts: dict[str, Any]) -> Any:
    """Put facts into arguments: the text `{code}` anywhere becomes facts["code"]."""
    if isinstance(value, str):
        return value.replace("{code}", facts["code"])
    if isinstance(value, list):
        return [fill(item, facts) for item in value]
    if isinstance(value, dict):
        return {fill(key, facts): fill(item, facts) for key, item in value.items()}
    return value
