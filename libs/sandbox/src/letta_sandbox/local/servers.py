"""The host's side of one fork server: starts it, sends it calls, learns how they ended."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from letta_sandbox.cage.plan import EXCHANGE, LOOPBACK, Plan
from letta_sandbox.calls import Limits
from letta_sandbox.egress import PROXY_URL, EgressProxy
from letta_sandbox.local.pipes import MESSAGE_LIMIT, ByteBudget, Reader, Writer, receive

_SOURCE_ROOT = str(Path(__file__).resolve().parents[2])
_BOOT = (
    "import sys; sys.path.insert(0, sys.argv[1]); from letta_sandbox.forks import zygote; zygote.main(int(sys.argv[2]))"
)
_ENVIRONMENT = {
    "PATH": "/usr/bin:/bin",
    "HOME": "/tmp",  # noqa: S108 - the call's own
    "LANG": "C.UTF-8",
    # Arenas and threads are made for each processor, and would use up the address space of a call.
    "MALLOC_ARENA_MAX": "2",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
}
PROXY_VARIABLES = {
    **dict.fromkeys(("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"), PROXY_URL),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), ""),
}
_START_TIMEOUT = 20.0
# A process that has written its frame has only its exit left.
_PATIENCE = 0.02


class ServerFailed(Exception):
    """The fork server cannot start or has died; the message says why."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the process of a call ended, and what it left in its pipes."""

    status: int
    cpu_seconds: float
    peak_memory_bytes: int
    frame: bytes
    stdout: bytes
    stderr: bytes
    output_exceeded: bool
    frame_exceeded: bool
    timed_out: bool
    failed: str = ""


class _RunningCall:
    """One call under way."""

    def __init__(self, server: ForkServer, number: int, limits: Limits, frame_limit: int) -> None:
        loop = server.loop
        self.ended: asyncio.Future[dict[str, Any]] = loop.create_future()
        self.timed_out = False
        self._server = server
        self._number = number
        self._output = ByteBudget(limits.output_bytes, self._kill)
        self._frame = ByteBudget(frame_limit, self._kill)
        request, result, out, err = (os.pipe2(os.O_CLOEXEC) for _ in range(4))
        self.theirs = [request[0], result[1], out[1], err[1], *server.new_exchange()]
        self._request_fd = request[1]
        self._result = Reader(loop, result[0], self._frame, self._frame_ended)
        self._out = Reader(loop, out[0], self._output)
        self._err = Reader(loop, err[0], self._output)
        self._timer = loop.call_later(limits.timeout_seconds, self._time_up)
        self._writer: Writer | None = None

    def begin(self, request: bytes) -> None:
        """Write the request, once the other ends are handed over."""
        self._writer = Writer(self._server.loop, self._request_fd, request)

    def _frame_ended(self) -> None:
        """Answer once the frame is whole; the process ends meanwhile, or is ended."""
        if self._result.data() and not self.ended.done():
            self.ended.set_result({})
            self._server.expect_end(self._number)

    def _time_up(self) -> None:
        self.timed_out = True
        self._kill()

    def _kill(self) -> None:
        self._server.kill(self._number)

    def ending(self, report: dict[str, Any]) -> Ending:
        """Gather what the call left. What it wrote before its frame is in the pipes by now."""
        for reader in (self._result, self._out, self._err):
            reader.drain()
        return Ending(
            status=report.get("status", 0),
            cpu_seconds=report.get("cpu", 0.0),
            peak_memory_bytes=report.get("memory", 0),
            frame=self._result.data(),
            stdout=self._out.data(),
            stderr=self._err.data(),
            output_exceeded=self._output.exceeded,
            frame_exceeded=self._frame.exceeded,
            timed_out=self.timed_out,
            failed=report.get("failed", ""),
        )

    def close(self) -> None:
        """Let go of the pipes."""
        self._timer.cancel()
        for reader in (self._result, self._out, self._err):
            reader.close()
        if self._writer is not None:
            self._writer.close()


class ForkServer:
    """One fork server and the calls it runs."""

    def __init__(
        self, process: asyncio.subprocess.Process, control: socket.socket, plan: Plan, proxy: EgressProxy | None = None
    ) -> None:
        self.loop = asyncio.get_running_loop()
        self.plan = plan
        self._proxy = proxy
        self.dead = False
        self._process = process
        self._control = control
        self._running: dict[int, _RunningCall] = {}
        self._numbers = 0
        self._ending: set[int] = set()
        self._unsent: deque[tuple[bytes, list[int]]] = deque()
        self._weighing: deque[asyncio.Future[dict[int, int]]] = deque()
        self.loop.add_reader(control, self._take_reports)

    @classmethod
    async def start(cls, plan: Plan, interpreter: str, proxy: EgressProxy | None = None) -> ForkServer:
        """Start a fork server; its calls reach the network through the proxy alone. Raises ServerFailed."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        try:
            process = await asyncio.create_subprocess_exec(
                *(interpreter, "-I", "-S", "-B", "-c", _BOOT, _SOURCE_ROOT, str(theirs.fileno())),
                env=_ENVIRONMENT | _variables(plan),
                cwd="/",
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a process group of its own, in a way that uvloop offers too
            )
        except BaseException as error:  # who asked may go away at any moment
            ours.close()
            if not isinstance(error, OSError):
                raise
            raise ServerFailed(f"the fork server cannot start: {error}") from error
        finally:
            theirs.close()
        loop = asyncio.get_running_loop()
        message: dict[str, Any] = {}
        try:
            await loop.sock_sendall(ours, plan.dumps())
            answer, listeners = await asyncio.wait_for(receive(ours), _START_TIMEOUT)
            message = json.loads(answer) if answer else {}
        except (OSError, TimeoutError) as error:
            message = {"fatal": f"no answer: {error}"}
        finally:
            if "ready" not in message:
                ours.close()
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
        if "ready" not in message:
            await process.wait()
            raise ServerFailed(str(message.get("fatal", "the fork server died at its start")))
        if plan.network == LOOPBACK and proxy is not None:
            proxy.listen(socket.socket(fileno=listeners[0]))
        return cls(process, ours, plan, proxy)

    @property
    def busy(self) -> int:
        """How many calls are under way."""
        return len(self._running)

    async def run(
        self,
        request: bytes,
        limits: Limits,
        *,
        frame_limit: int,
        tasks: int = 0,
        begun: Callable[[ForkServer, int], None] = lambda _server, _number: None,
    ) -> Ending:
        """Run one call to its end; cancelling ends the call. Raises ServerFailed when the server dies.

        `tasks` is how many tasks of the same user there may be besides those of the call. `begun` gets the number
        that the call has here.
        """
        if self.dead:
            raise ServerFailed("the fork server has died")
        self._numbers += 1
        number = self._numbers
        running = _RunningCall(self, number, limits, frame_limit)
        self._running[number] = running
        values = {name: getattr(limits, name) for name in Limits.__slots__}
        header = {"op": "run", "id": number, "limits": values, "tasks": tasks}
        self._send(json.dumps(header).encode(), running.theirs)
        running.begin(request)
        begun(self, number)
        try:
            return running.ending(await running.ended)
        except asyncio.CancelledError:
            self.kill(number)
            raise
        finally:
            running.close()
            self._running.pop(number, None)

    def new_exchange(self) -> list[int]:
        """Return what a call needs besides its pipes to reach the network, if it may."""
        if self._proxy is None or self.plan.network != EXCHANGE:
            return []
        return [self._proxy.exchange().detach()]

    def expect_end(self, number: int) -> None:
        """End a call that has given its frame, should it not end by itself."""
        self._ending.add(number)
        self.loop.call_later(_PATIENCE, self._end_late, number)

    def _end_late(self, number: int) -> None:
        if number in self._ending:
            self.kill(number)

    def kill(self, number: int) -> None:
        """End one call."""
        self._order({"op": "kill", "id": number})

    def pause(self, number: int) -> None:
        """Let one call stand still."""
        self._order({"op": "pause", "id": number})

    def resume(self, number: int) -> None:
        """Let one call that stands still go on."""
        self._order({"op": "resume", "id": number})

    async def weigh(self, numbers: Sequence[int]) -> dict[int, int]:
        """Return how many bytes of memory calls hold; nothing of those that have ended."""
        if self.dead:
            return {}
        answer: asyncio.Future[dict[int, int]] = self.loop.create_future()
        self._weighing.append(answer)
        self._order({"op": "weigh", "ids": list(numbers)})
        return await answer

    def _order(self, order: dict[str, Any]) -> None:
        if not self.dead:
            self._send(json.dumps(order).encode(), [])

    def _send(self, message: bytes, fds: list[int]) -> None:
        self._unsent.append((message, fds))
        if len(self._unsent) == 1:
            self._flush()

    def _flush(self) -> None:
        while self._unsent:
            message, fds = self._unsent[0]
            try:
                socket.send_fds(self._control, [message], fds)
            except BlockingIOError:
                self.loop.add_writer(self._control, self._flush)
                return
            except OSError:
                self._die()
                return
            self._unsent.popleft()
            _close_all(fds)
        self.loop.remove_writer(self._control)

    def _take_reports(self) -> None:
        while not self.dead:  # several reports may have come by now
            try:
                data = self._control.recv(MESSAGE_LIMIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._die()
                return
            report = json.loads(data)
            if "weights" in report:
                self._take_weights(report["weights"])
                continue
            self._ending.discard(report["id"])
            running = self._running.get(report["id"])
            if running is not None and not running.ended.done():
                running.ended.set_result(report)

    def _take_weights(self, weights: dict[str, int]) -> None:
        answer = self._weighing.popleft()
        if not answer.done():
            answer.set_result({int(number): weight for number, weight in weights.items()})

    def _die(self) -> None:
        if self.dead:
            return
        self.dead = True
        while self._weighing:
            self._take_weights({})
        self.loop.remove_reader(self._control)
        self.loop.remove_writer(self._control)
        self._control.close()
        for _, fds in self._unsent:
            _close_all(fds)
        self._unsent.clear()
        for running in self._running.values():
            if not running.ended.done():
                running.ended.set_exception(ServerFailed("the fork server died during the call"))

    async def close(self) -> None:
        """End the server and every call."""
        self._die()
        if self._proxy is not None:
            await self._proxy.close()
        try:
            await asyncio.wait_for(self._process.wait(), 2.0)
        except TimeoutError:
            self._process.kill()
            await self._process.wait()


def _variables(plan: Plan) -> dict[str, str]:
    """Return what tells HTTP clients of the proxy."""
    if not plan.network:
        return {}
    return PROXY_VARIABLES | ({"SSL_CERT_FILE": plan.certificates} if plan.certificates else {})


def _close_all(fds: list[int]) -> None:
    for fd in fds:
        os.close(fd)
