"""Machines that are Docker containers: no network, a read-only root, no capability, nobody's user."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from letta_tools.domain.execution import Isolation
from letta_tools.providers.remote.machines import Job, MachineFailed, MachineOutOfMemory

_NOBODY = "65534:65534"
_ANSWER_SECONDS = 30.0
_OVERHEAD_BYTES = 128 << 20
_PIECE = 1 << 16
_STDOUT = 1


@dataclass(frozen=True, slots=True)
class DockerOptions:
    """Which engine and what containers. Without an address the usual one of this host is meant."""

    address: str = ""
    image: str = "python:3.11-slim"
    runtime: str = ""


class DockerMachines:
    """Starts a container for each job and removes it. Raises RuntimeError where the SDK is not installed."""

    name = "docker"

    def __init__(self, options: DockerOptions) -> None:
        try:
            docker: Any = importlib.import_module("docker")
        except ImportError as error:
            raise RuntimeError("the provider docker needs the extra `letta-tools[docker]`") from error
        self._options = options
        self._docker = docker
        self._client: Any = None
        self._lock = asyncio.Lock()
        self.isolation = Isolation.VM if options.runtime.startswith("kata") else Isolation.NAMESPACE

    async def run(self, job: Job) -> bytes:
        """Run a job in a container of its own. Raises MachineFailed, MachineOutOfMemory."""
        client = await self._connected()
        container = await self._create(client, job)
        try:
            return await asyncio.to_thread(self._exchange, client, container, job)
        finally:
            await asyncio.shield(asyncio.to_thread(self._remove, client, container))

    async def _create(self, client: Any, job: Job) -> str:
        """Create the container; one that is made while the caller goes away is removed."""
        creating = asyncio.create_task(asyncio.to_thread(self._make, client, job))
        try:
            return await asyncio.shield(creating)
        except asyncio.CancelledError:
            with contextlib.suppress(MachineFailed):
                await asyncio.to_thread(self._remove, client, await creating)
            raise

    async def close(self) -> None:
        """Let go of the engine."""
        if self._client is not None:
            await asyncio.to_thread(self._client.close)
            self._client = None

    async def _connected(self) -> Any:
        async with self._lock:
            if self._client is None:
                self._client = await asyncio.to_thread(self._connect)
            return self._client

    def _connect(self) -> Any:
        address = {"base_url": self._options.address} if self._options.address else {}
        with self._failing():
            return self._docker.APIClient(version="auto", timeout=_ANSWER_SECONDS, **address)

    def _make(self, client: Any, job: Job) -> str:
        limits = job.limits
        scratch = limits.scratch_bytes + 2 * job.package_bytes
        memory = limits.memory_bytes + scratch + len(job.data) + _OVERHEAD_BYTES
        with self._failing():
            host = client.create_host_config(
                network_mode="none",
                read_only=True,
                tmpfs={"/tmp": f"size={scratch},mode=1777,nosuid,nodev"},  # noqa: S108
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                pids_limit=limits.processes + 8,
                mem_limit=memory,
                memswap_limit=memory,
                init=True,
                ipc_mode="none",
                runtime=self._options.runtime or None,
            )
            made = client.create_container(
                image=self._options.image,
                command=["python3", "-I", "-B", "-c", job.program],
                user=_NOBODY,
                environment={"HOME": "/tmp", "LANG": "C.UTF-8"},  # noqa: S108
                stdin_open=True,
                labels={"letta.role": "tool-call"},
                host_config=host,
            )
        return str(made["Id"])

    def _exchange(self, client: Any, container: str, job: Job) -> bytes:
        """Start the container, hand it the job, return what it writes."""
        with self._failing():
            params = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}
            raw = client.attach_socket(container, params=params)
            sock = raw._sock
            try:
                client.start(container)
                end = time.monotonic() + job.limits.timeout_seconds + _ANSWER_SECONDS
                sock.settimeout(job.limits.timeout_seconds + _ANSWER_SECONDS)
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it has ended already
                    sock.sendall(job.data)
                written = _read_output(sock, job.most_bytes, end)
            finally:
                raw.close()
                sock.close()
            if not written and client.inspect_container(container)["State"].get("OOMKilled"):
                raise MachineOutOfMemory
            return written

    def _remove(self, client: Any, container: str) -> None:
        with contextlib.suppress(MachineFailed), self._failing():
            client.remove_container(container, force=True, v=True)

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        """Turn what the SDK and the connection raise into MachineFailed."""
        try:
            yield
        except self._docker.errors.ImageNotFound as error:
            raise MachineFailed(f"the engine has no image {self._options.image}; pull it") from error
        except (self._docker.errors.DockerException, OSError) as error:
            raise MachineFailed(str(error)[:500]) from error


def _read_output(sock: Any, most: int, end: float) -> bytes:
    """Return what the container wrote to standard output, out of frames of both streams."""
    parts: list[bytes] = []
    size = 0
    while head := _exactly(sock, 8, end):
        length = int.from_bytes(head[4:], "big")
        size += length
        if size > most:
            raise MachineFailed(f"the machine wrote more than {most} bytes")
        piece = _exactly(sock, length, end)
        if head[0] == _STDOUT:
            parts.append(piece)
    return b"".join(parts)


def _exactly(sock: Any, size: int, end: float) -> bytes:
    """Return that many bytes; fewer at the end of the stream."""
    data = bytearray()
    while len(data) < size:
        left = end - time.monotonic()
        if left <= 0:
            raise MachineFailed("the machine did not end in time")
        sock.settimeout(left)
        piece = b""
        with contextlib.suppress(ConnectionResetError):
            piece = sock.recv(min(_PIECE, size - len(data)))
        if not piece:
            break
        data += piece
    return bytes(data)
