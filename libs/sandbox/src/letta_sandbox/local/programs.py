"""Programs that stay: each in a confinement of its own, with its standard streams in the hands of the host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from letta_common.errors import IsolationUnavailable
from letta_sandbox.cage import plan
from letta_sandbox.cage.plan import LOOPBACK, Plan
from letta_sandbox.calls import Isolation, Limits
from letta_sandbox.destinations import Destinations
from letta_sandbox.egress import Egress, EgressProxy
from letta_sandbox.local import hosts, program_selftests
from letta_sandbox.local.pipes import MESSAGE_LIMIT, Writer, receive
from letta_sandbox.local.servers import PROXY_VARIABLES

_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from letta_sandbox.forks import launches; launches.main(int(sys.argv[2]))"
)
_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8"}
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/alternatives", "/etc/ssl/certs")
_NEVER = ("/", "/dev", "/etc", "/proc", "/run", "/sys", "/tmp", "/var")  # noqa: S108 - what may never be shown
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_OWN_VARIABLES = {"PATH": _PATH, "HOME": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 - the program's own
_START_TIMEOUT = 20.0
_END_TIMEOUT = 5.0
_TIERS = {Isolation.NAMESPACE: plan.NAMESPACE, Isolation.LANDLOCK: plan.LANDLOCK, Isolation.NONE: plan.NONE}
# Index 0 is the id of the process around the program, 1 that of the program.
_POOL_SIZE = 2
_TASKS_TO_COME = 16
# Programs stay, so their limits are wide: what they hold together is watched by the launcher.
_CPU_SECONDS = 3600
_ADDRESS_BYTES = 64 << 30
_MOST_STDERR = 16 << 20
_TAIL = 4096


class ProgramFailed(Exception):
    """The program cannot be started; the message says why."""


@dataclass(frozen=True, slots=True)
class ProgramOptions:
    """How programs may run on this host. `readable` are places besides those of the system, `hidden` is never shown.

    On tier N `egress` carries what they send to `destinations`. On tier L they have no network, as none can be had
    there that leads to a proxy alone.
    """

    min_isolation: Isolation = Isolation.LANDLOCK
    allow_unsandboxed: bool = False
    tiers: tuple[Isolation, ...] = (Isolation.NAMESPACE, Isolation.LANDLOCK)
    readable: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    destinations: Destinations = field(default_factory=Destinations)
    egress: Egress | None = None
    interpreter: str = ""
    limits: Limits = field(
        default_factory=lambda: Limits(memory_bytes=1 << 30, scratch_bytes=256 << 20, processes=64, open_files=1024)
    )


class Program:
    """One program under way. `told` says why it ended, once it has."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        control: socket.socket,
        release: Callable[[], None],
        proxy: EgressProxy | None = None,
    ) -> None:
        self.told: dict[str, Any] = {}
        self.stdout = asyncio.StreamReader(limit=1 << 16)
        self._process = process
        self._control = control
        self._release = release
        self._proxy = proxy
        self._tail = b""
        self._transports: list[asyncio.BaseTransport] = []
        self._stdin: asyncio.WriteTransport | None = None
        self._stdin_protocol = _Flow()
        self._reading: asyncio.Task[None] | None = None

    async def attach(self, stdin: int, stdout: int, stderr: int) -> None:
        """Take over the host's ends of the standard streams."""
        loop = asyncio.get_running_loop()
        errors = asyncio.StreamReader(limit=1 << 16)
        for fd, reader in ((stdout, self.stdout), (stderr, errors)):
            pipe = os.fdopen(fd, "rb", 0)
            transport, _ = await loop.connect_read_pipe(lambda to=reader: asyncio.StreamReaderProtocol(to), pipe)  # type: ignore[misc]
            self._transports.append(transport)
        self._stdin, _ = await loop.connect_write_pipe(lambda: self._stdin_protocol, os.fdopen(stdin, "wb", 0))
        self._transports.append(self._stdin)
        self._reading = asyncio.create_task(self._keep_tail(errors, self._transports[1]))

    async def write(self, data: bytes) -> None:
        """Write to the program's standard input. Raises ConnectionError when it has closed it."""
        if self._stdin is None or self._stdin.is_closing():
            raise ConnectionResetError("the program takes no input")
        self._stdin.write(data)
        await self._stdin_protocol.drained()

    @property
    def errors(self) -> str:
        """The end of what the program wrote to its standard error."""
        return self._tail.decode(errors="replace").strip()

    async def _keep_tail(self, errors: asyncio.StreamReader, transport: asyncio.BaseTransport) -> None:
        total = 0
        while part := await errors.read(1 << 16):
            self._tail = (self._tail + part)[-_TAIL:]
            total += len(part)
            if total > _MOST_STDERR:
                transport.close()
                return

    async def close(self) -> None:
        """End the program with everything that came of it; return when nothing is left."""
        with contextlib.suppress(OSError):
            self._control.setblocking(False)
            self._control.shutdown(socket.SHUT_WR)
        try:
            await asyncio.wait_for(self._process.wait(), _END_TIMEOUT)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            self.told = json.loads(self._control.recv(MESSAGE_LIMIT) or b"{}")
        self._control.close()
        if self._proxy is not None:
            await self._proxy.close()
        for transport in self._transports:
            transport.close()
        if self._reading is not None:
            self._reading.cancel()
        self._release()


class _Flow(asyncio.Protocol):
    """Holds writers back while a pipe is full."""

    def __init__(self) -> None:
        self._free = asyncio.Event()
        self._free.set()
        self._lost = False

    def pause_writing(self) -> None:
        self._free.clear()

    def resume_writing(self) -> None:
        self._free.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._lost = True
        self._free.set()

    async def drained(self) -> None:
        """Return once there is room. Raises ConnectionResetError when the reader is gone."""
        await self._free.wait()
        if self._lost:
            raise ConnectionResetError("the program takes no input")


class Programs:
    """Starts programs in the strongest confinement that holds here."""

    def __init__(self, options: ProgramOptions) -> None:
        self._options = options
        self._lock = asyncio.Lock()
        self._tier: Isolation | None = None
        self._missing: tuple[str, ...] = ()
        self._numbers: set[int] = set()

    async def isolation(self) -> Isolation:
        """Return the strongest tier that holds. Raises IsolationUnavailable."""
        async with self._lock:
            if self._tier is None:
                self._tier = await self._probe()
        if self._tier is None:
            missing = "; ".join(self._missing)
            raise IsolationUnavailable(
                "stdio MCP servers cannot be isolated strongly enough here (see the settings tools_min_isolation and "
                f"tools_allow_unsandboxed): {missing}",
                missing=missing,
            )
        return self._tier

    async def start(self, command: str, arguments: tuple[str, ...], environment: Mapping[str, str]) -> Program:
        """Start a program with this environment and no other. Raises ProgramFailed, IsolationUnavailable."""
        return await self._start(await self.isolation(), (command, *arguments), environment)

    async def _probe(self) -> Isolation | None:
        options = self._options
        self._missing = ()
        tiers = [tier for tier in options.tiers if tier >= max(options.min_isolation, Isolation.LANDLOCK)]
        if options.allow_unsandboxed and options.min_isolation is Isolation.NONE:
            tiers.append(Isolation.NONE)
        for tier in tiers:
            try:
                weakness = await self._weakness(tier) if tier is not Isolation.NONE else ""
            except (ProgramFailed, OSError, NotImplementedError, TimeoutError) as error:
                weakness = str(error) or type(error).__name__
            if not weakness:
                return tier
            self._missing = (*self._missing, f"{tier.name}: {weakness}")
        if not tiers:
            self._missing = (f"{options.min_isolation.name} is asked for, which no host offers",)
        return None

    async def _weakness(self, tier: Isolation) -> str:
        """Say what a program of our own can do that it must not."""
        python = await asyncio.to_thread(hosts.find_interpreter, self._options.interpreter)
        arguments = (python.path, "-I", "-S", "-c", program_selftests.PROGRAM)
        program = await self._start(tier, arguments, {}, connected=False)
        try:
            await program.write(json.dumps(program_selftests.facts()).encode() + b"\n")
            answer = await asyncio.wait_for(program.stdout.readline(), _START_TIMEOUT)
        except ConnectionError:
            answer = b""
        finally:
            await program.close()
        if not answer:
            return f"the self-test did not answer: {program.errors[-300:]}"
        return program_selftests.judged(json.loads(answer))

    async def _start(
        self, tier: Isolation, arguments: tuple[str, ...], environment: Mapping[str, str], *, connected: bool = True
    ) -> Program:
        number = next(each for each in range(len(self._numbers) + 1) if each not in self._numbers)
        self._numbers.add(number)
        control: socket.socket | None = None
        try:
            made, python, tasks = await asyncio.to_thread(self._plan, tier, number)
            if connected and tier is Isolation.NAMESPACE and self._options.destinations:
                made = replace(made, network=LOOPBACK)
            process, control, listeners = await _launched(made, python)
            proxy = self._proxy(listeners)
            program = Program(process, control, lambda: self._numbers.discard(number), proxy)
        except BaseException:
            self._numbers.discard(number)
            raise
        values = {name: float(value) for name, value in asdict(self._options.limits).items()}
        order = {
            "arguments": arguments,
            "environment": {**_OWN_VARIABLES, **(PROXY_VARIABLES if proxy else {}), **environment},
            "limits": {**values, "cpu_seconds": _CPU_SECONDS, "address_bytes": _ADDRESS_BYTES},
            "tasks": tasks,
        }
        try:
            await _handed_over(program, control, json.dumps(order).encode())
        except BaseException:
            await program.close()
            raise
        return program

    def _proxy(self, listeners: list[int]) -> EgressProxy | None:
        """Serve the listener in the namespaces of a program, if it has one."""
        if not listeners or self._options.egress is None:
            return None
        proxy = EgressProxy(self._options.egress, self._options.destinations)
        proxy.listen(socket.socket(fileno=listeners[0]))
        return proxy

    def _plan(self, tier: Isolation, number: int) -> tuple[Plan, str, int]:
        options = self._options
        python = hosts.find_interpreter(options.interpreter)
        own = [python.path, python.library, *python.modules, *python.shared]
        wanted = [*options.readable, *_SYSTEM, *(path for path in own if not path.startswith("/usr/"))]
        readable = tuple(dict.fromkeys(path for path in wanted if Path(path).exists()))
        for path in map(os.path.realpath, options.readable):
            if path in _NEVER:
                raise ProgramFailed(f"{path} of the setting tools_mcp_stdio_paths is too much")
        real = [os.path.realpath(path) for path in readable]
        hidden = [os.path.realpath(path) for path in options.hidden]
        made = Plan(
            tier=_TIERS[tier],
            readable=readable,
            hidden=tuple(path for path in hidden if any(path.startswith(place + "/") for place in real)),
            import_path=(),
            preload_path=(),
            preload=(),
            pool_base=hosts.program_ids(number, _POOL_SIZE) if os.getuid() == 0 and tier != Isolation.NONE else 0,
            pool_size=_POOL_SIZE,
            prefork=0,
            programs=True,
        )
        tasks = hosts.count_tasks(os.getuid()) + _TASKS_TO_COME if hosts.shares_ids(made) else 0
        return made, python.path, tasks


async def _launched(made: Plan, interpreter: str) -> tuple[asyncio.subprocess.Process, socket.socket, list[int]]:
    """Start the process that isolates itself; return its listeners too. Raises ProgramFailed with the reason."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    try:
        process = await asyncio.create_subprocess_exec(
            *(interpreter, "-I", "-S", "-B", "-c", _BOOT, _SOURCE_ROOT, str(theirs.fileno())),
            env=_ENVIRONMENT,
            cwd="/",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.DEVNULL,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
    except OSError as error:
        ours.close()
        raise ProgramFailed(f"no launcher: {error}") from error
    finally:
        theirs.close()
    try:
        await asyncio.get_running_loop().sock_sendall(ours, made.dumps())
        listeners = await _told(ours, "ready")
    except BaseException:
        ours.close()
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise
    return process, ours, listeners


async def _handed_over(program: Program, control: socket.socket, order: bytes) -> None:
    """Hand over the order and the standard streams. Raises ProgramFailed when the program cannot be started."""
    pipes = [os.pipe2(os.O_CLOEXEC) for _ in range(4)]
    (asked, ask), (stdin, feed), (out, stdout), (err, stderr) = pipes
    try:
        socket.send_fds(control, [b"+"], [asked, stdin, stdout, stderr])
    except OSError as error:
        for fd in (ask, feed, out, err):
            os.close(fd)
        raise ProgramFailed(f"the launcher has ended: {error}") from error
    finally:
        for fd in (asked, stdin, stdout, stderr):
            os.close(fd)
    await program.attach(feed, out, err)
    writer = Writer(asyncio.get_running_loop(), ask, order)
    try:
        await _told(control, "started")
    finally:
        writer.close()


async def _told(control: socket.socket, word: str) -> list[int]:
    """Wait until the launcher says a word; return the descriptors with it. Raises ProgramFailed with what it says."""
    try:
        answer, fds = await asyncio.wait_for(receive(control), _START_TIMEOUT)
        message = json.loads(answer) if answer else {}
    except (OSError, TimeoutError, ValueError) as error:
        raise ProgramFailed(f"no answer: {type(error).__name__}") from error
    if word not in message:
        raise ProgramFailed(str(message.get("fatal", "the launcher died at its start")))
    return fds
