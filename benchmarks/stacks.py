"""The servers that benchmarks measure, as processes of their own, with their CPU time and memory."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.http_client import HttpClient, HttpError

HEALTHY_SECONDS = 120.0
REST_SECONDS, REST_SHARE = 0.5, 0.1
"""A stack rests when it takes less than this share of a processor for so long; what is left then are its timers."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Processor time of a stack, in seconds."""

    python: float
    postgres: float

    def since(self, earlier: CpuTime) -> CpuTime:
        """Return what was used since an earlier reading."""
        return CpuTime(self.python - earlier.python, self.postgres - earlier.postgres)


@dataclass(slots=True)
class Stack:
    """A running stack."""

    process: subprocess.Popen[bytes]
    base_url: str
    grpc_port: int
    seconds_to_healthy: float

    def cpu(self) -> CpuTime:
        """Read the processor time of the stack's processes, ended children included."""
        python = postgres = 0.0
        root = psutil.Process(self.process.pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                times, name = process.cpu_times(), process.name()
            except psutil.NoSuchProcess:
                continue
            used = _cpu_seconds(process.pid)
            if process.pid != root.pid:
                used += times.children_user + times.children_system
            if "postgres" in name:
                postgres += used
            else:
                python += used
        return CpuTime(python, postgres)

    async def rest(self) -> None:
        """Wait until what goes on behind the start is over, such as the import of SDKs. Raises RuntimeError."""
        end, before = time.monotonic() + HEALTHY_SECONDS, self.cpu()
        while time.monotonic() < end:
            await asyncio.sleep(REST_SECONDS)
            now = self.cpu()
            if now.since(before).python < REST_SECONDS * REST_SHARE:
                return
            before = now
        raise RuntimeError(f"{self.base_url} does not rest within {HEALTHY_SECONDS:.0f} s")

    def pss_megabytes(self) -> float:
        """Return the memory of the processes that run Python, in MiB; a page that several share counts once."""
        root = psutil.Process(self.process.pid)
        every = [root, *root.children(recursive=True)]
        return sum(one.memory_full_info().pss for one in every if "postgres" not in one.name()) / 2**20


def _cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its threads to the nanosecond; 0 when it has ended.

    The number of its clock is made as the C library does (`clock_getcpuclockid`); `/proc` has hundredths of a second.
    """
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return 0.0


def free_port() -> int:
    """Return a port that nobody listens on, nor on the eight after it; outside of those that outgoing calls take."""
    while True:
        first = random.randrange(20_000, 32_000)
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            for port in range(first, first + 9):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


@asynccontextmanager
async def letta(
    *command: str, home: Path | None = None, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Stack]:
    """Run `letta server` or `letta up` in a home of its own and end it with the block."""
    scratch = home or Path(tempfile.mkdtemp(prefix="letta-bench-"))
    http, grpc = free_port(), free_port()
    variables = {**os.environ, "LETTA_HOME": str(scratch), "LETTA_LOG_LEVEL": "warning", **(environment or {})}
    begun = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "letta_cli", *command, "--dev", "--port", str(http), "--grpc-port", str(grpc)],
        env=variables,
        stdout=subprocess.DEVNULL,
    )
    try:
        base_url = f"http://127.0.0.1:{http}"
        await healthy(base_url, process)
        yield Stack(process, base_url, grpc, time.monotonic() - begun)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        if home is None:
            shutil.rmtree(scratch, ignore_errors=True)


async def healthy(base_url: str, process: subprocess.Popen[bytes] | None = None) -> None:
    """Wait until the server is ready. Raises RuntimeError when it ends or takes too long."""
    end = time.monotonic() + HEALTHY_SECONDS
    while time.monotonic() < end:
        if process is not None and process.poll() is not None:
            raise RuntimeError(f"the server ended with status {process.returncode}")
        try:
            async with HttpClient(base_url) as client:
                await client.call("GET", "/v1/ready/")
                return
        except (OSError, HttpError, IndexError, asyncio.IncompleteReadError):
            await asyncio.sleep(0.02)
    raise RuntimeError(f"{base_url} is not ready after {HEALTHY_SECONDS:.0f} s")
