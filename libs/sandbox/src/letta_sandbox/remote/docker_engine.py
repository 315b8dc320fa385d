"""Machines that are Docker containers: no network, a read-only root, no capability, nobody's user."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from letta_sandbox.calls import Isolation
from letta_sandbox.remote import sdks
from letta_sandbox.remote.machines import (
    ANSWER_SECONDS,
    ROLE,
    TOOL_CALL,
    Job,
    MachineFailed,
    MachineLost,
    MachineOutOfMemory,
    MachinesBusy,
    Output,
    Shape,
    StandingMachine,
)

# By number, since an image need not have a user of that name.
_NOBODY = "65534:65534"
_PIECE = 1 << 16
_STDOUT = 1
# Each job blocks one of them while it runs.
_THREADS = 64
_GONE = 404
_BUSY = {429, 503}
_Made = TypeVar("_Made")


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """Which engine and what containers. Without an address the usual one of this host is meant."""

    address: str = ""
    image: str = "python:3.11-slim"
    runtime: str = ""


class DockerMachines:
    """Containers of one engine. Raises RuntimeError where the SDK is not installed."""

    name = "docker"

    def __init__(self, options: DockerOptions) -> None:
        self._docker = sdks.load("docker", "docker")
        self._options = options
        self._client: Any = None
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="docker")
        self.isolation = Isolation.VM if options.runtime.startswith("kata") else Isolation.NAMESPACE

    async def closed_to(self) -> tuple[()]:
        """Nothing is in reach without a network."""
        return ()

    async def start(self, shape: Shape) -> DockerMachine:
        """Start a container that waits for jobs and removes itself in the end. Raises MachineFailed, MachinesBusy."""
        client = await self.client()
        container = await self.call(self._create, client, shape)
        return DockerMachine(self, container)

    async def standing(self) -> list[StandingMachine]:
        """Return the containers that are there, whoever started them. Raises MachineFailed."""
        client = await self.client()
        found = await self.call(client.containers, all=True, filters={"label": f"{ROLE}={TOOL_CALL}"})
        return [StandingMachine(DockerMachine(self, item["Id"]), item.get("Labels") or {}) for item in found]

    async def close(self) -> None:
        """Let go of the engine."""
        if self._client is not None:
            await self.call(self._client.close)
            self._client = None
        self._threads.shutdown(wait=False)

    async def call(self, work: Callable[..., _Made], *args: Any, **named: Any) -> _Made:
        """Do something in a thread, since the SDK blocks. Raises MachineFailed, MachinesBusy."""

        def done() -> _Made:
            with self._failing():
                return work(*args, **named)

        return await asyncio.get_running_loop().run_in_executor(self._threads, done)

    async def client(self) -> Any:
        """Return the connection to the engine. Raises MachineFailed."""
        async with self._lock:
            if self._client is None:
                self._client = await self.call(self._connect)
            return self._client

    def _connect(self) -> Any:
        address = {"base_url": self._options.address} if self._options.address else {}
        return self._docker.APIClient(version="auto", timeout=ANSWER_SECONDS, **address)

    def _create(self, client: Any, shape: Shape) -> str:
        host = client.create_host_config(
            network_mode="none",
            read_only=True,
            tmpfs={"/tmp": f"size={shape.scratch_bytes},mode=1777,nosuid,nodev"},  # noqa: S108
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            # 8 more for the init process and the runner around the tool.
            pids_limit=shape.limits.processes + 8,
            mem_limit=shape.memory_bytes,
            # The limit of memory and swap together, so the same number means no swap.
            memswap_limit=shape.memory_bytes,
            init=True,
            ipc_mode="none",
            auto_remove=True,
            runtime=self._options.runtime or None,
        )
        made = client.create_container(
            image=self._options.image,
            command=shape.idle_command,
            user=_NOBODY,
            environment={"HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108
            labels=dict(shape.labels),
            host_config=host,
        )
        container = str(made["Id"])
        try:
            client.start(container)
        except Exception:
            with contextlib.suppress(Exception):
                client.remove_container(container, force=True, v=True)
            raise
        return container

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what the SDK and the connection raise into MachineFailed."""
        try:
            yield
        except self._docker.errors.ImageNotFound as error:
            raise MachineFailed(f"the engine has no image {self._options.image}; pull it") from error
        except self._docker.errors.APIError as error:
            failed = MachinesBusy if error.status_code in _BUSY else MachineFailed
            raise failed(str(error)[:500]) from error
        except (self._docker.errors.DockerException, OSError) as error:
            raise MachineFailed(str(error)[:500]) from error


class DockerMachine:
    """One container. Ending it is what ends a job before its time."""

    def __init__(self, machines: DockerMachines, container: str) -> None:
        self._machines = machines
        self._container = container

    async def run(self, job: Job) -> bytes:
        """Run a job in the container. Raises MachineFailed, MachineLost, MachineOutOfMemory, TooMuchOutput."""
        client = await self._machines.client()
        made = await self._machines.call(
            client.exec_create, self._container, list(job.command), stdin=True, stdout=True, stderr=True
        )
        starting = asyncio.ensure_future(self._machines.call(client.exec_start, made["Id"], socket=True))
        try:
            raw = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_close_unused)
            raise
        try:
            with sdks.handed_over():
                return await self._machines.call(_exchange, raw, job)
        except MachineLost:
            if await self._machines.call(self._ran_out_of_memory, client):
                raise MachineOutOfMemory from None
            raise

    async def end(self) -> None:
        """Remove the container. Raises MachineFailed."""
        client = await self._machines.client()
        await self._machines.call(self._remove, client)

    def _ran_out_of_memory(self, client: Any) -> bool:
        try:
            return bool(client.inspect_container(self._container)["State"].get("OOMKilled"))
        except Exception as error:
            if getattr(error, "status_code", 0) == _GONE:
                return False
            raise

    def _remove(self, client: Any) -> None:
        try:
            client.remove_container(self._container, force=True, v=True)
        except Exception as error:
            if getattr(error, "status_code", 0) not in {_GONE, 409}:  # gone, or being removed
                raise


def _close_unused(starting: asyncio.Future[Any]) -> None:
    """Close the connection of a command that nobody waits for any more."""
    if not starting.cancelled() and starting.exception() is None:
        raw = starting.result()
        sock = getattr(raw, "_sock", raw)
        raw.close()
        sock.close()


def _exchange(raw: Any, job: Job) -> bytes:
    """Hand over the job, return what it writes. Raises MachineLost, TooMuchOutput."""
    sock = getattr(raw, "_sock", raw)  # with TLS it is the socket already
    try:
        sock.settimeout(job.patience)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already
            sock.sendall(job.data)
        written = _read_output(sock, Output(job.most_bytes), time.monotonic() + job.patience)
    finally:
        raw.close()
        sock.close()
    if not written:
        raise MachineLost("it wrote nothing")
    return written


def _read_output(sock: Any, output: Output, end: float) -> bytes:
    """Return what the job wrote to standard output, out of frames of both streams."""
    while head := _exactly(sock, 8, end):
        length = int.from_bytes(head[4:], "big")
        if head[0] == _STDOUT:
            output.add(_exactly(sock, length, end))
        else:
            output.count(length)
            _exactly(sock, length, end)
    return output.written()


def _exactly(sock: Any, size: int, end: float) -> bytes:
    """Return that many bytes; fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise MachineLost("it did not end in time")
        sock.settimeout(left)
        piece = b""
        with contextlib.suppress(ConnectionResetError):
            piece = sock.recv(min(_PIECE, size - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)
